"""How the command line writes its log: one line an event on standard error, as text or as JSON.

The package's other modules log through the standard library with `extra` fields and set nothing up, so
that a program which embeds them decides for itself.  Nothing here is imported but by `ingest.cli`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

FIELD_CHARACTERS = 4096
"""How long one field of an event can be; the middle of a longer one is left out."""


def configure(format: Literal["text", "json"]) -> None:  # noqa: A002  # the option's name
    """Send every event of level INFO and above to standard error.

    Text is `2026-11-23T23:40:12.345Z info drained accepted=1204 …`: time, level, event, and the fields
    in the order given.  Whatever an event holds, it is one line, and not an endless one.
    """
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[
            _head,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _bound,
            _text if format == "text" else _json,
        ],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Each of its lines is one attempt to connect; what matters of them is logged as "kafka error".
    logging.getLogger("ingest.librdkafka").setLevel(logging.CRITICAL)


def _head(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Time, level and event first; the time is that of the event."""
    created = datetime.fromtimestamp(event["_record"].created, UTC)
    time = created.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    return {"time": time, "level": event.pop("level"), "event": event.pop("event"), **event}


def _bound(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Shorten what is very long; of a traceback the end matters most."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > FIELD_CHARACTERS:
            event[name] = value[: FIELD_CHARACTERS // 2] + " … " + value[-FIELD_CHARACTERS // 2 :]
    return event


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    # JSON leaves DEL alone, which a terminal need not.
    return json.dumps(event, default=str).replace("\x7f", "\\u007f")


def _text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    time, level, words = event.pop("time"), event.pop("level"), str(event.pop("event"))
    fields = (f"{name}={_quoted(str(value), ' =')}" for name, value in event.items())
    return " ".join((time, level, _quoted(words), *fields))


def _quoted(text: str, special: Iterable[str] = "") -> str:
    """Give `text` as a JSON string where it could be taken for something else, or break its line."""
    if not text.isprintable():
        return json.dumps(text)
    if not text or '"' in text or any(character in text for character in special):
        return json.dumps(text, ensure_ascii=False)
    return text
