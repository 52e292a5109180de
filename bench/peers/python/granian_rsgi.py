"""granian, by its own interface RSGI on uvloop, with confluent-kafka: one worker, one runtime thread."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from confluent_kafka import KafkaException
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes

from bench.peers.python.answers import FAILED, FULL, QUEUED, receipt
from bench.peers.python.deliveries import Deliveries, open_deliveries
from bench.peers.python.settings import Settings, parse

FIELDS = [("content-type", "application/json")]


class Application:
    """POST anywhere: the content is the record's value."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._queued = settings.promise == "queued"
        self._parts = contextlib.AsyncExitStack()
        self._deliveries: Deliveries

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """The worker's start."""
        loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self._deliveries = await self._parts.enter_async_context(open_deliveries(self._settings))

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """The worker's end."""
        loop.run_until_complete(self._parts.aclose())

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        status, answer = await self._answer(await protocol())
        protocol.response_bytes(status, FIELDS, answer)

    async def _answer(self, value: bytes) -> tuple[int, bytes]:
        try:
            if self._queued:
                await self._deliveries.enqueue(value)
                return 202, QUEUED
            message = await self._deliveries.deliver(value)
        except BufferError:
            return 503, FULL
        except KafkaException:
            return 504, FAILED
        return 200, receipt(self._topic, message.partition(), message.offset())


def make_application() -> Application:
    """What a worker makes for itself: its process has the command line of this one."""
    return Application(parse())


def main() -> None:
    """Serve until SIGTERM."""
    settings = parse()
    Granian(
        "bench.peers.python.granian_rsgi:make_application",
        factory=True,
        address="127.0.0.1",
        port=settings.port,
        interface=Interfaces.RSGI,
        workers=1,
        runtime_mode=RuntimeModes.st,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,
        backpressure=10_000,
        log_access=False,
        log_enabled=False,
    ).serve()


if __name__ == "__main__":
    main()
