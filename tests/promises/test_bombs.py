"""Row 11: compressed content makes no more than it may, in memory and in time."""

from __future__ import annotations

import contextlib
import gzip
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from tests.broker.ingest_process import open_ingest
from tests.client import Client, request
from tests.mock_kafka import MockKafka
from tests.promises.crowd import connect
from tests.promises.loop import Loop
from tests.promises.others import open_others

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CLIENTS = 2
"""Each may have a megabyte of content, and as much of a window: what is shown is that it is no more."""
SECONDS = 4.0
GROWTH_BYTES = 10_000_000
BLOCKED_SECONDS = 0.020
OTHERS_WAIT_SECONDS = 0.25
MADE_BYTES = 1 << 30
"""What each bomb stands for."""

Reached = Callable[[int, str], None]


class Bomb(NamedTuple):
    """What is sent, and with which status it is to be answered."""

    coding: str
    content: bytes
    status: int


def _gzip_bomb() -> bytes:
    compressor = zlib.compressobj(9, wbits=31)
    piece = bytes(1 << 20)
    return b"".join([*(compressor.compress(piece) for _ in range(MADE_BYTES >> 20)), compressor.flush()])


def _zstd_bomb(window_log: int) -> bytes:
    options: Mapping[int, int] = {zstd.CompressionParameter.window_log: window_log}
    compressor = zstd.ZstdCompressor(options=options)
    piece = bytes(1 << 20)
    return b"".join([*(compressor.compress(piece) for _ in range(MADE_BYTES >> 20)), compressor.flush()])


BOMBS: dict[str, Callable[[], Bomb]] = {
    "gzip bombs of 1 GiB": lambda: Bomb("gzip", _gzip_bomb(), 413),
    "zstd bombs of 1 GiB": lambda: Bomb("zstd", _zstd_bomb(21), 413),
    "zstd bombs with the longest window": lambda: Bomb("zstd", _zstd_bomb(23), 413),
    "windows of 128 MiB": lambda: Bomb("zstd", _zstd_bomb(27), 413),
    "1,000 members of gzip": lambda: Bomb("gzip", gzip.compress(b"") * 1000, 413),
    "1,000 frames of zstd": lambda: Bomb("zstd", zstd.compress(b"") * 1000, 413),
    "empty blocks of deflate": lambda: Bomb("deflate", b"\0\0\0\xff\xff" * 200_000, 400),
}


@pytest.mark.parametrize("kind", list(BOMBS))
async def test_bombs_cost_no_more_than_what_they_may_have(
    engine: str, cluster: MockKafka, kind: str, tmp_path: Path, reached: Reached
) -> None:
    bomb = BOMBS[kind]()
    asked = request("POST /", f"Content-Encoding: {bomb.coding}", content=bomb.content)
    answers: Counter[int] = Counter()

    async def attack() -> None:
        while True:
            stream = await connect(server)
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(_send, stream, asked)
                answers[(await Client(stream).answer()).status] += 1
                nursery.cancel_scope.cancel()

    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    loop = Loop(tmp_path / "loop")
    opened = open_ingest(*arguments, program=("tests.promises.loop",), environ=loop.environ)
    async with opened as server, open_others(server) as others:
        idle_bytes = server.resident_bytes()
        server.forget_most_resident()
        loop.forget()
        with trio.move_on_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(attack)
        blocked = loop.longest_seconds
        grown = server.most_resident_bytes() - idle_bytes
    reached(
        11,
        f"{engine}: {CLIENTS} clients send {kind} ({len(bomb.content):,} bytes each): {dict(answers)}; "
        f"memory + {grown / 1e6:.1f} MB; the loop was blocked for {blocked * 1000:.1f} ms at the most; "
        f"others waited at most {others.slowest_seconds * 1000:.0f} ms",
    )
    assert set(answers) == {bomb.status}
    assert grown <= GROWTH_BYTES
    assert blocked <= BLOCKED_SECONDS
    assert others.were_served, others.answers
    assert others.slowest_seconds <= OTHERS_WAIT_SECONDS


async def _send(stream: trio.SocketStream, asked: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError):  # it is refused in the middle; the answer is read
        await stream.send_all(asked)
