"""A service in this process, as an embedding program has it, and connections to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio

import ingest
from tests.client import Client

HANGS = 30.0
FREE_PORT = ingest.HTTP(port=0)
OFF = ingest.Management(enabled=False)
CONFIG = ingest.Config(management=OFF, http=FREE_PORT)


@asynccontextmanager
async def connect(server: ingest.Server) -> AsyncIterator[Client]:
    url = urlsplit(server.url)
    assert url.hostname is not None
    assert url.port is not None
    async with await trio.open_tcp_stream(url.hostname, url.port) as stream:
        yield Client(stream)


@asynccontextmanager
async def serving(
    producer: ingest.Producer | None = None, config: ingest.Config = CONFIG, *, hangs: float = HANGS
) -> AsyncIterator[ingest.Server]:
    """A running service; it has to end by itself in the block, or is abandoned at its end.

    After `hangs` seconds the block is taken to hang.
    """
    with trio.fail_after(hangs):
        async with trio.open_nursery() as nursery:
            server: ingest.Server = await nursery.start(serve, config, producer)
            yield server
            nursery.cancel_scope.cancel()


async def serve(
    config: ingest.Config,
    producer: ingest.Producer | None,
    task_status: trio.TaskStatus[ingest.Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """`ingest.serve`, with its arguments in line, for a nursery's `start`."""
    await ingest.serve(config, producer=producer, task_status=task_status)
