"""The sections together, and the relations between options: one frozen, checked `Config`.

Options and their defaults are `ingest.sections`'s; what librdkafka is given by default is here.  A `Config`
that exists is right: whoever builds one, from Python or through `ingest.loading`, gets a `ConfigError` that
names the option, its value and what would be right.  Files, the environment and flags are
`ingest.loading`'s; what librdkafka thinks of its own settings is asked by `ingest.kafka.client`.  No trio,
and nothing of a request.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
from msgspec import Struct

from ingest.cors import CORS
from ingest.errors import ConfigError
from ingest.options import MASK, convert, is_secret, shown
from ingest.route import NATIVE_PATH, Route
from ingest.sections import (
    HTTP,
    MOST_CONNECTIONS,
    PROFILES,
    Compat,
    Limits,
    Log,
    Management,
    Shutdown,
    Timeouts,
    Topics,
    Tuning,
)
from ingest.settings import KafkaValue, checked_settings, is_true, read_files

_FRAMING_BYTES = 1024
# librdkafka (2.16) holds key + value + headers + 36 bytes against message.max.bytes, and 2 to 6 bytes of
# lengths for each header; a request head has at most 100 fields.
_ROOM_BYTES = 262_144
# Beside its content, a request may cost a head of 32 KiB, what its 100 fields cost as headers, and the 64 KiB
# by which the hold of content of unknown length grows.  Streams' windows have one half of the budget, and
# their batches the other: beside the longest line, a head, a window and its results in the first, and in the
# second one read, keys out of it, and some lines' common part.
_LARGEST_MESSAGE_MAX_BYTES = 1_000_000_000  # librdkafka's own bound


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration, checked and immutable.

    Raises ConfigError, from Python too, for a wrong type, a wrong value and a relation that fails.
    """

    http: HTTP = HTTP()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    shutdown: Shutdown = Shutdown()
    topics: Topics = Topics()
    cors: CORS = CORS()
    compat: Compat = Compat()
    log: Log = Log()
    management: Management = Management()
    tuning: Tuning = Tuning()
    routes: Sequence[Route] = (Route("/", "events"),)
    """Request targets with a topic of their own."""
    kafka: Mapping[str, KafkaValue] = MappingProxyType({})
    """librdkafka's settings, verbatim; `NAME_file` reads the value of NAME from a file."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.name == "routes":
                value = tuple(convert("routes", value, list[Route]))
            elif field.name == "kafka":
                value = MappingProxyType(checked_settings(value))
            else:
                value = convert(field.name, value, field.type)
            msgspec.structs.force_setattr(self, field.name, value)
        self._check_http()
        self._check_limits()
        self._check_times()
        for route in self.routes:
            self.cors_of(route)

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        values["kafka"] = {name: MASK if is_secret(name) else value for name, value in self.kafka.items()}
        return f"Config({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    @property
    def all_routes(self) -> tuple[Route, ...]:
        """The routes, and after them the native way's own unless `http.native` is off."""
        native = self.http.native and all(route.path != NATIVE_PATH for route in self.routes)
        return (*self.routes, Route(NATIVE_PATH)) if native else tuple(self.routes)

    @property
    def serves_rest_proxy(self) -> bool:
        """`http.rest_proxy`, or what stands for it while it is unset."""
        return self.http.native if self.http.rest_proxy is None else self.http.rest_proxy

    @property
    def creates_topics(self) -> bool:
        """`topics.auto_create`, or what stands for it while it is unset: only with the broker inside."""
        own = self.topics.auto_create
        return "bootstrap.servers" not in self.kafka if own is None else own

    @property
    def derived(self) -> dict[str, dict[str, KafkaValue]]:
        """What stands for each option that may be unset and has an effect then, by section."""
        return {
            "http": {"rest_proxy": self.serves_rest_proxy},
            "limits": {
                "batch_bytes": self.limits.most_batch_bytes,
                "connections": self.limits.connections or MOST_CONNECTIONS,
            },
            "topics": {"auto_create": self.creates_topics},
            "kafka": self.kafka_defaults | {"allow.auto.create.topics": self.creates_topics},
        }

    def cors_of(self, route: Route) -> CORS:
        """What pages in browsers may do on a route: its own options, over those of `cors`.

        Raises ConfigError where they do not go together.
        """
        own = {
            name: value
            for name in CORS.__struct_fields__
            if (value := getattr(route, f"cors_{name}")) is not None
        }
        if not own:
            return self.cors
        try:
            return msgspec.structs.replace(self.cors, **own)
        except ConfigError as error:
            raise ConfigError(f'routes: "{route.path}": with what it does not set itself: {error}') from None

    @property
    def kafka_defaults(self) -> dict[str, KafkaValue]:
        """What librdkafka is given unless `[kafka]` says otherwise."""
        return {
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # as Java clients do: the same key, the same partition
            "message.timeout.ms": 120_000,  # as Java clients do; above answer_seconds, see `warnings`
            **PROFILES[self.tuning.profile],
            "reconnect.backoff.max.ms": 1000,  # a broker that is back is to be noticed
            "statistics.interval.ms": 5000,
            "message.max.bytes": max(1000, self.limits.record_bytes + _FRAMING_BYTES),
            "allow.auto.create.topics": self.topics.auto_create is True,
        }

    @property
    def producer_settings(self) -> dict[str, KafkaValue]:
        """All settings for librdkafka's producer: the defaults, overlaid by `[kafka]`, with files read.

        Raises ConfigError for a file that cannot be read.
        """
        return self.kafka_defaults | read_files(self.kafka)

    def share(self, workers: int) -> Config:
        """What each of so many processes is given: its part of the limits, and no management of its own.

        Raises ConfigError where a part is too small.
        """
        limits = self.limits
        connections = None if limits.connections is None else limits.connections // workers
        try:
            return msgspec.structs.replace(
                self,
                limits=msgspec.structs.replace(
                    limits, held_bytes=limits.held_bytes // workers, connections=connections
                ),
                management=Management(enabled=False),
            )
        except ConfigError as error:
            raise ConfigError(f"tuning.workers = {workers}: the share of each: {error}") from None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed, but should be said at start."""
        found = []
        if not _is_loopback(self.http.host) and self.http.tls_certificate_file is None:
            found.append(
                f"http.host = {self.http.host} reaches beyond this machine, with neither TLS nor a "
                "credential: whoever can connect can write"
            )
        if not is_true(self.kafka.get("enable.idempotence", True)):
            found.append(
                "[kafka] enable.idempotence = false: a retry of librdkafka's may store a record twice, and "
                "change the order of records"
            )
        timeout_ms, answer_seconds = self._kafka_number("message.timeout.ms"), self.timeouts.answer_seconds
        if timeout_ms <= answer_seconds * 1000:
            # librdkafka 4953: a record that times out in flight has what was sent beside it sent again.
            found.append(
                f"[kafka] message.timeout.ms = {timeout_ms:g} is not above timeouts.answer_seconds = "
                f"{answer_seconds:g}: where Kafka stands still for about as long, records that are then "
                "answered 2xx may be stored twice"
            )
        allow = self.topics.allow
        found += [
            f'route "{route.path}" writes to "{route.topic}", which topics.allow does not name: '
            "each request is answered 403"
            for route in self.routes
            if allow is not None and route.topic is not None and route.topic not in allow
        ]
        return tuple(found)

    def _check_http(self) -> None:
        http = self.http
        if (http.tls_certificate_file is None) != (http.tls_key_file is None):
            given, missing = "tls_certificate_file", "tls_key_file"
            if http.tls_certificate_file is None:
                given, missing = missing, given
            raise ConfigError(f"http.{given} is set without http.{missing}: TLS needs both")
        own = self.management
        same = http.host == own.host or {http.host, own.host} & {"0.0.0.0", "::"}  # noqa: S104  # compared
        if own.enabled and own.port == http.port != 0 and same:
            raise ConfigError(f"management.port = {own.port} is http.port too: each needs one of its own")
        paths = [route.path for route in self.routes]
        for path in paths:
            if paths.count(path) > 1:
                raise ConfigError(f'routes: "{path}" is there {paths.count(path)} times: must be there once')

    def _check_limits(self) -> None:
        limits = self.limits
        most = _LARGEST_MESSAGE_MAX_BYTES - _FRAMING_BYTES
        if limits.record_bytes > most:
            raise ConfigError(f"limits.record_bytes = {limits.record_bytes}: must be at most {most}")
        message_max_bytes = self._kafka_number("message.max.bytes")
        if limits.record_bytes > message_max_bytes:
            raise ConfigError(
                f"limits.record_bytes = {limits.record_bytes} is more than [kafka] message.max.bytes = "
                f"{message_max_bytes:g}: lower the first, or leave the second out, which sets it to fit"
            )
        batch_bytes = limits.batch_bytes or 0  # what stands for it is made to fit
        for least, relation in (
            (limits.request_bytes + _ROOM_BYTES, f"limits.request_bytes + {_ROOM_BYTES}"),
            (2 * batch_bytes + _ROOM_BYTES, f"2 * limits.batch_bytes + {_ROOM_BYTES}"),
            (2 * (limits.record_bytes + _ROOM_BYTES), f"2 * (limits.record_bytes + {_ROOM_BYTES})"),
        ):
            if limits.held_bytes < least:
                raise ConfigError(
                    f"limits.held_bytes = {limits.held_bytes} has no room for the largest request: "
                    f"must be at least {relation} = {least}"
                )

    def _check_times(self) -> None:
        shutdown, answer_seconds = self.shutdown, self.timeouts.answer_seconds
        if shutdown.drain_delay_seconds + 1 >= shutdown.grace_seconds:
            raise ConfigError(
                f"shutdown.grace_seconds = {shutdown.grace_seconds:g} leaves no time to flush: must be more "
                f"than 1 above shutdown.drain_delay_seconds = {shutdown.drain_delay_seconds:g}"
            )
        timeout_ms = self._kafka_number("message.timeout.ms")
        if timeout_ms <= 0:
            raise ConfigError(f"[kafka] message.timeout.ms = {timeout_ms:g}: must be above 0")
        for route in self.routes:
            if route.when_full == "wait" and route.wait_seconds >= answer_seconds:
                raise ConfigError(
                    f'routes: "{route.path}": wait_seconds = {route.wait_seconds:g}: must be below '
                    f"timeouts.answer_seconds = {answer_seconds:g}"
                )
        acks = self.kafka.get("acks", "all")
        delivering = [route.path for route in self.all_routes if route.promise == "delivered"]
        if self.serves_rest_proxy:
            delivering.append("/topics/{topic}")
        if str(acks) not in ("all", "-1") and delivering:
            raise ConfigError(
                f'[kafka] acks = {shown("acks", acks)}: must be "all" while route "{delivering[0]}" '
                'promises "delivered"'
            )

    def _kafka_number(self, name: str) -> float:
        value = self.kafka.get(name, self.kafka_defaults[name])
        return float(convert(f"[kafka] {name}", value, float, strict=False))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
