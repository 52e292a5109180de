"""Faults that repeat, logged once in a while: one line, and how many were left out since the last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

REPEAT_SECONDS = 10.0
"""How long a fault of one kind is logged only once."""
MOST_KINDS = 1000
"""How many kinds are told apart; when there are more, all are forgotten."""


class FaultLog:
    """Writes to a logger what may happen thousands of times a second and is to be read by people."""

    def __init__(
        self,
        log: logging.Logger,
        seconds: float = REPEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._seconds = seconds
        self._clock = clock
        self._told: dict[object, tuple[float, int]] = {}  # when, and how many were left out since

    def __call__(
        self,
        level: int,
        event: str,
        extra: Mapping[str, Any],
        *,
        kind: object = None,
        error: BaseException | None = None,
    ) -> None:
        """Log `event`, unless one with the same words and the same `kind` was logged just now.

        With an `error`, its traceback is logged, and its type and place make a kind.
        """
        if error is not None:
            kind = (kind, type(error), _place(error))
        now = self._clock()
        at, left_out = self._told.get((event, kind), (None, 0))
        if at is not None and now - at < self._seconds:
            self._told[event, kind] = at, left_out + 1
            return
        if len(self._told) >= MOST_KINDS:
            self._told.clear()
        self._told[event, kind] = now, 0
        if left_out:
            extra = {**extra, "suppressed": left_out}
        self._log.log(level, event, extra=extra, exc_info=error)


def _place(error: BaseException) -> tuple[str, int] | None:
    """Where it was raised, as file and line."""
    traceback = error.__traceback__
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
