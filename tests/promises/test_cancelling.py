"""Row 17: an embedding program cancels at a random point, and it ends at once with nothing left behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest
import trio

import ingest
from ingest.testing import StallingProducer
from tests.client import Client, request
from tests.mock_kafka import MockKafka

POINTS = 60
"""How many cancellations each kind has."""
ENDED_WITHIN_SECONDS = 1.0
GONE_WITHIN_SECONDS = 2.0
LINES = b'{"n":1}\n' * 50
BUSY = 4

Reached = Callable[[int, str], None]


def left() -> tuple[int, int]:
    """Threads of this process but for the idle ones that Trio keeps, and descriptors."""
    kept = sum(thread.name.startswith("Trio thread") for thread in threading.enumerate())
    return len(os.listdir("/proc/self/task")) - kept, len(os.listdir("/proc/self/fd"))


async def ask_on(server: ingest.Server, random: Random) -> None:
    """Requests one after the other, until the connection ends."""
    port = urlsplit(server.url).port
    assert port is not None
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            client = Client(stream)
            while True:
                ndjson = ("Content-Type: application/x-ndjson",)
                fields, content = random.choice([((), b"x"), ((), b"x" * 100_000), (ndjson, LINES)])
                await client.ask(request("POST /", *fields, content=content))
    except (OSError, trio.BrokenResourceError, trio.EndOfChannel):
        pass


async def cancel_serving(
    random: Random, kafka: dict[str, str], producer: StallingProducer | None, *, stopping: bool
) -> tuple[float, ingest.Ledger | None]:
    """Cancel `serve` under load after a random time; how long it took to end."""
    config = ingest.Config(management=ingest.Management(enabled=False), http=ingest.HTTP(port=0), kafka=kafka)
    ledgers: list[ingest.Ledger] = []
    cancelled = 0.0

    async with trio.open_nursery() as nursery:

        async def use() -> None:
            server: ingest.Server = await nursery.start(
                lambda task_status: ingest.serve(config, producer=producer, task_status=task_status)
            )
            ledgers.append(server.ledger)
            for _ in range(BUSY):
                nursery.start_soon(ask_on, server, random)
                nursery.start_soon(server.producer.send, [ingest.Record("events", b"x")] * 20)
            if stopping:
                await trio.sleep(random.uniform(0, 0.1))
                await server.shutdown()

        nursery.start_soon(use)
        await wait_a_while(random)
        cancelled = trio.current_time()
        nursery.cancel_scope.cancel()
    return trio.current_time() - cancelled, ledgers[0] if ledgers else None


async def cancel_producing(random: Random, kafka: dict[str, str]) -> tuple[float, ingest.Ledger | None]:
    """Cancel `open_producer` with records on their way after a random time; how long it took to end."""
    ledgers: list[ingest.Ledger] = []
    cancelled = 0.0
    async with trio.open_nursery() as nursery:

        async def use() -> None:
            async with ingest.open_producer(kafka) as producer, trio.open_nursery() as senders:
                ledgers.append(producer.ledger)
                for _ in range(BUSY):
                    senders.start_soon(send_on, producer)

        async def send_on(producer: ingest.Producer) -> None:
            while True:
                await producer.send([ingest.Record("events", b"x")] * 20)

        nursery.start_soon(use)
        await wait_a_while(random)
        cancelled = trio.current_time()
        nursery.cancel_scope.cancel()
    return trio.current_time() - cancelled, ledgers[0] if ledgers else None


async def wait_a_while(random: Random) -> None:
    """Until a random pass of the loop: some while everything opens, some under load."""
    await trio.sleep(random.choice([0, random.uniform(0, 0.05), random.uniform(0, 0.6)]))
    for _ in range(random.randrange(50)):
        await trio.lowlevel.checkpoint()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "what", ["serve", "serve while it drains", "serve with a stalled producer", "open_producer", "no broker"]
)
def test_cancelling_is_prompt_and_leaves_nothing(
    cluster: MockKafka, reached: Reached, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    # The broker inside answers at once; the mock cluster does not say what is asked of a topic.
    kafka = {"bootstrap.servers": cluster.address} if what == "no broker" else {}
    slowest = gone = 0.0
    pending = accepted = 0

    def cancel(seed: int) -> tuple[float, ingest.Ledger | None]:
        random = Random(seed)
        if what in ("open_producer", "no broker"):
            return trio.run(cancel_producing, random, kafka)
        producer = StallingProducer(accepts=random.randrange(200)) if "stalled" in what else None

        async def run() -> tuple[float, ingest.Ledger | None]:
            return await cancel_serving(random, kafka, producer, stopping="drains" in what)

        seconds, ledger = trio.run(run)
        if producer is not None:
            producer.release()  # it is the caller's own, and keeps what it took
        return seconds, ledger

    cancel(0)  # what is opened once and for all is opened now
    if what == "no broker":
        cluster.down()
    gc.collect()
    time.sleep(GONE_WITHIN_SECONDS)  # the first one's threads are not to be counted as there before
    before = left()
    for seed in range(1, POINTS + 1):
        seconds, ledger = cancel(seed)
        ended = time.monotonic()
        while any(now > then for now, then in zip(left(), before, strict=True)):
            assert time.monotonic() < ended + GONE_WITHIN_SECONDS, (seed, left(), before)
            time.sleep(0.005)
        slowest, gone = max(slowest, seconds), max(gone, time.monotonic() - ended)
        if ledger is not None:
            pending += ledger.pending
            accepted += ledger.accepted
            assert ledger.accepted == ledger.delivered + ledger.failed + ledger.unknown, (seed, ledger)
    assert pending == 0
    assert accepted > 0 or what == "no broker"
    assert slowest <= ENDED_WITHIN_SECONDS
    reached(
        17,
        f"{what}: {POINTS} cancellations at random points, the slowest ended after {slowest:.2f} s, the last "
        f"thread and descriptor gone {gone:.2f} s later; {accepted:,} records accepted, all accounted for",
    )
