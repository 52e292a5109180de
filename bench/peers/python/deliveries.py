"""confluent-kafka on an asyncio loop: a thread polls, and all that one poll brings crosses in one wake-up."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bench.peers.python.settings import ANSWER_SECONDS, Settings

ROOM_SECONDS = 0.005
"""How long to let a full queue drain before the next try."""

Waiting = asyncio.Future[Message]
Report = tuple[Waiting, KafkaError | None, Message]


class Deliveries:
    """Made by `open_deliveries`."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic
        self._producer = Producer(settings.librdkafka)
        self._loop = asyncio.get_running_loop()
        self._reports: list[Report] = []  # written by callbacks, so only while the thread polls
        self._stopping = False

    async def deliver(self, value: bytes) -> Message:
        """Produce, and wait for the delivery report.

        Raises KafkaException where it is an error, and BufferError where there was no room in time.
        """
        waiting: Waiting = self._loop.create_future()
        callback = functools.partial(self._on_delivery, waiting)
        try:
            self._producer.produce(self._topic, value, on_delivery=callback)
        except BufferError:
            await self._produce_later(value, callback)
        return await waiting

    async def enqueue(self, value: bytes) -> None:
        """Produce, and wait for room alone.  Raises BufferError where there was none in time."""
        try:
            self._producer.produce(self._topic, value)
        except BufferError:
            await self._produce_later(value, None)

    async def _produce_later(self, value: bytes, callback: functools.partial[None] | None) -> None:
        deadline = self._loop.time() + ANSWER_SECONDS
        while True:
            await asyncio.sleep(ROOM_SECONDS)
            try:
                self._producer.produce(self._topic, value, on_delivery=callback)
            except BufferError:
                if self._loop.time() > deadline:
                    raise
            else:
                return

    def _on_delivery(self, waiting: Waiting, error: KafkaError | None, message: Message) -> None:
        self._reports.append((waiting, error, message))

    def poll(self) -> None:
        """The thread: until `stop`, and then until everything has its report."""
        while not self._stopping or len(self._producer):
            self._producer.poll(0.1)
            if self._reports:
                reports, self._reports = self._reports, []
                self._loop.call_soon_threadsafe(_settle, reports)

    def stop(self) -> None:
        """Let the thread end."""
        self._stopping = True


def _settle(reports: list[Report]) -> None:
    for waiting, error, message in reports:
        if waiting.done():  # its request was cancelled
            continue
        if error is None:
            waiting.set_result(message)
        else:
            waiting.set_exception(KafkaException(error))


@contextlib.asynccontextmanager
async def open_deliveries(settings: Settings) -> AsyncIterator[Deliveries]:
    """A producer with its thread; at the end everything in its queue is delivered."""
    deliveries = Deliveries(settings)
    thread = threading.Thread(target=deliveries.poll)
    thread.start()
    try:
        yield deliveries
    finally:
        deliveries.stop()
        await asyncio.to_thread(thread.join)
