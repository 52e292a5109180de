"""hypercorn on Trio with a bare ASGI application and confluent-kafka."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import trio
from confluent_kafka import KafkaError, Message, Producer
from hypercorn.config import Config
from hypercorn.trio import serve

from bench.peers.python.answers import FAILED, FULL, QUEUED, receipt
from bench.peers.python.settings import ANSWER_SECONDS, Settings, parse

ROOM_SECONDS = 0.005

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Waiting:
    """One record whose report has not come."""

    __slots__ = ("error", "message", "reported")

    def __init__(self) -> None:
        self.reported = trio.Event()
        self.error: KafkaError | None = None
        self.message: Message


class Deliveries:
    """confluent-kafka on Trio: a thread polls, and all that one poll brings crosses in one wake-up."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic
        self._producer = Producer(settings.librdkafka)
        self._token = trio.lowlevel.current_trio_token()
        self._reports: list[Waiting] = []
        self._stopping = False

    async def produce(self, value: bytes, waiting: Waiting | None) -> None:
        """Hand over, waiting for room; BufferError where there was none in time."""
        callback = functools.partial(self._on_delivery, waiting) if waiting is not None else None
        deadline = None
        while True:
            try:
                self._producer.produce(self._topic, value, on_delivery=callback)
            except BufferError:
                deadline = deadline or trio.current_time() + ANSWER_SECONDS
                if trio.current_time() > deadline:
                    raise
                await trio.sleep(ROOM_SECONDS)
            else:
                return

    def _on_delivery(self, waiting: Waiting, error: KafkaError | None, message: Message) -> None:
        waiting.error, waiting.message = error, message
        self._reports.append(waiting)

    def poll(self) -> None:
        """The thread: until `stop`, and then until everything has its report."""
        while not self._stopping or len(self._producer):
            self._producer.poll(0.1)
            if self._reports:
                reports, self._reports = self._reports, []
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(_settle, reports)

    def stop(self) -> None:
        """Let the thread end."""
        self._stopping = True


def _settle(reports: list[Waiting]) -> None:
    for waiting in reports:
        waiting.reported.set()


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
        with trio.CancelScope(shield=True):  # ends with message.timeout.ms at the latest
            await trio.to_thread.run_sync(thread.join)


class Application:
    """POST anywhere: the content is the record's value."""

    def __init__(self, settings: Settings, deliveries: Deliveries) -> None:
        self._topic = settings.topic
        self._queued = settings.promise == "queued"
        self._deliveries = deliveries

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])  # as ASGI has it where there is no lifespan
        parts = []
        more = True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        status, answer = await self._answer(b"".join(parts))
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, value: bytes) -> tuple[int, bytes]:
        waiting = None if self._queued else Waiting()
        try:
            await self._deliveries.produce(value, waiting)
        except BufferError:
            return 503, FULL
        if waiting is None:
            return 202, QUEUED
        await waiting.reported.wait()
        if waiting.error is not None:
            return 504, FAILED
        return 200, receipt(self._topic, waiting.message.partition(), waiting.message.offset())


async def run(settings: Settings) -> None:
    """Serve until SIGTERM."""
    config = Config()
    config.bind = [f"127.0.0.1:{settings.port}"]
    config.backlog = 4096
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 1_000_000_000
    config.errorlog = None
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

        async def stopped() -> None:
            await anext(signals)

        async with open_deliveries(settings) as deliveries:
            application: Any = Application(settings, deliveries)  # hypercorn's type spells out every event
            await serve(application, config, shutdown_trigger=stopped)


if __name__ == "__main__":
    trio.run(run, parse())
