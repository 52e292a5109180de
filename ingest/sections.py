"""The sections of the configuration: every option in them, what it may be, and its default.

An option's own bounds are here; what holds between options is `ingest.config`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from ingest.options import Section, check_topic
from ingest.route import Dialect
from ingest.settings import KafkaValue

_Bytes: TypeAlias = Annotated[int, Meta(ge=1)]
_Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
_SecondsOrNone: TypeAlias = Annotated[float, Meta(ge=0)]
_Text: TypeAlias = Annotated[str, Meta(min_length=1)]

_BATCH_BYTES = 16 << 20

MOST_CONNECTIONS = 10_000
"""Open at once, where `limits.connections` is unset."""


class HTTP(Section, frozen=True, kw_only=True):
    """Where and how HTTP is served."""

    host: _Text = "127.0.0.1"
    """The address to listen on; 0.0.0.0 or :: is every one."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """The TCP port; 0 takes a free one."""
    engine: Literal["auto", "builtin", "h11"] = "auto"
    """The HTTP/1 parser; `auto` is the fastest one, which is the built-in one."""
    native: bool = True
    """Whether `/topics/{topic}/records` is served beside the routes."""
    rest_proxy: bool | None = None
    """Whether the paths of the REST Proxy are served beside the routes; unset, as `native`."""
    tls_certificate_file: _Text | None = None
    """The PEM file with the certificate chain; with it, HTTPS is served."""
    tls_key_file: _Text | None = None
    """The PEM file with the certificate's private key."""


class Limits(Section, frozen=True, kw_only=True):
    """Bounds of bytes and connections."""

    request_bytes: _Bytes = 1 << 20
    """Bytes of content that a request of one record may have, before it is inflated and after."""
    batch_bytes: _Bytes | None = None
    """Bytes of content that a request of many records may have where it is read whole.

    Unset, 16 MiB, or an eighth of `held_bytes` if that is less.  NDJSON and other streams have no limit.
    """
    record_bytes: _Bytes = 1_000_000
    """Bytes of value, key and headers together that one record may have."""
    held_bytes: _Bytes = 256 << 20
    """Bytes held for requests without an answer yet; beyond it, 503.  A record costs 512 beside its own,
    and 250 for each header (100 in a stream)."""
    connections: Annotated[int, Meta(ge=1)] | None = None
    """Connections open at once; a further one ends one without a request, of the client that has most.

    Unset, 10,000.  A quarter of the open files, 64 to 256, is kept from them.
    """

    @property
    def most_batch_bytes(self) -> int:
        """`batch_bytes`, or what stands for it while it is unset."""
        return self.batch_bytes or min(_BATCH_BYTES, self.held_bytes // 8)


class Timeouts(Section, frozen=True, kw_only=True):
    """Deadlines of a request and a connection."""

    answer_seconds: _Seconds = 10.0
    """Seconds from complete content to its answer at the latest, waits for room included; then 503 or 504."""
    head_seconds: _Seconds = 10.0
    """Seconds for a connection's first byte, TLS included, and again from a head's first byte to its end."""
    body_grace_seconds: _Seconds = 10.0
    """Seconds before the content's rate is looked at."""
    body_bytes_per_second: _Bytes = 16_384
    """Bytes a second that content has to arrive at, after the grace."""
    stream_idle_seconds: _Seconds = 60.0
    """Seconds that a stream of REST Proxy v3 may pause between records."""
    stream_seconds: _Seconds = 86_400.0
    """Seconds after which such a stream is ended."""
    idle_seconds: _Seconds = 75.0
    """Seconds that a kept-alive connection may be without a request."""
    send_seconds: _Seconds = 10.0
    """Seconds for a client to take an answer."""


class Shutdown(Section, frozen=True, kw_only=True):
    """The drain."""

    drain_delay_seconds: _SecondsOrNone = 0.0
    """Seconds to go on serving, as not ready, before the drain: for load balancers to notice."""
    grace_seconds: _Seconds = 25.0
    """Seconds in which the whole drain has to end; more than 1 above drain_delay_seconds."""


class Topics(Section, frozen=True, kw_only=True):
    """Which topics may be written."""

    allow: Sequence[str] | None = None
    """The only topics that may be written; unset, every topic that is not internal (`__*`)."""
    auto_create: bool | None = None
    """Whether an unknown topic is created by writing to it; unset, only with the broker inside."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for topic in self.allow or ():
            check_topic("topics.allow", topic)


class Compat(Section, frozen=True, kw_only=True):
    """What clients of other servers are used to."""

    v2_dialect: Dialect = "confluent"
    """Whose answers REST Proxy v2 gives: Confluent's own, or those of Karapace or of Strimzi's bridge."""
    v2_strict_200: bool = False
    """Whether REST Proxy v2 answers where no record was written as the original does, with 200 (422 in
    Karapace's dialect); else with the failure's own status.  It holds for every route."""
    cloudevents_key: bool = True
    """Whether the attribute `partitionkey` of a CloudEvent becomes the record's key, if nothing else does."""
    webhook_origins: Sequence[str] | None = None
    """The only senders that are told by OPTIONS that they may send CloudEvents, as their
    `WebHook-Request-Origin` names them; unset, all are."""


class Log(Section, frozen=True, kw_only=True):
    """The log that the command line writes; a library's user sets up logging alone."""

    format: Literal["text", "json"] = "text"
    """One line an event on standard error: `text` for people, `json` for collectors."""
    access: bool = False
    """Whether each request has a line too, at level INFO of the logger `ingest.access`."""


class Management(Section, frozen=True, kw_only=True):
    """Where health and metrics are served, apart from the records' own way in."""

    enabled: bool = True
    """Whether there is such a listener."""
    host: _Text = "127.0.0.1"
    """The address to listen on; 0.0.0.0 or :: is every one.  Whoever can connect can read."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8081
    """The TCP port; 0 takes a free one."""


PROFILES: Mapping[str, Mapping[str, KafkaValue]] = {
    "balanced": {"linger.ms": 1},
    "latency": {"linger.ms": 0},
    "throughput": {"linger.ms": 20, "compression.type": "lz4"},
}
"""What each `tuning.profile` gives librdkafka; the rest of its settings are the same in all of them."""


class Tuning(Section, frozen=True, kw_only=True):
    """How much of the machine is used, and what for."""

    profile: Literal["balanced", "latency", "throughput"] = "balanced"
    """What librdkafka is set up for; each of its settings can still be given in `[kafka]`."""
    workers: Annotated[int, Meta(ge=1, le=256)] | Literal["auto"] = 1
    """How many processes serve on the port, each with a loop, a producer and its share of the limits.

    `auto` is one for each usable core.  The command line starts them; as a library, `serve` is one.
    """
