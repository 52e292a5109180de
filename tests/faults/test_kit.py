"""The kit proves itself: a program that breaks a promise fails the verdict, and the real one does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.broker.kafka_server import RealKafka
from tests.faults.journal import Journal
from tests.faults.load import Kind, Load, Senders
from tests.faults.schedules import Fault, Service, do_to, within
from tests.faults.verdict import Verdict, judge

pytestmark = pytest.mark.broker

LOAD = Load(connections=8, kinds=(Kind.SINGLE, Kind.COUNTED), lines=50, keys=4, pause_seconds=0.01)


TIMEOUT = "message.timeout.ms=300"
"""librdkafka notices it within a second of its own, and so before the broker's session of two seconds ends:
a broker that finds itself fenced may refuse what had come meanwhile."""
FROZEN_SECONDS = 1.7


async def verdict_on(how: str, kafka: RealKafka, topic: str, *settings: str) -> Verdict:
    """What the kit says of an ingest whose broker is frozen three times."""
    journal = Journal()
    senders = Senders(LOAD, journal, topic)
    service = Service(
        *("--bootstrap-servers", kafka.bootstrap_servers),
        *(word for setting in settings for word in ("--kafka", setting)),
        environ={"INGEST_TIMEOUTS__ANSWER_SECONDS": "10"},
        program=("tests.faults.broken", how),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        senders.start(nursery, service.serving)
        with within(30, journal, service):
            await journal.wait_for(200, count=50)
        for _ in range(3):
            await do_to(kafka, Fault.FREEZE, FROZEN_SECONDS)
            await trio.sleep(0.3)
        with within(30, journal, service):
            await journal.wait_for(200, count=50)
        senders.stopped = True
        await service.end()
    stored = await trio.to_thread.run_sync(kafka.read_all, topic)
    return judge(journal.requests, stored)


@pytest.mark.parametrize(
    ("how", "settings", "wrong"),
    [
        ("answers-early", (TIMEOUT,), "lost"),
        ("drops-when-full", (TIMEOUT, "queue.buffering.max.messages=100"), "lost"),
        ("denies-timeouts", (TIMEOUT,), "written"),
        # Without idempotence a request whose answer does not come is sent again, and stored twice.
        (
            "is-whole",
            ("enable.idempotence=false", "socket.timeout.ms=500"),
            "duplicates",
        ),
    ],
)
async def test_a_broken_ingest_is_found(
    kafka: RealKafka, new_topic: Callable[..., str], how: str, settings: tuple[str, ...], wrong: str
) -> None:
    assert wrong in (await verdict_on(how, kafka, new_topic(), *settings)).wrongs


async def test_the_same_fault_breaks_no_promise_of_the_real_one(
    kafka: RealKafka, new_topic: Callable[..., str]
) -> None:
    (await verdict_on("is-whole", kafka, new_topic(), TIMEOUT)).check()
