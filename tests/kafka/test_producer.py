"""What KafkaProducer does while librdkafka's mock cluster fails in each of its ways."""

from __future__ import annotations

import contextlib
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from ingest.budget import Budget
from ingest.delivery import SOMEWHERE, Delivery, Ledger
from ingest.errors import (
    BadRequest,
    ConfigError,
    DeliveryUnknown,
    Draining,
    IngestError,
    KafkaUnavailable,
    Overloaded,
    RecordRefused,
    TooLarge,
    UnknownPartition,
    UnknownTopic,
)
from ingest.kafka.client import COPIED_BYTES, check_settings
from ingest.kafka.pipeline import PURGE_SECONDS, REPORTS_A_TURN
from ingest.kafka.producer import CHANNEL_DELIVERIES, KafkaProducer
from ingest.records import DeliveryReport, Receipt, Record
from tests.mock_kafka import PRODUCE, MockKafka, open_mock_kafka


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """One broker, with topic `t` of one partition."""
    with open_mock_kafka() as kafka:
        kafka.create("t")
        yield kafka


def numbered(count: int) -> list[Record]:
    return [Record("t", b"%d" % number, b"key") for number in range(count)]


async def deliver(producer: KafkaProducer) -> None:
    """Send until a record is delivered."""
    with trio.fail_after(10):
        while kinds(await producer.send([Record("t", b"sent until delivered")])) != [Receipt]:  # noqa: ASYNC110
            await trio.sleep(0.05)


async def connect(producer: KafkaProducer) -> None:
    """Have a record delivered, and forget what it took: a slow machine may be late with the first."""
    await deliver(producer)
    producer.ledger = Ledger()


async def until(state: Callable[[], bool], seconds: float = 10) -> None:
    with trio.fail_after(seconds):
        while not state():  # noqa: ASYNC110
            await trio.sleep(0.01)


def kinds(reports: Sequence[DeliveryReport]) -> list[type[DeliveryReport]]:
    return [type(report) for report in reports]


def adds_up(ledger: Ledger) -> bool:
    return ledger.accepted == ledger.delivered + ledger.failed + ledger.unknown


# Backpressure of librdkafka ---------------------------------------------------------------------------


async def test_a_full_librdkafka_lets_the_rest_wait_and_keeps_the_order(kafka: MockKafka) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(queue_buffering_max_messages=3, budget=budget) as producer:
        await producer.require_topic("t")
        deliveries = [
            await producer.submit([Record("t", b"%d %d" % (number, part), b"key") for part in range(7)])
            for number in range(60)
        ]
        with trio.fail_after(20):  # well above the answer's deadline, at which what waits is withdrawn
            reports = [report for delivery in deliveries for report in await delivery.wait()]
        assert [report.offset for report in reports if isinstance(report, Receipt)] == list(range(420))
        assert producer.ledger == Ledger(accepted=420, delivered=420)
        assert budget.held_bytes == 0
    assert kafka.values("t") == [b"%d %d" % (number, part) for number in range(60) for part in range(7)]


async def test_a_delivery_that_is_only_counted_is_counted_and_its_failures_are_told(
    kafka: MockKafka,
) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(linger_ms=500, budget=budget) as producer:
        await connect(producer)
        kafka.fail(PRODUCE, "INVALID_RECORD")  # of the batch, and then each is tried alone
        kafka.fail(PRODUCE, "INVALID_RECORD")
        delivery = await producer.submit(numbered(100))
        delivery.counted = True
        with trio.fail_after(20):
            reports = await delivery.wait()
        counts = Counter(kinds(reports))
        assert counts == {Receipt: 99, RecordRefused: 1}
        assert reports.count(SOMEWHERE) == 99
        assert (producer.ledger.accepted, producer.ledger.delivered, producer.ledger.failed) == (100, 99, 1)
        assert producer.ledger.topic("t").delivered >= 99
        assert budget.held_bytes == 0
    assert len(kafka.values("t")) == 100  # one is that of `connect`


async def test_a_burst_of_reports_leaves_turns_to_other_tasks(kafka: MockKafka) -> None:
    turn = 0
    woken: Counter[int] = Counter()

    async def take_turns() -> None:
        nonlocal turn
        while True:
            await trio.lowlevel.checkpoint()
            turn += 1

    async def send(number: int) -> None:
        await producer.send([Record("t", b"%d" % number)])
        woken[turn] += 1

    async with kafka.open_producer() as producer, trio.open_nursery() as nursery:
        await connect(producer)
        kafka.set_latency(0.5)  # so that most of the reports come together
        nursery.start_soon(take_turns)
        async with trio.open_nursery() as senders:
            for number in range(1000):
                senders.start_soon(send, number)
        nursery.cancel_scope.cancel()
    assert woken.total() == 1000
    assert max(woken.values()) <= 2 * REPORTS_A_TURN  # Trio shuffles those that run in one turn


async def test_at_the_deadline_what_librdkafka_has_is_unknown_and_what_waits_never_reaches_the_topic(
    kafka: MockKafka,
) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(
        queue_buffering_max_messages=5, message_timeout_ms=8000, answer_seconds=3, budget=budget
    ) as producer:
        await connect(producer)
        kafka.down()
        deliveries = [
            await producer.submit(
                [Record("t", b"%d" % number)], hold=await budget.acquire(600), wait_seconds=0
            )
            for number in range(20)
        ]
        with trio.fail_after(5):
            reports = [(await delivery.wait())[0] for delivery in deliveries]
        assert kinds(reports) == [DeliveryUnknown] * 5 + [Overloaded] * 15
        assert producer.ledger == Ledger(accepted=20, failed=15)
        assert budget.held_bytes == 5 * 600
        kafka.up()
        await until(lambda: producer.ledger.pending == 0)
        assert producer.ledger == Ledger(accepted=20, delivered=5, failed=15)
        assert budget.held_bytes == 0
        await until(lambda: producer.topics.trouble is None)  # the look at the cluster has a time of its own
        (report,) = await producer.send([Record("t", b"after")])
        assert isinstance(report, Receipt)
    assert set(kafka.values("t")) == {b"sent until delivered", b"0", b"1", b"2", b"3", b"4", b"after"}


async def test_one_request_can_be_handed_over_in_part(kafka: MockKafka) -> None:
    async with kafka.open_producer(
        queue_buffering_max_messages=5, message_timeout_ms=8000, answer_seconds=3
    ) as producer:
        await connect(producer)
        kafka.down()
        delivery = await producer.submit(numbered(20))
        with trio.fail_after(5):
            assert kinds(await delivery.wait()) == [DeliveryUnknown] * 5 + [Overloaded] * 15
        assert producer.ledger == Ledger(accepted=20, failed=15)


async def test_a_caller_that_goes_takes_back_what_was_not_handed_over(kafka: MockKafka) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(
        queue_buffering_max_messages=5, message_timeout_ms=8000, budget=budget
    ) as producer:
        await connect(producer)
        kafka.down()
        first = await producer.submit(numbered(5))
        gone = await producer.submit([Record("t", b"gone")] * 10)
        staying = await producer.submit([Record("t", b"staying")])
        await until(lambda: first.handed == 5)
        with trio.move_on_after(0.1):
            await gone.wait()
        await until(lambda: gone.settled)
        assert producer.ledger == Ledger(accepted=16, failed=10)
        kafka.up()
        with trio.fail_after(5):
            assert kinds(await staying.wait()) == [Receipt]
        await first.wait()
        assert budget.held_bytes == 0
    assert b"gone" not in kafka.values("t")


async def test_a_full_channel_makes_callers_wait_or_go(kafka: MockKafka) -> None:
    budget = Budget(1 << 30)

    async def submit(value: bytes, wait_seconds: float) -> Delivery:
        hold = await budget.acquire(600)
        return await producer.submit([Record("t", value)], hold=hold, wait_seconds=wait_seconds)

    async with kafka.open_producer(
        queue_buffering_max_messages=1, message_timeout_ms=8000, budget=budget
    ) as producer:
        await connect(producer)
        kafka.down()
        taken = []
        with trio.fail_after(10):
            while not producer.full:
                taken.append(await submit(b"taken", 0))
                if len(taken) % 1000 == 0:
                    await trio.lowlevel.checkpoint()
        held = budget.held_bytes
        assert len(taken) >= CHANNEL_DELIVERIES
        with pytest.raises(Overloaded, match=f"{CHANNEL_DELIVERIES} requests wait for Kafka already"):
            await submit(b"refused", 0)
        with pytest.raises(Overloaded):
            await submit(b"refused", 0.05)
        with trio.move_on_after(0.05) as scope:
            await submit(b"cancelled", 5)
        assert scope.cancelled_caught
        assert (budget.held_bytes, producer.ledger.accepted) == (held, len(taken))

        async with trio.open_nursery() as nursery:

            async def wait_and_be_turned_away() -> None:
                with pytest.raises(Draining):
                    await submit(b"too late", 5)

            nursery.start_soon(wait_and_be_turned_away)
            await trio.testing.wait_all_tasks_blocked()
            await producer.drain(trio.current_time())
        ledger = producer.ledger
        assert ledger.accepted == len(taken)
        assert (ledger.pending, adds_up(ledger), budget.held_bytes) == (0, True, 0)
        assert [(await delivery.wait())[0].status for delivery in taken[-10:]] == [503] * 10  # type: ignore[union-attr]
        kafka.up()
    assert not {b"refused", b"cancelled", b"too late"} & set(kafka.values("t"))


async def test_a_cluster_that_says_nothing_is_given_nothing_more_until_it_does(kafka: MockKafka) -> None:
    async with kafka.open_producer() as producer:
        await connect(producer)
        kafka.set_latency(60)
        with trio.fail_after(30):
            await until(lambda: producer.most_bytes_now("t") is None)
            with pytest.raises(KafkaUnavailable, match="says nothing"):
                await producer.require_topic("t")
            kafka.set_latency(0)
            await until(lambda: producer.most_bytes_now("t") is not None)
            await producer.require_topic("t")


async def test_a_deadline_of_the_callers_comes_before_those_of_earlier_records(kafka: MockKafka) -> None:
    async with kafka.open_producer(answer_seconds=60, message_timeout_ms=50_000) as producer:
        await connect(producer)
        kafka.down()
        earlier = await producer.submit(numbered(1))
        hurried = await producer.submit(numbered(1), deadline=trio.current_time() + 0.1)
        with trio.fail_after(30):
            assert kinds(await hurried.wait()) == [DeliveryUnknown]
        assert not earlier.settled
        assert not hurried.settled
        kafka.up()
        assert kinds(await earlier.wait()) == [Receipt]
        await until(lambda: hurried.settled)
        assert producer.ledger == Ledger(accepted=2, delivered=2)


async def test_a_full_budget_makes_send_wait(kafka: MockKafka) -> None:
    record = Record("t", b"x" * 1000)
    budget = Budget(3 * record.cost())
    async with kafka.open_producer(budget=budget) as producer:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(producer.send, [record] * 2)
        assert producer.ledger == Ledger(accepted=100, delivered=100)
        (report,) = {
            report.error_code
            for report in await producer.send([record] * 4)
            if isinstance(report, IngestError)
        }
        assert report == TooLarge.error_code  # it never fits, so it is not told to try again


# Deadlines and late reports ---------------------------------------------------------------------------


async def test_a_late_report_settles_what_was_answered_unknown(kafka: MockKafka) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(answer_seconds=0.3, message_timeout_ms=5000, budget=budget) as producer:
        await connect(producer)
        kafka.set_latency(1)
        with trio.fail_after(5):
            reports = await producer.send(numbered(3))
        assert kinds(reports) == [DeliveryUnknown] * 3
        assert "timeouts.answer_seconds = 0.3" in str(reports[0])
        assert producer.ledger == Ledger(accepted=3)
        assert budget.held_bytes > 0
        await until(lambda: producer.ledger.pending == 0)
        assert producer.ledger == Ledger(accepted=3, delivered=3)
        assert budget.held_bytes == 0
        kafka.set_latency(0)
    assert len(kafka.values("t")) == 4


async def test_timing_out_in_librdkafka_is_unknown(kafka: MockKafka) -> None:
    async with kafka.open_producer(message_timeout_ms=300) as producer:
        await connect(producer)
        kafka.down()
        delivery = await producer.submit(numbered(2))
        with trio.fail_after(5):
            reports = await delivery.wait()
        assert kinds(reports) == [DeliveryUnknown] * 2
        assert "_MSG_TIMED_OUT" in str(reports[0])
        assert producer.ledger == Ledger(accepted=2, unknown=2)


async def test_a_record_answered_202_and_then_not_delivered_is_counted_as_lost(kafka: MockKafka) -> None:
    async with kafka.open_producer(
        message_timeout_ms=300, queue_buffering_max_messages=3, answer_seconds=1
    ) as producer:
        await connect(producer)
        (await producer.submit(numbered(1))).promise_no_more()
        await until(lambda: producer.ledger.delivered == 1)
        assert producer.ledger.lost == 0
        kafka.down()
        (await producer.submit(numbered(2))).promise_no_more()
        await producer.submit(numbered(1))  # nobody was told 202
        await until(lambda: producer.ledger.pending == 0)
        assert (producer.ledger.accepted, producer.ledger.lost) == (4, 2)


# What a broker or librdkafka refuses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        # A refused batch is tried again record by record, so these are refused twice.
        (["MSG_SIZE_TOO_LARGE"] * 2, TooLarge),
        (["INVALID_RECORD"] * 2, RecordRefused),
        (["POLICY_VIOLATION"] * 2, RecordRefused),
        (["TOPIC_AUTHORIZATION_FAILED"], KafkaUnavailable),
    ],
)
async def test_what_a_broker_refuses_is_a_report(
    kafka: MockKafka, errors: list[str], kind: type[IngestError]
) -> None:
    async with kafka.open_producer() as producer:
        await connect(producer)
        kafka.fail(PRODUCE, *errors)
        (report,) = await producer.send(numbered(1))
        assert type(report) is kind
        assert errors[0] in str(report)
        assert producer.ledger == Ledger(accepted=1, failed=1)
        await deliver(producer)  # it goes on


@pytest.mark.parametrize(
    ("error", "kind"), [("MSG_SIZE_TOO_LARGE", TooLarge), ("INVALID_RECORD", RecordRefused)]
)
async def test_the_others_of_a_refused_batch_are_delivered(
    kafka: MockKafka, error: str, kind: type[IngestError]
) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(linger_ms=50, budget=budget) as producer:
        await connect(producer)
        kafka.fail(PRODUCE, error, error)  # the batch, and then one record of it
        with trio.fail_after(5):
            reports = await producer.send(numbered(5))
        assert kinds(reports) == [kind, Receipt, Receipt, Receipt, Receipt]
        assert producer.ledger == Ledger(accepted=5, delivered=4, failed=1)
        assert budget.held_bytes == 0
    assert len(kafka.values("t")) == 5


# What librdkafka has copied --------------------------------------------------------------------------


def large(count: int) -> list[Record]:
    return [Record("t", b"%d" % number * COPIED_BYTES, b"key") for number in range(count)]


async def test_content_that_librdkafka_has_copied_is_not_kept_twice(kafka: MockKafka) -> None:
    async with kafka.open_producer(message_timeout_ms=20_000, answer_seconds=30) as producer:
        await connect(producer)
        kafka.set_latency(1)
        tracemalloc.start()
        delivery = await producer.submit([Record("t", bytes(500_000)) for _ in range(20)])
        with trio.fail_after(5):
            while delivery.handed < 20:  # noqa: ASYNC110
                await trio.sleep(0.01)
        traced, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert not delivery.settled
        assert traced <= 1_000_000  # of ten
        kafka.set_latency(0)
        assert kinds(await delivery.wait()) == [Receipt] * 20


async def test_large_records_of_a_refused_batch_are_tried_again_whole(kafka: MockKafka) -> None:
    async with kafka.open_producer(linger_ms=50) as producer:
        await connect(producer)
        kafka.fail(PRODUCE, "INVALID_RECORD")
        with trio.fail_after(5):
            assert kinds(await producer.send(large(5))) == [Receipt] * 5
    assert kafka.values("t")[1:] == [record.value for record in large(5)]


async def test_large_records_that_found_the_queue_full_arrive_whole(kafka: MockKafka) -> None:
    async with kafka.open_producer(queue_buffering_max_messages=3) as producer:
        with trio.fail_after(10):
            assert kinds(await producer.send(large(20))) == [Receipt] * 20
    assert kafka.values("t") == [record.value for record in large(20)]


@pytest.mark.parametrize("error", ["NOT_ENOUGH_REPLICAS", "_TRANSPORT", "NOT_LEADER_FOR_PARTITION"])
async def test_what_passes_is_retried_by_librdkafka(kafka: MockKafka, error: str) -> None:
    async with kafka.open_producer(message_timeout_ms=4000, retry_backoff_ms=10) as producer:
        await connect(producer)
        kafka.fail(PRODUCE, error)
        with trio.fail_after(5):
            (report,) = await producer.send(numbered(1))
        assert isinstance(report, Receipt)


async def test_replicas_that_stay_away_are_unknown(kafka: MockKafka) -> None:
    async with kafka.open_producer(message_timeout_ms=500, retry_backoff_ms=50) as producer:
        await connect(producer)
        kafka.fail(PRODUCE, *["NOT_ENOUGH_REPLICAS_AFTER_APPEND"] * 1000)
        with trio.fail_after(5):
            (report,) = await producer.send(numbered(1))
        assert type(report) is DeliveryUnknown


async def test_what_librdkafka_refuses_is_a_report_and_costs_the_others_nothing(kafka: MockKafka) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(message_max_bytes=2000, budget=budget) as producer:
        await producer.require_topic("t")
        delivery = await producer.submit(
            [
                Record("t", b"0"),
                Record("t", b"x" * 3000),
                Record("t", b"x", partition=7),
                Record("t", b"x", partition=-5),
                Record("t", b"x", partition=1 << 40),
                Record("t", b"x", timestamp=1 << 70),
                Record("t", b"x", headers=(("\ud800", b""),)),
                Record("t", b"9"),
            ]
        )
        reports = await delivery.wait()
        assert kinds(reports) == [
            Receipt, TooLarge, UnknownPartition, UnknownPartition,
            BadRequest, BadRequest, BadRequest, Receipt,
        ]  # fmt: skip
        assert "[kafka] message.max.bytes" in str(reports[1])
        assert str(reports[2]) == "topic t has no partition 7; it has 1, numbered from 0"
        assert producer.ledger == Ledger(accepted=8, delivered=2, failed=6)
        assert budget.held_bytes == 0
    assert kafka.values("t") == [b"0", b"9"]


async def test_partition_that_is_not_there_is_named_before_librdkafka_knows_the_topic_too(
    kafka: MockKafka,
) -> None:
    async with kafka.open_producer() as producer:
        await producer.require_topic("t")
        for _ in range(2):
            (report,) = await producer.send([Record("t", b"x", partition=99)])
            assert type(report) is UnknownPartition
            assert str(report) == "topic t has no partition 99; it has 1, numbered from 0"


async def test_a_producer_that_failed_for_good_is_replaced_and_every_record_is_reported(
    kafka: MockKafka,
) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(
        answer_seconds=3, queue_buffering_max_messages=3, budget=budget
    ) as producer:
        await connect(producer)
        for _ in range(2):
            kafka.fail(PRODUCE, "OUT_OF_ORDER_SEQUENCE_NUMBER")
            deliveries = [await producer.submit(numbered(1)) for _ in range(20)]
            with trio.fail_after(5):
                reports = [(await delivery.wait())[0] for delivery in deliveries]
            assert {*kinds(reports)} <= {Receipt, DeliveryUnknown, KafkaUnavailable}
            assert DeliveryUnknown in kinds(reports)
            await deliver(producer)
        assert (producer.ledger.pending, adds_up(producer.ledger), budget.held_bytes) == (0, True, 0)


async def test_a_topic_that_went_away_is_not_found(kafka: MockKafka) -> None:
    async with kafka.open_producer(message_timeout_ms=500) as producer:
        delivery = await producer.submit([Record("never", b"1")])  # not required before
        with trio.fail_after(5):
            (report,) = await delivery.wait()
        assert isinstance(report, UnknownTopic | DeliveryUnknown)


# Brokers that go and come back ------------------------------------------------------------------------


async def test_a_producer_starts_without_kafka_and_finds_it_later(kafka: MockKafka) -> None:
    kafka.down()
    async with kafka.open_producer() as producer:
        with trio.fail_after(5), pytest.raises(KafkaUnavailable, match="Kafka cannot be reached"):
            await producer.require_topic("t")
        (report,) = await producer.send(numbered(1))
        assert isinstance(report, KafkaUnavailable)
        assert producer.ledger == Ledger()
        kafka.up()
        await deliver(producer)


async def test_brokers_that_go_are_noticed_and_found_again_without_a_restart(kafka: MockKafka) -> None:
    async with kafka.open_producer(message_timeout_ms=500) as producer:
        await connect(producer)
        kafka.down()
        await until(lambda: not producer.topics.reachable)
        with pytest.raises(KafkaUnavailable):
            await producer.require_topic("t")
        kafka.up()
        await deliver(producer)
        assert producer.topics.reachable


# Ends -------------------------------------------------------------------------------------------------


def librdkafka_clients() -> int:
    """Clients of librdkafka in this process: each has one thread of this name, and others come and go."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names.append((task / "comm").read_text().strip())
    return names.count("rdk:main")


def busy_threads() -> list[str]:
    """Trio's threads that do something; idle ones are kept for a while."""
    return [thread.name for thread in threading.enumerate() if " from " in thread.name]


async def test_what_was_submitted_is_delivered_before_the_block_ends(kafka: MockKafka) -> None:
    async with kafka.open_producer(linger_ms=500) as producer:
        await producer.require_topic("t")
        delivery = await producer.submit(numbered(100))
        (await producer.submit(numbered(5))).promise_no_more()
    assert kinds(await delivery.wait()) == [Receipt] * 100
    assert producer.ledger == Ledger(accepted=105, delivered=105)
    with pytest.raises(Draining):
        await producer.submit(numbered(1))


async def test_drain_gives_up_at_its_deadline_with_a_report_for_each_record(kafka: MockKafka) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(
        queue_buffering_max_messages=5, message_timeout_ms=60_000, answer_seconds=30, budget=budget
    ) as producer:
        await connect(producer)
        kafka.down()
        deliveries = [await producer.submit(numbered(4)) for _ in range(5)]
        deliveries[0].promise_no_more()
        with trio.fail_after(0.3 + PURGE_SECONDS + 1):
            await producer.drain(trio.current_time() + 0.3)
        assert producer.ledger == Ledger(accepted=20, failed=15, unknown=5, lost=4)
        assert budget.held_bytes == 0
        reports = [report for delivery in deliveries for report in await delivery.wait()]
        assert kinds(reports) == [DeliveryUnknown] * 5 + [Draining] * 15


@pytest.mark.parametrize("down", [False, True])
async def test_cancelling_ends_soon_with_every_record_counted_and_no_thread_left(
    kafka: MockKafka, down: bool
) -> None:
    clients = librdkafka_clients()
    budget = Budget(1 << 20)
    producers: list[KafkaProducer] = []
    deliveries: list[Delivery] = []

    async with trio.open_nursery() as nursery:

        async def produce() -> None:
            async with kafka.open_producer(
                queue_buffering_max_messages=50, message_timeout_ms=60_000, answer_seconds=30, budget=budget
            ) as producer:
                await connect(producer)
                if down:
                    kafka.down()
                producers.append(producer)
                async with trio.open_nursery() as senders:
                    for _ in range(20):
                        senders.start_soon(send_on, producer)

        async def send_on(producer: KafkaProducer) -> None:
            while True:
                deliveries.append(await producer.submit(numbered(4)))
                await deliveries[-1].wait()

        nursery.start_soon(produce)
        await until(lambda: len(deliveries) >= 20)
        nursery.cancel_scope.cancel()
        began = trio.current_time()
    # The deadline cannot be a scope's: what ends here is shielded.
    assert trio.current_time() - began < 2.5 + PURGE_SECONDS
    ledger = producers[0].ledger
    assert ledger.accepted >= 80
    assert (ledger.pending, adds_up(ledger), budget.held_bytes) == (0, True, 0)
    assert all(delivery.settled for delivery in deliveries)
    # A question for the list of topics that is under way ends by itself, and an earlier test's as well.
    await until(lambda: not busy_threads() and librdkafka_clients() <= clients)


async def test_an_error_in_the_block_gives_up_and_comes_out(kafka: MockKafka) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with kafka.open_producer(message_timeout_ms=60_000, answer_seconds=30) as producer:
            await connect(producer)
            kafka.down()
            delivery = await producer.submit(numbered(3))
            raise LookupError("mine")
    assert caught.group_contains(LookupError)
    assert {report.status for report in await delivery.wait() if isinstance(report, IngestError)} <= {
        503,
        504,
    }
    assert (producer.ledger.pending, producer.ledger.accepted) == (0, 3)


# Settings and batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"foo": "bar"}, r'\[kafka\] No such configuration property: "foo"'),
        ({"message.timeout.ms": "soon"}, r'\[kafka\] .*"message.timeout.ms"'),
        ({"acks": "all", "enable.idempotence": True, "max.in.flight": 6}, r"\[kafka\] .*max.in.flight"),
        ({"linger.ms": [1]}, r"\[kafka\] "),
    ],
)
def test_a_wrong_setting_is_refused_in_librdkafkas_words(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(settings)


async def test_a_producer_with_a_wrong_setting_does_not_open(kafka: MockKafka) -> None:
    clients = librdkafka_clients()
    with pytest.raises(ConfigError, match="foo"):
        async with kafka.open_producer(foo="bar"):
            raise AssertionError("opened")
    # A question for the list of topics that is under way ends by itself, and an earlier test's as well.
    await until(lambda: not busy_threads() and librdkafka_clients() <= clients)


async def test_a_lower_limit_of_a_topic_lowers_the_batches_and_loses_nothing(kafka: MockKafka) -> None:
    async with kafka.open_producer() as producer:
        await connect(producer)
        kafka.set_latency(0.05)
        before = [await producer.submit([Record("t", b"%d" % number)]) for number in range(50)]
        producer.topics.batch_bytes = (
            2000  # as a topic's max.message.bytes does; the mock cluster cannot tell it
        )
        after = [await producer.submit([Record("t", b"%d" % number)]) for number in range(50, 100)]
        with trio.fail_after(10):
            for delivery in before + after:
                assert kinds(await delivery.wait()) == [Receipt]
        assert producer.ledger == Ledger(accepted=100, delivered=100)
    values = [value for value in kafka.values("t") if value != b"sent until delivered"]
    assert values == [b"%d" % number for number in range(100)]
