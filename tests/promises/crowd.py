"""Many connections to one `ingest serve`, from an address that is not the others'."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import trio

from tests.broker.ingest_process import IngestProcess

ADDRESS = "127.0.0.2"
"""Not `tests.promises.others.ADDRESS`: what one address may hold is bounded."""
CONNECTING = 64
"""How many connections are being made at once; more than the backlog would wait for the kernel's retry."""

LOOK_SECONDS = 0.02


async def connect(server: IngestProcess, address: str = ADDRESS) -> trio.SocketStream:
    """A connection from `address`, any of 127.0.0.0/8."""
    return await trio.open_tcp_stream("127.0.0.1", server.port, local_address=address)


@contextlib.asynccontextmanager
async def open_crowd(
    server: IngestProcess, size: int, address: str = ADDRESS
) -> AsyncIterator[list[trio.SocketStream]]:
    """So many connections, closed at the end."""
    crowd: list[trio.SocketStream] = []
    limiter = trio.CapacityLimiter(CONNECTING)

    async def join() -> None:
        async with limiter:
            crowd.append(await connect(server, address))

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(join)
        yield crowd
    finally:
        for stream in crowd:
            stream.socket.close()


async def read_to_end(stream: trio.SocketStream) -> bytes:
    """Everything until the server closes; a reset is an end too."""
    received = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while data := await stream.receive_some(65_536):
            received += data
    return received


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """Look until `condition` holds, for at most so many seconds; how many it took."""
    began = trio.current_time()
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # nothing tells us
            await trio.sleep(LOOK_SECONDS)
    return trio.current_time() - began
