"""What `ingest.producer.Producer` promises, held against every implementation of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from ingest.budget import Budget
from ingest.delivery import Delivery, Ledger
from ingest.errors import (
    BadRequest,
    DeliveryUnknown,
    Draining,
    Overloaded,
    RecordRefused,
    TooLarge,
    TopicDenied,
    UnknownTopic,
)
from ingest.producer import Producer
from ingest.records import Receipt, Record
from ingest.testing import FailingProducer, MemoryProducer, StallingProducer
from tests.mock_kafka import open_mock_kafka

RECORD_BYTES = 10_000


@dataclass
class Running:
    """A producer that knows topics `t` and `u`, with one partition each."""

    producer: Producer
    budget: Budget
    written: Callable[[str], list[Record]]
    release: Callable[[], None]
    """Lets a stalled one go on."""

    async def submit(self, *values: bytes, wait_seconds: float = 0) -> Delivery:
        records = [Record("t", value) for value in values]
        hold = await self.budget.acquire(sum(record.cost() for record in records))
        return await self.producer.submit(records, hold=hold, wait_seconds=wait_seconds)

    async def settled(self) -> None:
        """Wait until nothing is pending."""
        with trio.fail_after(10):
            while self.producer.ledger.pending:  # noqa: ASYNC110
                await trio.sleep(0.01)


Open = Callable[[], AbstractAsyncContextManager[Running]]


@contextlib.asynccontextmanager
async def open_memory() -> AsyncIterator[Running]:
    producer = MemoryProducer(topics=["t", "u"], record_bytes=RECORD_BYTES)
    yield Running(
        producer,
        Budget(1 << 30),
        lambda topic: [record for record in producer.records if record.topic == topic],
        lambda: None,
    )


@contextlib.asynccontextmanager
async def open_kafka(*, stalled: bool = False) -> AsyncIterator[Running]:
    budget = Budget(1 << 30)
    with open_mock_kafka() as kafka:
        kafka.create("t")
        kafka.create("u")
        async with kafka.open_producer(
            budget=budget,
            # As long as any of these tests may take: a busy machine is slow with very many records.
            answer_seconds=0.5 if stalled else 30,
            record_bytes=RECORD_BYTES,
            message_timeout_ms=5000 if stalled else 28_000,
        ) as producer:
            await producer.require_topic("t")
            if stalled:
                await producer.send([Record("u", b"connected")])
                producer.ledger = Ledger()
                kafka.down()
            yield Running(producer, budget, kafka.read, kafka.up)


@contextlib.asynccontextmanager
async def open_stalling() -> AsyncIterator[Running]:
    producer = StallingProducer(answer_seconds=0.5)
    yield Running(producer, Budget(1 << 30), lambda _: list(producer.records), producer.release)


@pytest.fixture(params=[open_memory, open_kafka])
def opened(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Running]:
    """Any producer that works."""
    running: AbstractAsyncContextManager[Running] = request.param()
    return running


@pytest.fixture(params=[open_stalling, lambda: open_kafka(stalled=True)], ids=["stalling", "kafka_down"])
def stalled(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Running]:
    """Any producer that takes records and has no reports for them."""
    running: AbstractAsyncContextManager[Running] = request.param()
    return running


# A producer that works -------------------------------------------------------------------------------


async def test_each_record_has_its_report_in_order(opened: AbstractAsyncContextManager[Running]) -> None:
    records = [Record("tu"[number % 2], b"%d" % number) for number in range(100)]
    async with opened as running:
        reports = await running.producer.send(records)
        assert [
            (report.topic, report.partition, report.offset)
            for report in reports
            if isinstance(report, Receipt)
        ] == [("tu"[number % 2], 0, number // 2) for number in range(100)]
        assert running.producer.ledger == Ledger(accepted=100, delivered=100)
        for topic in "tu":
            assert [record.value for record in running.written(topic)] == [
                record.value for record in records if record.topic == topic
            ]


async def test_a_record_is_written_whole(opened: AbstractAsyncContextManager[Running]) -> None:
    records = [
        Record(
            "t", b"value", b"key", (("a", b"1"), ("a", b"\xff"), ("b", None), ("", b"")), 0, 1591897790000
        ),
        Record("t", None, b"key", (), 0, 1591897790001),
        Record("t", b"", b"", (), 0, 1),
    ]
    async with opened as running:
        reports = await running.producer.send(records)
        assert [report.timestamp for report in reports if isinstance(report, Receipt)] == [
            1591897790000, 1591897790001, 1,
        ]  # fmt: skip
        assert running.written("t") == records


async def test_what_would_be_written_otherwise_is_refused(
    opened: AbstractAsyncContextManager[Running],
) -> None:
    good = Record("t", b"1", b"\0", (("a", b"x\0y"), ("\1", None)), 0, 1)
    async with opened as running:
        reports = await running.producer.send(
            [Record("t", b"2", headers=(("a\0b", b""),)), Record("t", b"3", timestamp=0), good]
        )
        assert [type(report) for report in reports] == [BadRequest, BadRequest, Receipt]
        assert running.written("t") == [good]


async def test_no_records_have_no_reports(opened: AbstractAsyncContextManager[Running]) -> None:
    async with opened as running:
        assert list(await running.producer.send([])) == []
        delivery = await running.submit()
        assert list(await delivery.wait()) == []
        assert (running.producer.ledger, running.budget.held_bytes) == (Ledger(), 0)


async def test_very_many_records_at_once(opened: AbstractAsyncContextManager[Running]) -> None:
    count = 120_000  # more than librdkafka's queue takes by default
    async with opened as running:
        with trio.fail_after(30):
            reports = await running.producer.send([Record("t", b"v")] * count)
        assert [report.offset for report in reports if isinstance(report, Receipt)] == list(range(count))
        assert running.producer.ledger == Ledger(accepted=count, delivered=count)
        assert running.budget.held_bytes == 0


async def test_several_tasks_send_and_each_gets_its_own(opened: AbstractAsyncContextManager[Running]) -> None:
    got: dict[int, list[int]] = {}
    async with opened as running:

        async def send(number: int) -> None:
            for _ in range(20):
                reports = await running.producer.send([Record("t", b"%d" % number)] * 3)
                got.setdefault(number, []).extend(
                    report.offset for report in reports if isinstance(report, Receipt)
                )

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(send, number)
        written = [record.value for record in running.written("t")]
    assert len(written) == 600
    for number, offsets in got.items():
        assert offsets == sorted(offsets)  # one caller's records keep their order
        assert [written[offset] for offset in offsets] == [b"%d" % number] * 60


@pytest.mark.parametrize(
    ("topic", "kind"),
    [("none", UnknownTopic), ("", BadRequest), ("a b", BadRequest), (".", BadRequest), ("é", BadRequest),
     ("x" * 250, BadRequest), ("__consumer_offsets", TopicDenied)],
)  # fmt: skip
async def test_a_topic_that_cannot_be_written_is_a_report_of_send(
    opened: AbstractAsyncContextManager[Running], topic: str, kind: type[Exception]
) -> None:
    async with opened as running:
        refused, report = await running.producer.send([Record(topic, b"1"), Record("t", b"2")])
        assert type(refused) is kind
        assert isinstance(report, Receipt)
        with pytest.raises(kind):
            await running.producer.require_topic(topic)


async def test_a_topics_limit_is_held_and_named(opened: AbstractAsyncContextManager[Running]) -> None:
    async with opened as running:
        assert await running.producer.require_topic("t") == RECORD_BYTES
        over, report = await running.producer.send(
            [Record("t", b"x" * RECORD_BYTES, b"k"), Record("t", b"x" * (RECORD_BYTES - 1), b"k")]
        )
        assert isinstance(over, TooLarge)
        assert str(RECORD_BYTES) in over.message
        assert isinstance(report, Receipt)


async def test_a_hold_is_released_when_its_records_are_settled(
    opened: AbstractAsyncContextManager[Running],
) -> None:
    async with opened as running:
        delivery = await running.submit(b"1", b"2", wait_seconds=1)
        assert delivery.settled or running.budget.held_bytes > 0
        assert all(isinstance(report, Receipt) for report in await delivery.wait())
        assert running.budget.held_bytes == 0


async def test_a_producer_that_drains_delivers_what_it_took_and_takes_nothing_new(
    opened: AbstractAsyncContextManager[Running],
) -> None:
    async with opened as running:
        before = [await running.submit(b"%d" % number) for number in range(50)]
        with trio.fail_after(10):
            await running.producer.drain(trio.current_time() + 10)
        assert all(delivery.settled for delivery in before)
        assert running.producer.ledger == Ledger(accepted=50, delivered=50)
        with pytest.raises(Draining):
            await running.submit(b"late")
        assert running.budget.held_bytes == 0  # the refused one's hold was the producer's to release
        (report,) = await running.producer.send([Record("t", b"late")])
        assert isinstance(report, Draining)
        with trio.fail_after(1):
            await running.producer.drain(trio.current_time() + 10)
        assert len(running.written("t")) == 50


async def test_a_producer_at_rest_is_not_full(opened: AbstractAsyncContextManager[Running]) -> None:
    async with opened as running:
        assert not running.producer.full


# A producer that has no reports ----------------------------------------------------------------------


async def test_what_has_no_report_by_the_deadline_is_unknown_and_still_held(
    stalled: AbstractAsyncContextManager[Running],
) -> None:
    async with stalled as running:
        delivery = await running.submit(b"1", b"2")
        with trio.fail_after(5):
            reports = await delivery.wait()
        assert [type(report) for report in reports] == [DeliveryUnknown, DeliveryUnknown]
        assert running.producer.ledger == Ledger(accepted=2)
        assert running.budget.held_bytes > 0
        running.release()
        await running.settled()
        assert running.producer.ledger == Ledger(accepted=2, delivered=2)
        assert running.budget.held_bytes == 0


async def test_send_does_not_outlast_the_deadline(stalled: AbstractAsyncContextManager[Running]) -> None:
    async with stalled as running:
        with trio.fail_after(5):
            (report,) = await running.producer.send([Record("t", b"1")])
        # Kafka's producer may have noticed that the brokers are down; then it does not try.
        assert report.status in (503, 504) if not isinstance(report, Receipt) else False
        running.release()
        await running.settled()


async def test_a_cancelled_caller_leaves_every_record_to_be_counted(
    stalled: AbstractAsyncContextManager[Running],
) -> None:
    async with stalled as running:
        delivery = await running.submit(b"1", b"2", b"3")
        with trio.move_on_after(0.05) as scope:
            await delivery.wait()
        assert scope.cancelled_caught
        running.release()
        await running.settled()
        ledger = running.producer.ledger
        assert ledger.accepted == ledger.delivered + ledger.failed + ledger.unknown == 3
        assert running.budget.held_bytes == 0


async def test_draining_waits_for_reports(stalled: AbstractAsyncContextManager[Running]) -> None:
    async with stalled as running:
        delivery = await running.submit(b"1", b"2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.producer.drain, trio.current_time() + 10)
            await trio.testing.wait_all_tasks_blocked()
            running.release()
            with trio.fail_after(9):
                reports = await delivery.wait()
        assert all(isinstance(report, Receipt | DeliveryUnknown) for report in reports)
        assert running.producer.ledger == Ledger(accepted=2, delivered=2)


async def test_draining_gives_up_at_its_deadline(stalled: AbstractAsyncContextManager[Running]) -> None:
    async with stalled as running:
        delivery = await running.submit(b"1", b"2")
        with trio.fail_after(5):
            await running.producer.drain(trio.current_time() + 0.1)
        ledger = running.producer.ledger
        assert ledger.accepted == ledger.failed + ledger.unknown == 2
        for report in await delivery.wait():
            assert isinstance(report, Draining | DeliveryUnknown)
        assert running.budget.held_bytes == 0


async def test_draining_with_nothing_pending_returns_at_once(
    stalled: AbstractAsyncContextManager[Running],
) -> None:
    async with stalled as running:
        with trio.fail_after(1):
            await running.producer.drain(trio.current_time() + 10)


# Producers of ingest.testing alone -------------------------------------------------------------------


async def test_a_failing_producer_reports_its_error_for_each_record() -> None:
    error = RecordRefused("no")
    producer = FailingProducer(error)
    assert await producer.send([Record("t", b"1"), Record("u", b"2")]) == [error, error]
    assert (producer.ledger, producer.records) == (Ledger(accepted=2, failed=2), [])


async def test_a_full_stalling_producer_waits_until_it_is_released() -> None:
    producer = StallingProducer(accepts=2)
    first = await producer.submit([Record("t", b"1"), Record("t", b"2")])
    assert producer.full
    assert producer.pending == 2
    got: list[Delivery] = []
    async with trio.open_nursery() as nursery:

        async def submit() -> None:
            got.append(await producer.submit([Record("t", b"3")]))

        nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        producer.release()
    assert first.settled
    assert got[0].settled
    assert not producer.full
    assert [record.value for record in producer.records] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("wait_seconds", [0, 3, 100])
async def test_a_full_stalling_producer_refuses_after_the_wait(
    autojump_clock: trio.testing.MockClock, wait_seconds: float
) -> None:
    budget = Budget(1000)
    producer = StallingProducer(accepts=0, answer_seconds=10)
    with pytest.raises(Overloaded, match="full"):
        await producer.submit([Record("t")], hold=await budget.acquire(10), wait_seconds=wait_seconds)
    assert trio.current_time() == pytest.approx(min(wait_seconds, 10), abs=0.01)
    assert (budget.held_bytes, producer.ledger) == (0, Ledger())


async def test_who_waits_at_a_full_stalling_producer_is_turned_away_by_its_drain() -> None:
    producer = StallingProducer(accepts=0)
    async with trio.open_nursery() as nursery:

        async def submit() -> None:
            with pytest.raises(Draining):
                await producer.submit([Record("t")])

        nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            await producer.drain(trio.current_time() + 10)
