"""uvicorn with a bare ASGI application and confluent-kafka: `--http h11` or `--http httptools`.

h11 runs on asyncio's own loop, as `pip install uvicorn` gives it; httptools on uvloop, as
`uvicorn[standard]` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from confluent_kafka import KafkaException

from bench.peers.python.answers import FAILED, FULL, QUEUED, receipt
from bench.peers.python.deliveries import Deliveries, open_deliveries
from bench.peers.python.settings import Settings, parse

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Application:
    """POST anywhere: the content is the record's value."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._queued = settings.promise == "queued"
        self._deliveries: Deliveries

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request, or the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        message = await receive()
        value: bytes = message.get("body", b"")
        if message.get("more_body", False):
            parts = [value]
            while message.get("more_body", False):
                message = await receive()
                parts.append(message.get("body", b""))
            value = b"".join(parts)
        status, answer = await self._answer(value)
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": answer})

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

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with open_deliveries(self._settings) as self._deliveries:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def main() -> None:
    """Serve until SIGTERM."""
    settings = parse()
    uvicorn.run(
        Application(settings),
        host="127.0.0.1",
        port=settings.port,
        http="h11" if settings.http == "h11" else "httptools",
        loop="asyncio" if settings.http == "h11" else "uvloop",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
