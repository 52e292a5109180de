"""Brokers that go or freeze, an ingest that is stopped or killed: every answer against the topic."""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest
import trio

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.broker.kafka_server import RealKafka
from tests.client import Answer, request

CONNECTIONS = 20
ANSWER_SECONDS = 10.0  # the default of timeouts.answer_seconds
BUDGET_BYTES = 4 << 20
LARGE_BYTES = 300_000  # of 20 connections at once, more than the budget
PAUSE_SECONDS = 0.02  # between the requests of one connection: a steady load, not the heaviest


class Journal:
    """Every request that was sent, by its value, and the answer to it."""

    def __init__(self, value_bytes: int = 200) -> None:
        self.answers: dict[bytes, Answer] = {}
        self.unanswered: set[bytes] = set()
        self.slowest_seconds = 0.0
        self.statuses: Counter[int] = Counter()
        self._numbers = itertools.count()
        self._filling = b"x" * value_bytes
        self._changed = trio.Event()

    def value(self) -> bytes:
        return b'{"number":%d,"rest":"%b"}' % (next(self._numbers), self._filling)

    def note(self, value: bytes, answer: Answer, seconds: float) -> None:
        self.answers[value] = answer
        self.statuses[answer.status] += 1
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, *statuses: int, count: int = 1) -> None:
        """Wait until so many more answers with one of these statuses have come."""
        before = sum(self.statuses[status] for status in statuses)
        while sum(self.statuses[status] for status in statuses) < before + count:
            await self._changed.wait()

    async def send_from(self, server: IngestProcess, topic: str) -> None:
        """Send one request after the other, one connection after the other, until there is no server."""
        while await self._send_over_one_connection(server, topic):
            pass

    async def _send_over_one_connection(self, server: IngestProcess, topic: str) -> bool:
        try:
            client = await server.connect()
        except OSError:
            return False
        try:
            while True:
                value = self.value()
                began = trio.current_time()
                self.unanswered.add(value)
                try:
                    answer = await client.ask(request(f"POST /topics/{topic}/records", content=value))
                except (OSError, trio.BrokenResourceError, trio.EndOfChannel):
                    return False
                self.unanswered.discard(value)
                self.note(value, answer, trio.current_time() - began)
                await trio.sleep(PAUSE_SECONDS)
                if answer.closes:
                    return True
        finally:
            await client.close()

    def check(self, kafka: RealKafka, topic: str) -> int:
        """Hold every answer against the topic; how many records are there more than once."""
        stored = Counter(record.value for record in kafka.read_all(topic))
        assert stored.keys() <= self.answers.keys() | self.unanswered, "the topic has what nobody sent"
        for value, answer in self.answers.items():
            if answer.status == 200:
                assert value in stored, f"lost: answered {answer}"
            else:
                outcome = answer.json["outcome"]
                assert (answer.status, outcome) in ((503, "not_written"), (504, "unknown")), answer
                assert outcome == "unknown" or value not in stored, f"there, and answered {answer}"
        return sum(count - 1 for count in stored.values())


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_answers_are_true_while_the_broker_is_gone_and_2xx_return_with_it(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None], fault: str
) -> None:
    topic = new_topic()
    journal = Journal(LARGE_BYTES)
    environ = {"INGEST_LIMITS__HELD_BYTES": str(BUDGET_BYTES)}
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers, environ=environ) as server:
        idle_bytes = server.most_resident_bytes()
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(journal.send_from, server, topic)
            with trio.fail_after(30):
                await journal.wait_for(200, count=200)

            (kafka.kill if fault == "killed" else kafka.freeze)()
            with trio.fail_after(ANSWER_SECONDS + 5):
                # Known to be down, or at the deadline; and everyone has met it.
                await journal.wait_for(503 if fault == "killed" else 504)
                await journal.wait_for(503, 504, count=CONNECTIONS)
            grown_bytes = server.most_resident_bytes() - idle_bytes

            await trio.to_thread.run_sync(kafka.start if fault == "killed" else kafka.thaw)
            back = trio.current_time()
            with trio.fail_after(10):
                await journal.wait_for(200)
            recovered_seconds = trio.current_time() - back
            with trio.fail_after(20):
                await journal.wait_for(200, count=200)
            code = await server.end()
        drained = server.drained()
    duplicates = journal.check(kafka, topic)
    report(
        f"broker {fault}: {dict(sorted(journal.statuses.items()))}, "
        f"slowest answer {journal.slowest_seconds:.1f} s, memory {grown_bytes / 1e6:+.0f} MB, "
        f"2xx {recovered_seconds:.1f} s after its return, lost 0, duplicates {duplicates}"
    )
    assert duplicates == 0
    assert not journal.unanswered
    assert journal.slowest_seconds <= ANSWER_SECONDS + 1
    assert grown_bytes <= BUDGET_BYTES + (64 << 20)
    assert code == (1 if drained["unknown"] else 0)
    assert drained["accepted"] == drained["delivered"] + drained["failed"] + drained["unknown"]


async def test_a_sigterm_under_busy_connections_leaves_no_request_unanswered(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None]
) -> None:
    topic = new_topic()
    journal = Journal()
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(journal.send_from, server, topic)
            with trio.fail_after(30):
                await journal.wait_for(200, count=1000)
            assert await server.end() == 0
        drained = server.drained()
    report(f"SIGTERM under {CONNECTIONS} busy connections: unanswered {len(journal.unanswered)}")
    assert not journal.unanswered
    assert drained["accepted"] == drained["delivered"] == journal.statuses[200]
    assert journal.check(kafka, topic) == 0


async def test_a_sigterm_while_the_broker_is_dead_ends_within_the_grace_and_answers_everyone(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None]
) -> None:
    topic = new_topic()
    journal = Journal()
    grace_seconds = 4.0
    arguments = ("--bootstrap-servers", kafka.bootstrap_servers, "--grace-seconds", str(grace_seconds))
    async with open_ingest(*arguments) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(journal.send_from, server, topic)
            with trio.fail_after(30):
                await journal.wait_for(200, count=200)
            kafka.freeze()
            # Whoever asks next waits for a broker that says nothing; each has sent its request by then.
            with trio.move_on_after(1):
                await journal.wait_for(200, 503, 504, count=10_000)
            began = time.monotonic()
            code = await server.end()
            seconds = time.monotonic() - began
        drained = server.drained()
    kafka.thaw()
    report(
        f"SIGTERM with the broker frozen: {seconds:.1f} s of {grace_seconds} s grace, exit {code}, "
        f"unanswered {len(journal.unanswered)}, {drained}"
    )
    assert seconds <= grace_seconds + 1
    assert not journal.unanswered
    assert drained["accepted"] == drained["delivered"] + drained["failed"] + drained["unknown"]
    assert drained["unknown"] > 0
    assert code == 1
    assert journal.check(kafka, topic) == 0


async def test_a_kill_loses_nothing_that_was_answered(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None]
) -> None:
    topic = new_topic()
    journal = Journal()
    serving = open_ingest("--bootstrap-servers", kafka.bootstrap_servers)
    async with serving as server, trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(journal.send_from, server, topic)
        with trio.fail_after(30):
            await journal.wait_for(200, count=1000)
        assert await server.end(signal.SIGKILL) == -signal.SIGKILL
    assert journal.check(kafka, topic) == 0
    assert journal.unanswered, "nothing was under way"
    report(f"SIGKILL: {journal.statuses[200]} answered 2xx, lost 0, unanswered {len(journal.unanswered)}")


async def test_it_starts_while_kafka_is_down_and_serves_when_it_comes(
    kafka: RealKafka, new_topic: Callable[..., str]
) -> None:
    topic = new_topic()
    kafka.stop()
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers) as server:
        client = await server.connect()
        answer = await client.ask(request(f"POST /topics/{topic}/records", content=b"early"))
        assert answer.status == 503
        assert answer.json["outcome"] == "not_written"
        assert 1 <= int(answer.fields["retry-after"]) <= 5
        await trio.to_thread.run_sync(kafka.start)
        with trio.fail_after(10):
            while answer.status != 200:
                answer = await client.ask(request(f"POST /topics/{topic}/records", content=b"late"))
        assert await server.end() == 0
    assert [record.value for record in kafka.read_all(topic)] == [b"late"]
