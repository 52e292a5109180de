"""How the command line writes its log: one line an event on standard error, as text or as JSON.

The package's other modules log through the standard library with `extra` fields and set nothing up, so
that a program which embeds them decides for itself.  Nothing here is imported but by `ingest.cli` and
`ingest.worker`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

FIELD_CHARACTERS = 4096
"""How long one field of an event can be; the middle of a longer one is left out."""
WAITING_BYTES = 4 * 1024 * 1024
"""How much of the log waits for whoever reads it; beyond it the oldest lines are dropped."""
FLUSH_SECONDS = 1.0
"""How long the end waits for what is not written yet."""
LOOK_SECONDS = 0.05
"""How often the thread that writes looks whether it is to end, while nobody reads."""


def configure(format: Literal["text", "json"], **fields: object) -> None:  # noqa: A002  # the option's name
    """Send every event of level INFO and above to standard error, with `fields` in each.

    Text is `2026-11-23T23:40:12.345Z info drained accepted=1204 …`: time, level, event, and the fields
    in the order given.  Whatever an event holds, it is one line, and not an endless one.
    """

    def add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**event, **fields}

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder(), add_fields],
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


@contextlib.contextmanager
def written_aside() -> Iterator[None]:
    """Have what `configure` set up written by a thread of its own, until the block ends.

    Whoever reads standard error may stand still: a pipe takes 64 KiB, and then writing waits.  Here only
    that thread does.  What waits is bounded by `WAITING_BYTES`; the oldest lines are dropped, and one line
    says how many.  The end waits for `FLUSH_SECONDS` at the most.
    """
    root = logging.getLogger()
    (direct,) = root.handlers
    if sys.stderr is None:  # it was closed, and its descriptor may be something else by now
        yield
        return
    aside = _Aside(direct.formatter)
    root.handlers[:] = [aside]
    try:
        yield
    finally:
        aside.close()
        root.handlers[:] = [direct]


class _Aside(logging.Handler):
    def __init__(self, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._descriptor = sys.stderr.fileno()
        self._encoding = sys.stderr.encoding
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._ends_at: float | None = None  # once it is to end; on the monotonic clock
        # A daemon, for the case of a terminal that can be written to by its own word, and then is not.
        self._thread = threading.Thread(target=self._run, name="ingest log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._encoded(record)
        except Exception:  # noqa: BLE001  # as every handler does
            self.handleError(record)
            return
        with self._changed:
            self._lines.append(line)
            self._waiting_bytes += len(line)
            while self._waiting_bytes > WAITING_BYTES:
                self._waiting_bytes -= len(self._lines.popleft())
                self._dropped += 1
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, within its time, and end the thread."""
        if self._ends_at is None:
            with self._changed:
                self._ends_at = time.monotonic() + FLUSH_SECONDS
                self._changed.notify()
            self._thread.join(FLUSH_SECONDS + 1)
        super().close()

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode(self._encoding, "backslashreplace")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._ends_at is not None)
                lines, dropped = self._lines, self._dropped
                self._lines, self._waiting_bytes, self._dropped = deque(), 0, 0
            if not lines:
                return
            if dropped:
                told = {"levelno": logging.WARNING, "levelname": "WARNING", "msg": "log lines dropped"}
                lines.appendleft(self._encoded(logging.makeLogRecord({**told, "lines": dropped})))
            self._write(b"".join(lines))

    def _write(self, data: bytes) -> None:
        """Write until it is done or given up; what can take no more is asked first, since a write waits."""
        left = memoryview(data)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while left and time.monotonic() < (self._ends_at or math.inf):
            if poll.poll(LOOK_SECONDS * 1000):
                try:
                    left = left[os.write(self._descriptor, left[: select.PIPE_BUF]) :]
                except BlockingIOError:
                    time.sleep(LOOK_SECONDS)
                except OSError:  # nobody will read it
                    return


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
