"""Many connections to one `ingest serve`, from an address that is not the others'."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import trio

from tests.broker.ingest_process import IngestProcess

ADDRESS = "127.0.0.2"
"""Not `tests.promises.others.ADDRESS`: what one address may hold is bounded."""
CONNECTING = 64
"""How many connections are being made at once; more than the backlog would wait for the kernel's retry."""

LOOK_SECONDS = 0.02
IP_BIND_ADDRESS_NO_PORT = 24
"""linux/in.h; Python names it from 3.12 on."""


async def connect(
    server: IngestProcess, address: str = ADDRESS, *, receive_bytes: int | None = None
) -> trio.SocketStream:
    """A connection from `address`, any of 127.0.0.0/8.

    `receive_bytes` is what the kernel takes of the answers of a client that does not read.
    """
    connected = trio.socket.socket()
    if receive_bytes is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    # The port is chosen with the connection: looking for one that nobody used lately takes milliseconds.
    connected.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        await connected.bind((address, 0))
        await connected.connect(("127.0.0.1", server.port))
    except BaseException:
        connected.close()
        raise
    return trio.SocketStream(connected)


@contextlib.asynccontextmanager
async def open_crowd(
    server: IngestProcess, size: int, address: str = ADDRESS, *, receive_bytes: int | None = None
) -> AsyncIterator[list[trio.SocketStream]]:
    """So many connections, closed at the end."""
    crowd: list[trio.SocketStream] = []
    limiter = trio.CapacityLimiter(CONNECTING)

    async def join() -> None:
        async with limiter:
            crowd.append(await connect(server, address, receive_bytes=receive_bytes))

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


def has_failed(stream: trio.SocketStream) -> bool:
    """Whether the server has reset the connection, without reading from it."""
    return stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """Look until `condition` holds, for at most so many seconds; how many it took."""
    began = trio.current_time()
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # nothing tells us
            await trio.sleep(LOOK_SECONDS)
    return trio.current_time() - began
