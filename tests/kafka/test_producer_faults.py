"""A librdkafka producer that fails for good, in each of its ways, is replaced in place.

Where something is broken in confluent_kafka's producer itself, that is so for the first one: what takes its
place is sound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from ingest.budget import Budget
from ingest.delivery import Delivery
from ingest.errors import DeliveryUnknown, KafkaUnavailable, Overloaded
from ingest.kafka.pipeline import LEFT_BEHIND
from ingest.kafka.producer import KafkaProducer
from ingest.records import Receipt, Record
from tests.kafka.broken_handles import STUCK_SECONDS, Switch, broken_handles, no_threads
from tests.kafka.test_producer import adds_up, busy_threads, connect, deliver, kinds, until
from tests.mock_kafka import INIT_PRODUCER_ID, PRODUCE, MockKafka, fail_for_good, open_mock_kafka


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """One broker, with topic `t` of one partition."""
    with open_mock_kafka() as kafka:
        kafka.create("t")
        yield kafka


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    monkeypatch.setattr("ingest.kafka.threads.STUCK_SECONDS", STUCK_SECONDS)
    with broken_handles(monkeypatch) as switch:
        yield switch


async def submit(producer: KafkaProducer, first: int = 0, count: int = 20) -> list[Delivery]:
    numbers = range(first, first + count)
    return [await producer.submit([Record("t", b"%d" % number, b"key")]) for number in numbers]


async def reports(deliveries: list[Delivery], seconds: float = 8) -> Counter[type]:
    with trio.fail_after(seconds):
        return Counter(kinds([report for delivery in deliveries for report in await delivery.wait()]))


@pytest.mark.parametrize(
    "kind",
    [
        "poll never returns",
        "poll raises",
        "nothing is reported",
        "produce raises",
    ],
)
async def test_a_client_that_is_broken_is_replaced_and_every_record_has_its_answer(
    kafka: MockKafka, switch: Switch, kind: str
) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(message_timeout_ms=1000, answer_seconds=6, budget=budget) as producer:
        await connect(producer)
        switch.on(kind)
        sent, counts = 0, Counter[type]()
        # The loop may look for reports itself, and so not meet it at once; and a slow machine's next client
        # may have none of the first records delivered in time.
        while not (counts[DeliveryUnknown] and counts[Receipt]):
            counts += await reports(await submit(producer, sent))
            sent += 20
            assert counts.keys() <= {Receipt, DeliveryUnknown}
        await deliver(producer)
        assert switch.made == 2
        assert (producer.ledger.pending, adds_up(producer.ledger)) == (0, True)
        assert budget.held_bytes == 0
        # A thread that was stuck comes back into a client that was given up: nothing is counted twice.
        before = replace(producer.ledger)
        switch.freed.set()
        await until(lambda: len(busy_threads()) <= 2)  # one polls, one may ask for topics
        assert producer.ledger == before
    values = Counter(kafka.values("t"))
    assert max(values[b"%d" % number] for number in range(sent)) == 1, "a record was sent twice"


async def test_a_client_that_knows_no_broker_any_more_is_replaced(kafka: MockKafka, switch: Switch) -> None:
    async with kafka.open_producer(statistics_interval_ms=100) as producer:
        await connect(producer)
        switch.on("knows no broker")
        sent = await submit(producer)
        while switch.made == 1:
            sent += await submit(producer, len(sent))
            await trio.sleep(0.01)
        assert (await reports(sent)).keys() <= {Receipt, DeliveryUnknown}
        await until(lambda: producer.trouble is None)
        await deliver(producer)
        assert (switch.made, producer.ledger.pending) == (2, 0)


@pytest.mark.parametrize(
    "name",
    ["OUT_OF_ORDER_SEQUENCE_NUMBER", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING",
     "UNKNOWN_PRODUCER_ID", "PRODUCER_FENCED", "_FENCED"],
)  # fmt: skip
async def test_a_fatal_error_has_the_client_replaced_without_a_record_to_ask_for_it(
    kafka: MockKafka, name: str
) -> None:
    async with kafka.open_producer(answer_seconds=4) as producer:
        await connect(producer)
        kafka.set_latency(0.5)
        deliveries = await submit(producer)
        await until(lambda: deliveries[-1].handed == 1)
        fail_for_good(name)
        assert (await reports(deliveries)).keys() <= {Receipt, DeliveryUnknown}
        kafka.set_latency(0)
        await until(lambda: producer.trouble is None)
        await deliver(producer)
        assert (producer.ledger.pending, adds_up(producer.ledger)) == (0, True)


@pytest.mark.parametrize(
    "name",
    ["OUT_OF_ORDER_SEQUENCE_NUMBER", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING",
     "UNKNOWN_PRODUCER_ID", "PRODUCER_FENCED"],
)  # fmt: skip
async def test_what_a_broker_says_of_the_idempotent_producer_ends_in_an_answer_and_it_goes_on(
    kafka: MockKafka, name: str
) -> None:
    budget = Budget(1 << 20)
    async with kafka.open_producer(answer_seconds=4, budget=budget) as producer:
        await connect(producer)
        for _ in range(2):
            kafka.fail(PRODUCE, name)
            assert (await reports(await submit(producer))).keys() <= {Receipt, DeliveryUnknown}
            await deliver(producer)
        assert (producer.ledger.pending, adds_up(producer.ledger), budget.held_bytes) == (0, True, 0)


@pytest.mark.parametrize(
    "name", ["INVALID_PRODUCER_EPOCH", "CLUSTER_AUTHORIZATION_FAILED", "COORDINATOR_NOT_AVAILABLE"]
)
async def test_a_producer_that_gets_no_id_answers_and_goes_on_once_it_gets_one(
    kafka: MockKafka, name: str
) -> None:
    kafka.fail(INIT_PRODUCER_ID, *[name] * 3)
    async with kafka.open_producer(answer_seconds=4) as producer:
        await producer.topics.require("t")
        counts = await reports(await submit(producer))
        assert Receipt in counts or counts.keys() <= {DeliveryUnknown, KafkaUnavailable}
        await deliver(producer)
        assert (producer.ledger.pending, adds_up(producer.ledger)) == (0, True)


async def test_while_there_is_no_new_client_requests_are_refused_and_what_waits_is_withdrawn(
    kafka: MockKafka, switch: Switch
) -> None:
    async with kafka.open_producer(answer_seconds=2) as producer:
        await connect(producer)
        assert producer.trouble is None
        switch.on("never made")
        fail_for_good("_FENCED")
        await until(lambda: "there is no new one" in (producer.trouble or ""))
        with pytest.raises(KafkaUnavailable, match="there is no new one"):
            await producer.require_topic("t")
        assert (await reports(await submit(producer))).keys() == {Overloaded}
        switch.on("nothing")
        await until(lambda: producer.trouble is None)
        await deliver(producer)
        assert (producer.ledger.pending, adds_up(producer.ledger)) == (0, True)


async def test_threads_that_are_stuck_are_left_behind_only_so_often(kafka: MockKafka, switch: Switch) -> None:
    async with kafka.open_producer(answer_seconds=2) as producer:
        await connect(producer)
        switch.on("every poll")
        await until(lambda: "has to be restarted" in (producer.trouble or ""), seconds=20)
        assert len(busy_threads()) <= LEFT_BEHIND + 3
        switch.on("nothing")
        switch.freed.set()
        await until(lambda: producer.trouble is None)
        await deliver(producer)
        await until(lambda: len(busy_threads()) <= 2)
        assert (producer.ledger.pending, adds_up(producer.ledger)) == (0, True)


async def test_without_threads_for_a_while_every_record_is_reported_and_nothing_ends(
    kafka: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kafka.open_producer() as producer:
        await connect(producer)
        with no_threads(monkeypatch) as there_are_some:
            producer.topics.doubt()
            await until(lambda: None not in (producer.topics.trouble, producer.trouble))
            assert producer.trouble is not None
            assert "can't start new thread" in producer.trouble
            there_are_some()
        await until(lambda: producer.trouble is None)
        assert await reports(await submit(producer)) == Counter({Receipt: 20})
        assert adds_up(producer.ledger)


async def test_a_producer_ends_without_threads_too(kafka: MockKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    async with kafka.open_producer() as producer:
        await connect(producer)
        with no_threads(monkeypatch):
            deliveries = await submit(producer)
            await until(lambda: producer.trouble is not None)
            await producer.drain(trio.current_time())
        assert all(delivery.settled for delivery in deliveries)
