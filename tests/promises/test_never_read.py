"""Row 8: a client that pipelines, or streams, and never reads costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import trio

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.client import chunk, request
from tests.mock_kafka import MockKafka
from tests.promises.crowd import connect, until
from tests.promises.others import open_others

SOCKETS = 20
SECONDS = 11.0
RECEIVE_BYTES = 4096
"""Of the kernel's for each of them, so that the server's answers are soon not taken any more."""
GROWTH_BYTES = 20_000_000
OTHERS_WAIT_SECONDS = 0.25

Reached = Callable[[int, str], None]


class Flood(NamedTuple):
    """What one of them sends: an opening, and then the same for as long as it is taken."""

    opening: bytes
    again: bytes


NDJSON = request("POST /?offsets=true", "Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")
FLOODS = {
    "pipelined records": Flood(b"", request("POST /", content=b"x") * 200),
    "pipelined requests for what is not there": Flood(b"", request("GET /none") * 200),
    "streams of short lines with offsets": Flood(NDJSON, chunk(b"1\n" * 30_000)),
    "streams of long lines with offsets": Flood(NDJSON, chunk(b'"%b"\n' % (b"x" * 30_000) * 2)),
    "streams of bad lines with offsets": Flood(NDJSON, chunk(b"x\n" * 30_000)),
}


@pytest.mark.parametrize("kind", list(FLOODS))
async def test_clients_that_never_read_cost_nothing(
    engine: str, cluster: MockKafka, kind: str, reached: Reached
) -> None:
    flood = FLOODS[kind]
    sent = closed = 0

    async def attack(server: IngestProcess) -> None:
        """Send without reading; when the server has enough, come again."""
        nonlocal sent, closed
        while True:
            stream = await connect(server, receive_bytes=RECEIVE_BYTES)
            try:
                await stream.send_all(flood.opening)
                while True:
                    rest = memoryview(flood.again)
                    while rest:
                        count = await stream.socket.send(rest)
                        rest = rest[count:]
                        sent += count
            except OSError:
                closed += 1
            finally:
                stream.socket.close()

    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    async with open_ingest(*arguments) as server, open_others(server) as others:
        files, idle_bytes = server.open_files(), server.resident_bytes()
        server.forget_most_resident()
        with trio.move_on_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(SOCKETS):
                    nursery.start_soon(attack, server)
        grown = server.most_resident_bytes() - idle_bytes
        await until(lambda: server.open_files() <= files + 2, seconds=5)
    reached(
        8,
        f"{engine}: {SOCKETS} never-reading {kind} for {SECONDS:.0f} s, {sent / 1e6:.0f} MB sent: memory + "
        f"{grown / 1e6:.1f} MB; {closed} were closed; others waited at most "
        f"{others.slowest_seconds * 1000:.0f} ms",
    )
    assert grown <= GROWTH_BYTES
    assert others.were_served, others.answers
    assert others.slowest_seconds <= OTHERS_WAIT_SECONDS
