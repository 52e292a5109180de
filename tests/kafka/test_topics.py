from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Iterator

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import ingest.kafka.topics as topics_module
from ingest.errors import BadRequest, IngestError, KafkaUnavailable, Overloaded, TopicDenied, UnknownTopic
from ingest.kafka.topics import (
    ANSWER_SECONDS,
    LIST_SECONDS,
    MADE_AT_ONCE,
    MAKE_SECONDS,
    REFRESH_SECONDS,
    Topics,
    check_name,
)
from tests.forgetful_broker import ForgetfulBroker, open_forgetful_broker
from tests.kafka.broken_handles import no_threads
from tests.mock_kafka import METADATA, MockKafka, open_mock_kafka


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with open_mock_kafka() as kafka:
        kafka.create("a")
        kafka.create("b")
        yield kafka


@contextlib.asynccontextmanager
async def watched(
    kafka: MockKafka | ForgetfulBroker,
    *,
    allow: Collection[str] | None = None,
    expected: Collection[str] = (),
    auto_create: bool = False,
    makes: bool = True,
    describe: bool = False,
) -> AsyncIterator[Topics]:
    """`makes` says whether the cluster does what `auto_create` asks it for."""
    topics = Topics(
        {
            "bootstrap.servers": kafka.address,
            "allow.auto.create.topics": auto_create and makes,
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 50,
            "log_level": 0,
        },
        record_bytes=1000,
        allow=allow,
        expected=expected,
        auto_create=auto_create,
        describe=describe,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(topics.watch)
        with trio.fail_after(20):
            yield topics
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(topics.close)


async def go_down(kafka: MockKafka, topics: Topics) -> None:
    kafka.down()
    topics.doubt()
    while topics.reachable:  # noqa: ASYNC110
        await trio.sleep(0.01)  # it has to be looked at


# Names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "...", "_a", "x" * 249])
def test_names_that_kafka_takes(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "é", "a\n", "x" * 250, "a\0", "٣"])
def test_names_that_kafka_does_not_take(name: str) -> None:
    with pytest.raises(BadRequest, match=r"is not a name Kafka takes: 1 to 249 of a-z, A-Z, 0-9"):
        check_name(name)


@pytest.mark.parametrize("name", ["__consumer_offsets", "__", "__x"])
def test_internal_topics_are_denied(name: str) -> None:
    with pytest.raises(TopicDenied, match="is internal to Kafka"):
        check_name(name, allow={name})


def test_an_allow_list_denies_every_other_topic() -> None:
    check_name("a", allow={"a"})
    with pytest.raises(TopicDenied, match=r"topic b is not in topics.allow"):
        check_name("b", allow={"a"})


@given(st.text(max_size=300))
def test_a_refusal_shows_a_name_escaped_and_bounded(name: str) -> None:
    try:
        check_name(name)
    except IngestError as error:
        assert error.message.isprintable()
        assert len(error.message) < 1000


# The cluster's list -----------------------------------------------------------------------------------


async def test_a_topic_of_the_cluster_may_be_written_and_has_a_limit(kafka: MockKafka) -> None:
    async with watched(kafka) as topics:
        assert not topics.reachable
        assert await topics.require("a") == 1000
        assert topics.reachable


async def test_names_are_checked_before_the_cluster_is_asked(kafka: MockKafka) -> None:
    kafka.down()
    async with watched(kafka, allow=["a"]) as topics:
        for name, kind in (("", BadRequest), ("__x", TopicDenied), ("b", TopicDenied)):
            with trio.testing.assert_no_checkpoints(), pytest.raises(kind):
                await topics.require(name)


async def test_a_topic_in_use_is_answered_without_waiting(kafka: MockKafka) -> None:
    async with watched(kafka, expected=["b"]) as topics:
        await topics.require("a")
        for name in ("a", "b"):  # the one was asked for, the other is expected to be
            with trio.testing.assert_no_checkpoints():
                assert await topics.require(name) == 1000


async def test_an_unknown_topic_is_answered_from_a_fresh_list_without_waiting(kafka: MockKafka) -> None:
    async with watched(kafka) as topics:
        await topics.require("a")
        with (
            trio.testing.assert_no_checkpoints(),
            pytest.raises(UnknownTopic, match="topic none does not exist in the Kafka cluster"),
        ):
            await topics.require("none")


async def test_a_new_topic_is_found_a_second_later(kafka: MockKafka) -> None:
    async with watched(kafka) as topics:
        await topics.require("a")
        kafka.create("new")
        while True:
            try:
                assert await topics.require("new") == 1000
                break
            except UnknownTopic:
                await trio.sleep(LIST_SECONDS / 10)


async def test_however_many_unknown_topics_are_asked_for_the_list_is_fetched_once_a_second(
    kafka: MockKafka,
) -> None:
    kafka.track()
    async with watched(kafka) as topics:
        await topics.require("a")
        unknown = 0

        async def ask(task: int) -> None:
            nonlocal unknown
            while trio.current_time() < end:
                with pytest.raises(UnknownTopic):
                    await topics.require(f"none-{task}-{unknown}")
                unknown += 1
                await trio.sleep(0.005)

        end = trio.current_time() + 2.2 * LIST_SECONDS
        async with trio.open_nursery() as nursery:
            for task in range(5):
                nursery.start_soon(ask, task)
    assert unknown > 100
    times = kafka.requests(METADATA)
    # A connection's first requests, one for a and the broker's own, come together with the first list.
    later = [time for time in times if time > times[0] + LIST_SECONDS / 2]
    assert 1 <= len(later) <= 3


async def test_topics_are_looked_up_together(kafka: MockKafka) -> None:
    names = [f"t{number}" for number in range(8)]
    for name in names:
        kafka.create(name)
    kafka.track()
    async with watched(kafka) as topics, trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(topics.require, name)
    assert len(kafka.requests(METADATA)) < len(names)


async def test_the_cluster_is_shown_out_of_the_last_look_and_not_asked(kafka: MockKafka) -> None:
    kafka.create("c", partitions=2)
    kafka.track()
    async with watched(kafka) as topics:
        await topics.require("a")
        asked = len(kafka.requests(METADATA))
        with trio.testing.assert_no_checkpoints():
            cluster = await topics.cluster()
            for _ in range(100):
                assert await topics.cluster() == cluster
        assert len(kafka.requests(METADATA)) == asked
    assert cluster.id
    assert sorted(cluster.topics) == ["a", "b", "c"]
    assert [len(cluster.topics[name].leaders) for name in "ac"] == [1, 2]
    assert all(leader >= 0 for leader in cluster.topics["c"].leaders)
    assert cluster.topics["a"].replicas >= 1
    assert cluster.record_bytes == {"a": 1000}


async def test_what_is_asked_before_the_first_look_waits_for_it(kafka: MockKafka) -> None:
    kafka.set_latency(0.1)
    async with watched(kafka) as topics:
        assert not topics.reachable
        assert sorted((await topics.cluster()).topics) == ["a", "b"]


async def test_a_cluster_that_is_down_is_not_waited_for(kafka: MockKafka) -> None:
    kafka.down()
    async with watched(kafka) as topics:
        with pytest.raises(KafkaUnavailable, match="Kafka cannot be reached"):
            await topics.cluster()


async def test_a_first_look_that_is_never_made_is_waited_for_in_vain(autojump_clock: MockClock) -> None:
    topics = Topics({}, record_bytes=1000, allow=None, expected=(), auto_create=False, describe=False)
    with pytest.raises(Overloaded, match="does not say in time which topics it has"):
        await topics.cluster()
    assert trio.current_time() == LIST_SECONDS + ANSWER_SECONDS


async def test_without_kafka_every_topic_is_unavailable_and_comes_back_with_it(kafka: MockKafka) -> None:
    kafka.down()
    async with watched(kafka) as topics:
        for name in ("a", "none"):
            with pytest.raises(KafkaUnavailable, match="Kafka cannot be reached"):
                await topics.require(name)
        assert not topics.reachable
        kafka.up()
        while True:
            try:
                assert await topics.require("a") == 1000
                break
            except KafkaUnavailable:
                await trio.sleep(0.05)
        with pytest.raises(UnknownTopic):
            await topics.require("none")


async def test_a_cluster_that_once_had_no_brokers_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics_module, "REOPEN_SECONDS", 1.0)
    with open_forgetful_broker(empty_lists=3) as broker:
        async with watched(broker) as topics:
            while broker.forgets or not topics.reachable:  # it has to be looked at
                topics.doubt()
                await trio.sleep(0.05)
            assert await topics.require("t") == 1000


async def test_a_topic_in_use_is_unavailable_while_the_brokers_are_down(kafka: MockKafka) -> None:
    async with watched(kafka) as topics:
        await topics.require("a")
        await go_down(kafka, topics)
        with trio.testing.assert_no_checkpoints(), pytest.raises(KafkaUnavailable):
            await topics.require("a")


async def test_brokers_that_come_back_slow_are_used_again(kafka: MockKafka) -> None:
    async with watched(kafka) as topics:
        await topics.require("a")
        await go_down(kafka, topics)
        kafka.set_latency(1.5 * ANSWER_SECONDS)  # no look at the cluster succeeds from here on
        kafka.up()
        while not topics.reachable:  # noqa: ASYNC110
            await trio.sleep(0.05)
        assert await topics.require("a") == 1000


async def test_a_cluster_that_does_not_answer_leaves_topics_in_use_alone_and_calls_none_unknown(
    kafka: MockKafka,
) -> None:
    async with watched(kafka) as topics:
        await topics.require("a")
        await topics.require("b")
        kafka.create("new")
        await trio.sleep(LIST_SECONDS)  # the list is stale from here on
        kafka.set_latency(30)
        with pytest.raises(Overloaded) as caught:
            await topics.require("new")
        assert type(caught.value) is Overloaded  # it may well exist, so it is 503 and not 404
        assert await topics.require("a") == 1000
        assert topics.reachable


async def test_a_caller_that_goes_while_it_waits_is_forgotten(kafka: MockKafka) -> None:
    kafka.set_latency(0.1)  # of each answer that a first look needs
    async with watched(kafka) as topics:
        with trio.move_on_after(0.01) as scope:
            await topics.require("a")
        assert scope.cancelled_caught
        assert await topics.require("b") == 1000


async def test_looking_a_topic_up_makes_it_where_that_is_wanted(kafka: MockKafka) -> None:
    async with watched(kafka, auto_create=True) as topics:
        assert await topics.require("made") == 1000
        with pytest.raises(BadRequest):
            await topics.require("not a name")
    async with watched(kafka) as topics:
        assert await topics.require("made") == 1000
        with pytest.raises(UnknownTopic):
            await topics.require("unmade")


async def test_a_topic_that_is_made_may_take_a_moment_to_appear(kafka: MockKafka) -> None:
    async with watched(kafka, auto_create=True, makes=False) as topics, trio.open_nursery() as nursery:
        await topics.require("a")

        async def require() -> None:
            assert await topics.require("made") == 1000

        nursery.start_soon(require)
        await trio.sleep(2 * MAKE_SECONDS)  # it has been looked up by then
        kafka.create("made")


async def test_a_topic_that_the_cluster_does_not_make_is_unknown_and_then_at_once(kafka: MockKafka) -> None:
    async with watched(kafka, auto_create=True, makes=False) as topics:
        begun = trio.current_time()
        with pytest.raises(UnknownTopic):
            await topics.require("none")
        assert trio.current_time() - begun >= LIST_SECONDS
        with trio.testing.assert_no_checkpoints(), pytest.raises(UnknownTopic):
            await topics.require("none")


async def test_the_making_of_topics_is_rationed(kafka: MockKafka) -> None:
    made = refused = 0

    async def require(name: str) -> None:
        nonlocal made, refused
        try:
            await topics.require(name)
            made += 1
        except Overloaded:
            refused += 1

    async with watched(kafka, auto_create=True) as topics:
        await topics.require("a")
        kafka.track()
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(require, f"t{number}")
    assert made >= MADE_AT_ONCE
    assert refused == 500 - made
    times = kafka.requests(METADATA)
    # The times are the broker's, which sees some late.
    rounds = (times[-1] - times[0]) / MAKE_SECONDS + 2
    # librdkafka asks twice for a name that it did not know, and once for the list.
    assert made <= len(times) <= rounds * (2 * MADE_AT_ONCE + 1)


async def test_a_cluster_that_describes_no_topics_leaves_the_configured_limit(kafka: MockKafka) -> None:
    async with watched(kafka, describe=True) as topics:
        assert await topics.require("a") == 1000
        assert topics.batch_bytes is None


async def test_without_a_thread_to_ask_in_it_is_in_trouble_and_tries_again(
    kafka: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(kafka) as topics:
        await topics.require("a")
        with no_threads(monkeypatch) as there_are_some:
            topics.doubt()
            while topics.trouble is None:  # noqa: ASYNC110
                await trio.sleep(0.01)  # it has to be looked at
            assert topics.trouble == "Kafka cannot be asked for its topics (can't start new thread)"
            with trio.testing.assert_no_checkpoints():
                await topics.require("a")
            there_are_some()
            assert await topics.require("b") == 1000
        assert topics.trouble is None


async def test_while_topics_in_use_have_no_leader_they_are_listed_again_soon(kafka: MockKafka) -> None:
    kafka.create("c")
    async with watched(kafka, expected=["c"]) as topics:
        await topics.require("c")
        assert topics.leaders == [("c", 0)]
        kafka.lead("c", 0, -1)
        topics.doubt()
        while topics.leaders:  # noqa: ASYNC110
            await trio.sleep(0.01)  # it has to be looked at
        kafka.lead("c", 0, 1)
        with trio.fail_after(REFRESH_SECONDS / 2):
            while not topics.leaders:  # noqa: ASYNC110
                await trio.sleep(0.01)
