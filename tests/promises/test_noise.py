"""Rows 10 and 14: floods, halves, resets, churn and noise leave nothing behind, and others do not notice."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.client import Client, chunk, request
from tests.mock_kafka import MockKafka
from tests.promises.crowd import connect, read_to_end, until
from tests.promises.others import Others, open_others

CONNECTIONS = 50
SECONDS = 4.0
OTHERS_WAIT_SECONDS = 0.25
GROWTH_BYTES = 20_000_000
GONE_WITHIN_SECONDS = 3.0
"""What a connection may linger after its last answer, and the sweep that ends it."""

RESET_PAUSE_SECONDS = 0.03
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST
RECORD = request("POST /", "Prefer: return=minimal", content=b"x" * 100)
CHUNKED = request("POST /", "Transfer-Encoding: chunked")
LINES = request("POST /", "Content-Type: application/x-ndjson", content=b'{"a":1}\n' * 200)
VALID = [
    RECORD,
    CHUNKED + chunk(b"x" * 50) + chunk(b""),
    LINES,
    request("GET /none"),
    request("DELETE /?key=k"),
]
SMALL_CHUNKS = chunk(b" ") * 10_000 + chunk(b"")
NUMBERS = b'{"k":"a","v":[' + b"1.5," * 20_000 + b"1]}"
LARGE_JSON = request("POST /?key_field=k", "Prefer: return=minimal", content=NUMBERS)
LARGE_LINES = request("POST /", "Content-Type: application/x-ndjson", content=2 * (NUMBERS + b"\n"))

Reached = Callable[[int, str], None]
Statuses = Counter[int]
Attack = Callable[[IngestProcess, random.Random, Statuses], Awaitable[None]]


async def flood(server: IngestProcess, random: random.Random, statuses: Statuses) -> None:
    """Requests back to back, a hundred ahead of their answers."""
    async with await connect(server) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, RECORD * 100)
        client = Client(stream)
        for _ in range(100):
            statuses[(await client.answer()).status] += 1


async def half_closed_whole(server: IngestProcess, random: random.Random, statuses: Statuses) -> None:
    """A whole request, and then the end of what the client sends: it wants its answer."""
    async with await connect(server) as stream:
        await stream.send_all(RECORD)
        await stream.send_eof()
        statuses[(await Client(stream).answer()).status] += 1
        assert not await read_to_end(stream)


async def half_closed_in_the_middle(server: IngestProcess, random: random.Random, statuses: Statuses) -> None:
    """A part of a request, and then the end: 400, but for a head of which nothing came."""
    async with await connect(server) as stream:
        asked = random.choice(VALID)
        cut = random.randrange(1, len(asked))
        await stream.send_all(asked[:cut])
        await stream.send_eof()
        count(await read_to_end(stream), statuses)


async def reset(server: IngestProcess, random: random.Random, statuses: Statuses) -> None:
    """A reset anywhere: in a head, in content, while the answer is owed."""
    async with await connect(server) as stream:
        asked = random.choice(VALID)
        await stream.send_all(asked[: random.randrange(len(asked) + 1)])
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    # Who does not wait for anything fills the kernel's backlog, in which new ones wait whatever we do.
    await trio.sleep(RESET_PAUSE_SECONDS)


async def churn(server: IngestProcess, random: random.Random, statuses: Statuses) -> None:
    """A connection for each request."""
    async with await connect(server) as stream:
        statuses[(await Client(stream).ask(RECORD)).status] += 1


async def large_json(server: IngestProcess, random: random.Random, statuses: Statuses) -> None:
    """Numbers by the ten thousand, which all would have to be made something of."""
    async with await connect(server) as stream:
        for asked in (LARGE_JSON, LARGE_LINES):
            statuses[(await Client(stream).ask(asked)).status] += 1


async def small_chunks(server: IngestProcess, random: random.Random, statuses: Statuses) -> None:
    """Ten thousand chunks in each read, for one record, for lines, and for nobody."""
    async with await connect(server) as stream:
        for line, *fields in (("POST /",), ("POST /", "Content-Type: application/x-ndjson"), ("POST /none",)):
            head = request(line, "Transfer-Encoding: chunked", *fields)
            statuses[(await Client(stream).ask(head + SMALL_CHUNKS)).status] += 1


async def random_bytes(server: IngestProcess, random: random.Random, statuses: Statuses) -> None:
    await send_noise(server, random.randbytes(random.randrange(1, 5000)), statuses)


async def mutated_requests(server: IngestProcess, random: random.Random, statuses: Statuses) -> None:
    """Valid requests in which some bytes were changed, doubled, or left out."""
    data = bytearray(b"".join(random.choices(VALID, k=3)))
    for _ in range(random.randrange(1, 6)):
        place = random.randrange(len(data))
        match random.randrange(3):
            case 0:
                data[place] = random.randrange(256)
            case 1:
                data[place:place] = data[place : place + random.randrange(1, 40)]
            case _:
                del data[place : place + random.randrange(1, 10)]
    await send_noise(server, bytes(data), statuses)


async def send_noise(server: IngestProcess, data: bytes, statuses: Statuses) -> None:
    async with await connect(server) as stream:
        with contextlib.suppress(trio.BrokenResourceError):  # refused in the middle
            await stream.send_all(data)
            await stream.send_eof()
        count(await read_to_end(stream), statuses)


def count(answers: bytes, statuses: Statuses) -> None:
    for line in answers.split(b"\r\n"):
        if line.startswith(b"HTTP/1.1 "):
            statuses[int(line[9:12])] += 1


# Each with the statuses that its answers may have.
ATTACKS: list[tuple[Attack, set[int]]] = [
    (flood, {204}),
    (half_closed_whole, {204}),
    (half_closed_in_the_middle, {200, 202, 204, 400, 404}),
    (reset, set()),
    (churn, {204}),
    (large_json, {200, 204}),
    (small_chunks, {200, 404}),
    (random_bytes, {400, 431, 505}),
    (mutated_requests, set(range(200, 500)) | {501, 505}),
]


@asynccontextmanager
async def attacked(engine: str, cluster: MockKafka) -> AsyncIterator[tuple[IngestProcess, Others]]:
    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    async with open_ingest(*arguments) as server, open_others(server) as others:
        yield server, others


@pytest.mark.parametrize(("attack", "allowed"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
async def test_others_do_not_notice_and_nothing_is_left(
    engine: str, cluster: MockKafka, attack: Attack, allowed: set[int], reached: Reached
) -> None:
    statuses: Statuses = Counter()
    connections = 0

    async def repeat(server: IngestProcess, seed: int) -> None:
        nonlocal connections
        source = random.Random(seed)
        while True:
            await attack(server, source, statuses)
            connections += 1

    async with attacked(engine, cluster) as (server, others):
        files, idle_bytes = server.open_files(), server.resident_bytes()
        server.forget_most_resident()
        with trio.move_on_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for seed in range(CONNECTIONS):
                    nursery.start_soon(repeat, server, seed)
        slowest = others.slowest_seconds
        gone = await until(lambda: server.open_files() <= files + 2, seconds=20)
        grown = server.most_resident_bytes() - idle_bytes
        errors = [line for line in server.log if " error " in line]
    name = attack.__name__.replace("_", " ")
    reached(
        10,
        f"{engine}: {name}: {connections} connections of {CONNECTIONS} at once, {statuses.total()} answers; "
        f"others waited at most {slowest * 1000:.0f} ms; memory + {grown / 1e6:.1f} MB; "
        f"all gone {gone:.1f} s after the last",
    )
    assert connections >= CONNECTIONS
    assert set(statuses) <= allowed, statuses
    assert not errors
    assert others.were_served, others.answers
    assert slowest <= OTHERS_WAIT_SECONDS
    assert grown <= GROWTH_BYTES
    assert gone <= GONE_WITHIN_SECONDS
