"""Row 14: connections by the thousand, and no descriptors left."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import trio

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.client import request
from tests.mock_kafka import MockKafka
from tests.promises.crowd import connect, open_crowd, until
from tests.promises.others import open_others

IDLE = 10_000
ACCEPTED_WITHIN_SECONDS = 2.0
IDLE_BYTES = 8_192
MOST = 500
TAKEN_SECONDS = 2.0
FILES = 256
EXHAUSTED_SECONDS = 5
MOST_CPU = 0.05
RECOVERED_WITHIN_SECONDS = 1.0
OTHERS_WAIT_SECONDS = 0.25

ASK = request("POST /", "Prefer: return=minimal", content=b"a")

Reached = Callable[[int, str], None]


@contextlib.contextmanager
def idle_sockets(port: int, size: int) -> Iterator[list[socket.socket]]:
    """So many connections, begun as fast as one thread can; the kernel may still be making them."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(size):
            idle = socket.socket()
            sockets.append(idle)
            idle.setblocking(False)
            assert idle.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
        yield sockets
    finally:
        for idle in sockets:
            idle.close()


async def ask(connected: socket.socket | trio.SocketStream) -> None:
    """Send one record and read the answer, which is 204."""
    if isinstance(connected, socket.socket):
        await trio.lowlevel.wait_writable(connected)  # the kernel may still be at it
        connected = trio.SocketStream(trio.socket.from_stdlib_socket(connected))
    await connected.send_all(ASK)
    answer = await connected.receive_some(4096)
    assert answer.startswith(b"HTTP/1.1 204 "), answer


async def test_ten_thousand_connect_at_once(engine: str, cluster: MockKafka, reached: Reached) -> None:
    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    environ = {"INGEST_LIMITS__CONNECTIONS": str(IDLE + 100)}
    async with open_ingest(*arguments, environ=environ) as server, open_others(server) as others:
        files, idle_bytes = server.open_files(), server.resident_bytes()
        began = time.perf_counter()
        with idle_sockets(server.port, IDLE) as sockets:
            await ask(sockets[-1])  # the kernel hands them over in order
            await until(lambda: server.open_files() >= files + IDLE, seconds=10)
            seconds = time.perf_counter() - began
            each = (server.resident_bytes() - idle_bytes) / IDLE
            async with trio.open_nursery() as nursery:
                limiter = trio.CapacityLimiter(200)

                async def keep_alive(idle: socket.socket) -> None:
                    async with limiter:
                        await ask(idle)

                for idle in sockets:
                    nursery.start_soon(keep_alive, idle)
            kept = (server.resident_bytes() - idle_bytes) / IDLE
            waited = others.kept_seconds
            others.kept_seconds = 0.0
        await until(lambda: server.open_files() <= files + 5, seconds=5)
    reached(
        14,
        f"{engine}: {IDLE:,} connections at once were accepted in {seconds:.2f} s, "
        f"{each / 1000:.1f} kB each, {kept / 1000:.1f} kB after a request; "
        f"an open connection was answered within {waited * 1000:.0f} ms meanwhile, "
        f"and within {others.kept_seconds * 1000:.0f} ms when all of them closed at once",
    )
    assert seconds <= ACCEPTED_WITHIN_SECONDS
    assert each <= IDLE_BYTES
    assert kept <= IDLE_BYTES
    assert others.were_served, others.answers
    assert waited <= OTHERS_WAIT_SECONDS


@pytest.mark.parametrize(
    "sent", [b"", b"P", request("GET /")], ids=["nothing", "a part of a head", "a request before"]
)
async def test_one_client_takes_every_connection(
    engine: str, cluster: MockKafka, sent: bytes, reached: Reached
) -> None:
    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    environ = {"INGEST_LIMITS__CONNECTIONS": str(MOST)}
    async with (
        open_ingest(*arguments, environ=environ) as server,
        open_others(server) as others,
        open_crowd(server, 2 * MOST) as crowd,
    ):
        for stream in crowd:
            with contextlib.suppress(trio.BrokenResourceError):  # ended already for a later one
                await stream.send_all(sent)
        others.kept_seconds = 0.0
        await trio.sleep(TAKEN_SECONDS)
    reached(
        14,
        f"{engine}: `limits.connections` of {MOST} and twice as many of one client, idle after sending "
        f"{len(sent)} bytes: others waited at most {others.slowest_seconds * 1000:.0f} ms",
    )
    assert others.were_served, others.answers
    assert others.slowest_seconds <= OTHERS_WAIT_SECONDS


async def test_no_descriptors_left(engine: str, cluster: MockKafka, reached: Reached) -> None:
    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    async with open_ingest(*arguments) as server:
        server.limit_files(FILES)  # after the cap was reckoned, so that the process does run out of them
        before = await connect(server)
        await ask(before)
        files = server.open_files()
        with idle_sockets(server.port, FILES + 100) as sockets:
            await until(lambda: bool(complaints(server)), seconds=10)
            lines, cpu, began = len(complaints(server)), server.cpu_seconds(), time.perf_counter()
            slowest = 0.0
            while (seconds := time.perf_counter() - began) < EXHAUSTED_SECONDS:
                asked = time.perf_counter()
                await ask(before)
                slowest = max(slowest, time.perf_counter() - asked)
                await trio.sleep(0.25)
            cpu = (server.cpu_seconds() - cpu) / seconds
            lines = len(complaints(server)) - lines
            waiting = sockets[-1]
            for idle in sockets[:-1]:
                idle.close()
            back = time.perf_counter()
            await ask(waiting)
            recovered = time.perf_counter() - back
        await until(lambda: server.open_files() <= files, seconds=5)
        await before.aclose()
    reached(
        14,
        f"{engine}: `ulimit -n {FILES}`, {FILES + 100} connections: CPU {cpu:.1%}, {lines} log lines in "
        f"{seconds:.0f} s, an open connection answered within {slowest * 1000:.0f} ms, "
        f"accepting again after {recovered:.2f} s",
    )
    assert cpu <= MOST_CPU
    assert 1 <= lines <= seconds + 1
    assert slowest <= OTHERS_WAIT_SECONDS
    assert recovered <= RECOVERED_WITHIN_SECONDS


def complaints(server: IngestProcess) -> list[str]:
    return [line for line in server.log if "Too many open files" in line]
