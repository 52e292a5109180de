"""confluent_kafka's producer with something broken in it, for the first one that is made; and no threads."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
import pytest
import trio

from tests.mock_kafka import code

STUCK_SECONDS = 0.75
"""What `ingest.kafka.threads.STUCK_SECONDS` is in tests that do not measure it."""


class Switch:
    """What is broken now, by the names below: in the first handle, or in every one that is made."""

    def __init__(self) -> None:
        self.kind: str | None = None
        self.made = 0
        """How many handles there have been."""
        self.freed = threading.Event()
        """Set it to let threads go on that never return."""

    def on(self, kind: str) -> None:
        self.kind = kind


@contextlib.contextmanager
def broken_handles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    """Have `ingest` make handles that a switch breaks; at the end the threads that are stuck go on."""
    switch = Switch()

    class Handle(confluent_kafka.Producer):
        def __init__(self, settings: dict[str, Any], **options: Any) -> None:
            switch.made += 1
            if switch.kind == "never made":
                raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(code("_CRIT_SYS_RESOURCE")))
            # Not by its id, which the next one may have, once this one is gone.
            self.breaks = switch.made == 1 or switch.kind == "every poll"
            told = settings.get("stats_cb")
            if told is not None:
                settings = {**settings, "stats_cb": lambda text: told(self._forgetting(text))}
            super().__init__(settings, **options)

        def _forgetting(self, text: str) -> str:
            if self.breaks and switch.kind == "knows no broker":
                return json.dumps({**json.loads(text), "brokers": {}})
            return text

        def poll(self, timeout: float = -1) -> int:
            kind = switch.kind if self.breaks else None
            # The loop asks too, for a millisecond at the most; what is stuck here is a thread that waits.
            waits = threading.current_thread() is not threading.main_thread()
            if kind in ("poll never returns", "every poll") and waits:
                switch.freed.wait(60)
            if kind == "nothing is reported":
                time.sleep(timeout)
                return 0
            if kind == "poll raises":
                raise ValueError("out of a callback")
            return super().poll(timeout)

        def produce(self, *arguments: Any, **options: Any) -> None:
            if self.breaks and switch.kind == "produce raises":
                raise MemoryError("no more")
            super().produce(*arguments, **options)

    monkeypatch.setattr("ingest.kafka.handles.Handle", Handle)
    try:
        yield switch
    finally:
        switch.freed.set()


@contextlib.contextmanager
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Have no call of Trio's get a thread, until what is given is called."""

    async def run_sync(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("trio.to_thread.run_sync", run_sync)
        yield patch.undo
