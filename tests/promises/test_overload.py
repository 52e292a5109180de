"""More than there is room for: refusals are quick, the rest goes on, and it is over when the load is over."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple

import pytest

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.client import request
from tests.promises.load import Answer, Arrivals, Clients, percentile, run_load
from tests.promises.slow_kafka import open_slow_kafka

REFUSED_P99_SECONDS = 0.05
ACCEPTED_SHARE = 0.9
NORMAL_SECONDS = 5.0
"""What row 4 asks for."""
LATENCY_SECONDS = 2.0
HELD_BYTES = 600_000
FILLING = HELD_BYTES // (100 + 512)
"""How many requests of 100 bytes there is room for: what keeps capacity far below what two cores can do."""
CONNECTIONS = FILLING + 800
TIMES = 5
"""The overload, in capacities."""
CLIENTS = 2000
LOAD = ["load"]

Reached = Callable[[int, str], None]


@contextlib.asynccontextmanager
async def open_service(latency_seconds: float = LATENCY_SECONDS) -> AsyncIterator[IngestProcess]:
    """An ingest with little room, before a broker that has become slow.

    At its end everything that was answered 200, and nothing else, has been delivered.
    """
    room = {
        "INGEST_LIMITS__HELD_BYTES": str(HELD_BYTES),
        "INGEST_LIMITS__REQUEST_BYTES": "16384",
        "INGEST_LIMITS__RECORD_BYTES": "16384",
    }
    async with (
        open_slow_kafka() as kafka,
        open_ingest(
            # Its default follows record_bytes, and would make batches as small.
            *("--bootstrap-servers", kafka.address, "--kafka", "message.max.bytes=1000000"),
            environ=room,
        ) as server,
    ):
        client = await server.connect()
        answer = await client.ask(request("POST /topics/load/records", content=b"first"))
        assert answer.status == 200, answer
        await kafka.set_latency(latency_seconds)
        yield server
        await kafka.set_latency(0)
        assert await server.end() == 0, server.log


def rate(answers: Iterable[Answer], begin: float, end: float) -> float:
    """The 200s a second between two moments.

    A slow broker's reports come in bursts, a large and a small one in turn: so it is the mean over all
    windows of two round trips, wherever between the two moments they begin.
    """
    width = 2 * LATENCY_SECONDS
    times = [answer.done for answer in answers if answer.status == 200 and begin <= answer.done < end]
    windows = sum(min(time, end - width) - max(time - width, begin) for time in times)
    return windows / (end - width - begin) / width


def assert_right(answers: Iterable[Answer], *, may_close: bool = False) -> None:
    """Only 200 and 503, each with the content that belongs to it, and no connection lost over it."""
    wrong = Counter(
        (answer.name, answer.status)
        for answer in answers
        if answer.status not in (200, 503) or not answer.right or not (answer.kept or may_close)
    )
    assert not wrong, wrong


class Probe(NamedTuple):
    """What one client in ten sees: a low constant rate all the time."""

    normal_seconds: float
    """The slowest answer before the overload."""
    back_seconds: float
    """How long after it the last request left that was refused, or slower than a quarter above that."""


def probe(answers: Iterable[Answer], begin: float, end: float) -> Probe:
    own = [answer for answer in answers if answer.name == "probe"]
    before = [answer for answer in own if answer.due < begin]
    assert {answer.status for answer in before} == {200}
    normal_seconds = max(answer.seconds for answer in before if answer.done < begin)
    bad = [
        answer.due - end
        for answer in own
        if answer.due >= end and (answer.status != 200 or answer.seconds > 1.25 * normal_seconds)
    ]
    assert max(answer.due for answer in own) > end + 1.5 * NORMAL_SECONDS
    return Probe(normal_seconds, max(bad, default=0.0))


async def capacity(server: IngestProcess) -> float:
    """The 200s a second while as many clients as there is room for ask, each again and again."""
    answers = await run_load(server.port, 0, Clients("filling", 0, FILLING, LOAD, seconds=13))
    assert_right(answers)
    return rate(answers, 4, 13)


async def test_five_times_the_capacity(reached: Reached) -> None:
    begin, end = 6.0, 22.0
    async with open_service() as server:
        most = await capacity(server)
        answers = await run_load(
            server.port,
            CONNECTIONS,
            Arrivals("probe", 0, end + 9, most / 10, LOAD),
            Arrivals("overload", begin, end - begin, most * (TIMES - 0.1), LOAD),
        )
    assert_right(answers)
    refusals = [answer for answer in answers if answer.status == 503]
    refused = percentile(refusals, 99)
    accepted = rate(answers, begin + 4, end) / most
    found = probe(answers, begin, end)
    reached(
        4,
        f"{TIMES} × capacity ({most:.0f}/s) at a broker of {LATENCY_SECONDS:g} s: {len(refusals)} refusals, "
        f"p99 {refused * 1000:.0f} ms; accepted {accepted:.0%} of capacity; "
        f"normal again {found.back_seconds:.1f} s after; no other answer",
    )
    assert refused <= REFUSED_P99_SECONDS
    assert accepted >= ACCEPTED_SHARE
    assert found.back_seconds <= NORMAL_SECONDS


@pytest.mark.parametrize("honours", [True, False], ids=["after Retry-After", "at once, on new connections"])
async def test_two_thousand_clients_that_come_back_together(reached: Reached, honours: bool) -> None:
    begin = 6.0
    async with open_service() as server:
        most = await capacity(server)
        # Nobody can be served sooner; refused ones are away for up to 5 s where they honour Retry-After.
        expected_seconds = CLIENTS / most / ACCEPTED_SHARE + 2 * LATENCY_SECONDS + (5 if honours else 0)
        answers = await run_load(
            server.port,
            CONNECTIONS,
            Arrivals("probe", 0, begin + expected_seconds + 9, most / 10, LOAD),
            Clients("client", begin, CLIENTS, LOAD, honours=honours, reconnects=not honours),
        )
    assert_right(answers)
    clients = [answer for answer in answers if answer.name == "client"]
    served = [answer.done for answer in clients if answer.status == 200]
    end = max(served)
    found = probe(answers, begin, end)
    how = "after Retry-After" if honours else "at once on new connections"
    reached(
        4,
        f"{CLIENTS} clients that retry {how}: {len(clients) - CLIENTS} refusals, all served "
        f"within {end - begin:.1f} s at {most:.0f}/s; normal again {found.back_seconds:.1f} s after",
    )
    assert len(served) == CLIENTS
    assert end - begin <= expected_seconds
    assert found.back_seconds <= NORMAL_SECONDS


async def test_more_connections_than_the_processor_can_serve(reached: Reached) -> None:
    few, many = 64, CLIENTS
    rates: dict[int, list[float]] = {few: [], many: []}
    slowest = 0.0
    async with open_service(latency_seconds=0) as server:
        for number in (few, many, few, many):
            answers = await run_load(server.port, 0, Clients("client", 0, number, LOAD, seconds=5))
            assert_right(answers)
            busy = [answer for answer in answers if 1 <= answer.done < 5]
            rates[number].append(len(busy) / 4)
            slowest = percentile(busy, 99)
    share = max(rates[many]) / max(rates[few])
    reached(
        4,
        f"{many} connections at a quick broker: {share:.0%} of the rate of {few} ({max(rates[few]):.0f}/s), "
        f"p99 {slowest:.1f} s; no other answer than 200 and 503",
    )
    assert share >= ACCEPTED_SHARE
