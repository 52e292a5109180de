"""How librdkafka's handles are opened: with which settings, and where they log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as Handle
from confluent_kafka.admin import AdminClient

from ingest.errors import ConfigError

_log = logging.getLogger("ingest.librdkafka")


def open_handle(settings: Mapping[str, Any], note_error: Callable[[KafkaError], None]) -> Handle:
    """A handle that takes records; `note_error` is called with what goes wrong beside them.

    Raises `ConfigError` with librdkafka's words, which name the property.
    """
    try:
        return Handle({**settings, "error_cb": note_error}, logger=_log)
    except KafkaException as error:
        raise ConfigError(f"[kafka] {error.args[0].str()}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[kafka] {error}") from None


def open_admin(settings: Mapping[str, Any]) -> AdminClient:
    """A handle to ask the cluster with, on the same settings; for who must not hold up records."""
    # It asks for no producer id, which could be refused it and would end it for good.
    unwanted = ("statistics.interval.ms", "enable.idempotence", "enable.gapless.guarantee")
    wanted = {name: value for name, value in settings.items() if name not in unwanted}
    return AdminClient(wanted, logger=_log)
