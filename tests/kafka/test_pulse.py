"""Signs of life of a mock cluster: silent, slow, in part, and not to be asked."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import trio

import ingest.kafka.pulse as pulse_module
from ingest.kafka.pulse import ASK_SECONDS, SILENT_SECONDS, Place, Pulse
from tests.forgetful_broker import ForgetfulBroker, open_forgetful_broker
from tests.kafka.broken_handles import no_threads
from tests.mock_kafka import LIST_OFFSETS, MockKafka, open_mock_kafka

BROKERS = 3
LATE = 2.0
"""Seconds by which something may be noticed late on a busy machine."""


@contextlib.asynccontextmanager
async def asking(
    kafka: MockKafka | ForgetfulBroker, leaders: Sequence[Place], delivered: Callable[[], int] = lambda: 0
) -> AsyncIterator[Pulse]:
    settings = {"bootstrap.servers": kafka.address, "reconnect.backoff.ms": 10, "log_level": 0}
    pulse = Pulse(settings, lambda: leaders, delivered)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pulse.watch)
            yield pulse
            nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(pulse.close)


async def until_trouble(pulse: Pulse, *, is_there: bool) -> None:
    while (pulse.trouble is not None) is not is_there:  # noqa: ASYNC110
        await trio.sleep(0.05)  # it has to be looked at


async def stays_well(pulse: Pulse, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await until_trouble(pulse, is_there=True)
        pytest.fail("it is taken for silent")


async def test_a_cluster_that_says_nothing_is_in_trouble_until_it_answers_again() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("t")
        async with asking(kafka, [("t", 0)]) as pulse:
            await stays_well(pulse, 2 * ASK_SECONDS)
            kafka.set_latency(SILENT_SECONDS + LATE)
            await until_trouble(pulse, is_there=True)
            assert pulse.trouble == "Kafka does not answer in time"
            kafka.set_latency(0)
            await until_trouble(pulse, is_there=False)


async def test_a_cluster_that_goes_on_to_deliver_is_in_trouble_and_not_silent() -> None:
    delivers, count = True, itertools.count()
    with open_mock_kafka() as kafka:
        kafka.create("t")
        async with asking(kafka, [("t", 0)], lambda: next(count) if delivers else 0) as pulse:
            kafka.set_latency(60)
            await until_trouble(pulse, is_there=True)
            await trio.sleep(2 * ASK_SECONDS)
            assert not pulse.silent
            delivers = False
            while not pulse.silent:  # noqa: ASYNC110  # it has to be looked at
                await trio.sleep(0.05)


async def test_a_slow_cluster_is_not_in_trouble() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("t")
        kafka.track()
        async with asking(kafka, [("t", 0)]) as pulse:
            while len(kafka.requests(LIST_OFFSETS)) < 2:  # noqa: ASYNC110  # connecting takes several answers
                await trio.sleep(0.05)
            await until_trouble(pulse, is_there=False)
            kafka.set_latency(0.3 * SILENT_SECONDS)  # an answer may need two, the first for the leader
            await stays_well(pulse, 1.5 * SILENT_SECONDS)


async def test_one_broker_that_answers_is_enough() -> None:
    with open_mock_kafka(BROKERS) as kafka:
        kafka.create("t", BROKERS)  # its partitions are led by one broker each
        kafka.track()
        leaders = [("t", BROKERS - 1)]
        async with asking(kafka, leaders) as pulse:
            while len(kafka.requests(LIST_OFFSETS)) < 2:  # noqa: ASYNC110  # the one to stay is connected
                await trio.sleep(0.05)
            leaders += [("t", partition) for partition in range(BROKERS - 1)]
            await stays_well(pulse, 2 * ASK_SECONDS)
            for broker in range(1, BROKERS):
                kafka.set_latency(60, broker)
            await stays_well(pulse, SILENT_SECONDS + 1)
            kafka.set_latency(60, BROKERS)
            await until_trouble(pulse, is_there=True)


async def test_a_broker_that_refuses_to_tell_has_answered() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("t")
        async with asking(kafka, [("t", 0), ("t", 99)]) as pulse:
            kafka.set_topic_error("t", 29)  # TOPIC_AUTHORIZATION_FAILED
            await stays_well(pulse, SILENT_SECONDS + 1)


async def test_cancelling_does_not_wait_for_an_answer() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("t")
        kafka.set_latency(60)
        async with asking(kafka, [("t", 0)]):
            await trio.sleep(2 * ASK_SECONDS)
            cancelled = trio.current_time()
        assert trio.current_time() - cancelled < LATE


async def test_answers_that_are_all_late_are_trouble_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "ASK_SECONDS", 0.1)
    with open_mock_kafka() as kafka:
        kafka.create("t")
        async with asking(kafka, [("t", 0)]) as pulse:
            await stays_well(pulse, 2 * ASK_SECONDS)  # it is connected
            monkeypatch.setattr(pulse_module, "SILENT_SECONDS", 0.5)
            kafka.set_latency(0.8)
            await until_trouble(pulse, is_there=True)
            with trio.move_on_after(4):
                await until_trouble(pulse, is_there=False)
                pytest.fail("a late answer is taken for a sign of life")
            kafka.set_latency(0)
            await until_trouble(pulse, is_there=False)


async def test_a_cluster_that_once_had_no_brokers_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(pulse_module, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(pulse_module, "PATIENCE_SECONDS", 1.5)
    with open_forgetful_broker(empty_lists=3) as broker:
        async with asking(broker, [("t", 0)]) as pulse:
            while broker.ends_told < 5:  # noqa: ASYNC110  # it has to be looked at
                await trio.sleep(0.05)
            await until_trouble(pulse, is_there=False)


async def test_who_leads_nothing_any_more_is_not_silent() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("t")
        leaders = [("t", 0)]
        async with asking(kafka, leaders) as pulse:
            kafka.set_latency(60)
            await until_trouble(pulse, is_there=True)
            leaders.clear()
            await until_trouble(pulse, is_there=False)


async def test_without_a_thread_to_ask_in_it_is_in_trouble_and_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_mock_kafka() as kafka, no_threads(monkeypatch) as there_are_some:
        kafka.create("t")
        async with asking(kafka, [("t", 0)]) as pulse:
            await until_trouble(pulse, is_there=True)
            assert pulse.trouble == "Kafka cannot be asked whether it answers (can't start new thread)"
            there_are_some()
            await until_trouble(pulse, is_there=False)
