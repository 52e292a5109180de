"""librdkafka's settings as they are given: their names, files in place of values, and what can be checked.

What librdkafka itself thinks of them is asked by `ingest.kafka.client`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from ingest.errors import ConfigError
from ingest.options import shown

KafkaValue: TypeAlias = str | int | float | bool
"""What one of librdkafka's settings may be given as."""

_BROKER = re.compile(r"(?:[A-Za-z_]+://)?(?:\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]/]+)(?::(?P<port>[0-9]{1,5}))?")

_ALIASES = {
    "metadata.broker.list": "bootstrap.servers",
    "request.required.acks": "acks",
    "delivery.timeout.ms": "message.timeout.ms",
    "queue.buffering.max.ms": "linger.ms",
    "compression.codec": "compression.type",
}
"""librdkafka's second names for the settings that have a default or a relation here."""

_CHECKED = frozenset(
    {
        *("acks", "bootstrap.servers", "delivery.report.only.error", "enable.idempotence"),
        *("message.max.bytes", "message.timeout.ms"),
    }
)
"""Settings whose values are looked at here, so that a file cannot stand for them."""


def kafka_name(name: str) -> str:
    """Give librdkafka's setting `name` by the one of its two names that is used here."""
    return _ALIASES.get(name, name)


def read_files(kafka: Mapping[str, KafkaValue]) -> dict[str, KafkaValue]:
    """Replace each `NAME_file` of `kafka` by NAME and the file's content, less its last line end.

    Raises ConfigError for a file that cannot be read.
    """
    settings: dict[str, KafkaValue] = {}
    for name, value in kafka.items():
        if not name.endswith("_file"):
            settings[name] = value
            continue
        try:
            content = Path(str(value)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f'[kafka] {name} = "{value}": cannot be read: {reason}') from None
        settings[name.removesuffix("_file")] = content.removesuffix("\n").removesuffix("\r")
    return settings


def check_kafka_value(called: str, name: object, value: object) -> None:
    """Refuse what no setting of librdkafka can be; raises ConfigError, which calls the setting `called`."""
    if not isinstance(name, str) or not isinstance(value, (str, int, float)):
        given = shown(str(name), value)
        raise ConfigError(f"{called} = {given}: must be a string, a number, true or false")


def checked_settings(kafka: Mapping[str, KafkaValue]) -> dict[str, KafkaValue]:
    """Hold what `[kafka]` gives against what can be known here; raises ConfigError.

    Settings come out by the one of their names that is used here.
    """
    if not isinstance(kafka, Mapping):
        raise ConfigError(f"kafka = {kafka!r}: must be a table of librdkafka's settings")
    settings: dict[str, KafkaValue] = {}
    for name, value in kafka.items():
        check_kafka_value(f"[kafka] {name}", name, value)
        settings_name = kafka_name(name.removesuffix("_file"))
        if settings_name == "transactional.id":
            raise ConfigError(f"[kafka] {name}: there are no transactions here; leave it out")
        if name.endswith("_file") and settings_name in _CHECKED:
            raise ConfigError(f"[kafka] {name}: {settings_name} is no secret; give the value itself")
        canonical = settings_name + ("_file" if name.endswith("_file") else "")
        if settings_name in settings or settings_name + "_file" in settings:
            raise ConfigError(f"[kafka] {name}: {settings_name} is set in two ways; one of them has to go")
        settings[canonical] = value
    if "bootstrap.servers" in settings:
        _check_brokers(str(settings["bootstrap.servers"]))
    if is_true(settings.get("delivery.report.only.error", False)):
        raise ConfigError("[kafka] delivery.report.only.error = true: no answer could be given; leave it out")
    return settings


def is_true(value: KafkaValue) -> bool:
    """What librdkafka makes of a setting that is true or false."""
    return str(value).lower() in ("true", "t", "1")


def _check_brokers(servers: str) -> None:
    """librdkafka takes what is no address too, and waits for it for ever."""
    for server in servers.split(","):
        match = _BROKER.fullmatch(server.strip())
        if match is None or not 1 <= int(match["port"] or 9092) <= 65535:
            raise ConfigError(
                f"[kafka] bootstrap.servers = {shown('bootstrap.servers', servers)}: must be HOST:PORT, or "
                "several of them with commas between"
            )
