"""Row 6: a Kafka client that can do no more is replaced in place, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import trio
from trio_util import RepeatedEvent

import ingest
from tests.broker.ingest_process import open_ingest
from tests.broker.kafka_server import RealKafka
from tests.client import Answer, Client, request
from tests.faults.journal import Fate, Journal
from tests.faults.load import Load, Senders
from tests.kafka.broken_handles import broken_handles
from tests.mock_kafka import PRODUCE, MockKafka, fail_for_good

AGAIN_WITHIN_SECONDS = 10.0
ANSWER_SECONDS = 6.0
TIMEOUT_SECONDS = 4.0  # twice this without a report is the longest that any of these takes to be noticed
LATE_SECONDS = 1.0
CLIENTS = 10
PAUSE_SECONDS = 0.02

Reached = Callable[[int, str], None]

TIMEOUTS = {"message.timeout.ms": int(TIMEOUT_SECONDS * 1000)}


class Clients:
    """Requests one after the other over each of some connections, and what was answered when."""

    def __init__(self, target: str = "/") -> None:
        self.target = target
        self.sent = 0
        self.answers: dict[bytes, Answer] = {}
        """By the record's value, which is its number."""
        self.statuses: Counter[int] = Counter()
        self.slowest_seconds = 0.0
        self.failed_at = 0.0
        """When an answer came last that was not 2xx."""
        self.waiting = 0
        self.stopped = False
        self.changed = RepeatedEvent()

    def note(self, value: bytes, answer: Answer, seconds: float) -> None:
        self.answers[value] = answer
        self.statuses[answer.status] += 1
        self.changed.set()
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if answer.status != 200:
            self.failed_at = trio.current_time()
            outcome = "unknown" if answer.status == 504 else "not_written"
            assert answer.status in (404, 503, 504), answer
            assert answer.json["outcome"] == outcome, answer

    async def send(self, port: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            client = Client(stream)
            while not self.stopped:
                began, value = trio.current_time(), b"%d" % self.sent
                self.sent += 1
                self.waiting += 1
                answer = await client.ask(request(f"POST {self.target}", content=value))
                self.waiting -= 1
                self.note(value, answer, trio.current_time() - began)
                await trio.sleep(PAUSE_SECONDS)

    async def well_for(self, seconds: float) -> None:
        """Wait until every answer has been 2xx for so long, and there were some."""
        began, before = trio.current_time(), self.statuses[200]
        while self.statuses[200] < before + 50:
            await self.changed.wait()
        while trio.current_time() < max(began, self.failed_at) + seconds:
            await self.changed.wait()


BROKEN = [
    "poll never returns",
    "poll raises",
    "nothing is reported",
    "produce raises",
]
FATAL = [
    "OUT_OF_ORDER_SEQUENCE_NUMBER", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING",
    "UNKNOWN_PRODUCER_ID", "PRODUCER_FENCED", "_FENCED",
]  # fmt: skip
REFUSED = ["OUT_OF_ORDER_SEQUENCE_NUMBER", "INVALID_PRODUCER_EPOCH", "UNKNOWN_PRODUCER_ID"]


@pytest.mark.parametrize(
    ("how", "names"),
    [("is broken", BROKEN), ("fails for good", FATAL), ("is refused by a broker", REFUSED)],
)
async def test_2xx_return_after_a_client_that(
    cluster: MockKafka,
    monkeypatch: pytest.MonkeyPatch,
    reached: Reached,
    how: str,
    names: list[str],
) -> None:
    config = ingest.Config(
        management=ingest.Management(enabled=False),
        http=ingest.HTTP(port=0),
        timeouts=ingest.Timeouts(answer_seconds=ANSWER_SECONDS),
        kafka={"bootstrap.servers": cluster.address, **TIMEOUTS},
    )
    took: dict[str, float] = {}
    slowest = 0.0
    for name in names:
        clients = Clients()
        with broken_handles(monkeypatch) as switch:
            async with trio.open_nursery() as nursery:
                server: ingest.Server = await nursery.start(ingest.serve, config)
                async with trio.open_nursery() as sending:
                    for _ in range(CLIENTS):
                        sending.start_soon(clients.send, urlsplit(server.url).port or 0)
                    with trio.fail_after(30):
                        await clients.well_for(0.5)
                    clients.failed_at = began = trio.current_time()
                    clients.slowest_seconds = 0.0
                    if how == "is broken":
                        switch.on(name)
                    elif how == "fails for good":
                        fail_for_good(name)
                    else:
                        cluster.fail(PRODUCE, name)
                    with trio.fail_after(60):
                        await clients.well_for(10 if name == "nothing is reported" else 4)
                    # It is not wrong before it has been so for twice the timeout.
                    wrong_at = began + (2 * TIMEOUT_SECONDS if name == "nothing is reported" else 0)
                    took[name] = max(0.0, clients.failed_at - wrong_at)
                    clients.stopped = True
                assert clients.waiting == 0
                with trio.fail_after(10):
                    await server.shutdown()
        ledger = server.ledger
        assert ledger.pending == 0
        assert ledger.accepted == ledger.delivered + ledger.failed + ledger.unknown
        slowest = max(slowest, clients.slowest_seconds)
    assert max(took.values()) <= AGAIN_WITHIN_SECONDS, took
    assert slowest <= ANSWER_SECONDS + LATE_SECONDS
    shown = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in took.items())
    reached(6, f"a client that {how}: 2xx alone again after {shown}; slowest answer {slowest:.1f} s")


async def test_2xx_return_after_a_broker_that_was_frozen_for_more_than_twice_the_timeout(
    kafka: RealKafka, new_topic: Callable[..., str], reached: Reached
) -> None:
    topic = new_topic()
    environ = {"INGEST_TIMEOUTS__ANSWER_SECONDS": str(ANSWER_SECONDS)}
    arguments = ["--bootstrap-servers", kafka.bootstrap_servers]
    arguments += ["--kafka", f"message.timeout.ms={TIMEOUTS['message.timeout.ms']}"]
    journal = Journal()
    senders = Senders(Load(), journal, topic)
    async with open_ingest(*arguments, environ=environ) as server, trio.open_nursery() as nursery:
        senders.start(nursery, server)
        with trio.fail_after(60):
            await journal.wait_for(200, count=200)
            kafka.freeze()
            await trio.sleep(2.5 * TIMEOUT_SECONDS)
            kafka.thaw()
            thawed = trio.current_time()
            await journal.wait_for(200)
            seconds = trio.current_time() - thawed
            await journal.wait_for(200, count=200)
        senders.stopped = True
        with trio.fail_after(30):
            await journal.wait_until(lambda: journal.unanswered == 0)
        assert await server.end() in (0, 1)  # 1 where an outcome stayed unknown
        drained = server.drained()
    stored = Counter(record.value for record in kafka.read_all(topic))
    check(journal, stored)
    assert seconds <= AGAIN_WITHIN_SECONDS
    assert journal.slowest_seconds <= ANSWER_SECONDS + LATE_SECONDS
    assert drained["accepted"] == drained["delivered"] + drained["failed"] + drained["unknown"]
    reached(
        6,
        f"a broker frozen for {2.5 * TIMEOUT_SECONDS:g} s, {TIMEOUT_SECONDS:g} s being message.timeout.ms: "
        f"2xx again {seconds:.1f} s after it went on; slowest answer {journal.slowest_seconds:.1f} s; "
        f"{sum(count - 1 for count in stored.values())} stored twice",
    )


async def test_2xx_return_after_a_topic_that_was_deleted_under_load_and_made_again(
    kafka: RealKafka, new_topic: Callable[..., str], reached: Reached
) -> None:
    topic = new_topic()
    clients = Clients(f"/topics/{topic}/records")
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(clients.send, server.port)
            with trio.fail_after(60):
                await clients.well_for(0.5)
                await trio.to_thread.run_sync(kafka.delete_topic, topic)
                while not clients.statuses[404]:
                    await clients.changed.wait()
                await trio.sleep(2)
                await trio.to_thread.run_sync(kafka.create_topic, topic)
                made, sent = trio.current_time(), clients.sent
                await clients.well_for(2)
            seconds = max(0.0, clients.failed_at - made)
            clients.stopped = True
        await server.end()
        drained = server.drained()
    stored = Counter(record.value for record in kafka.read_all(topic))
    for value, answer in clients.answers.items():
        assert answer.status != 200 or value in stored or int(value) < sent, "lost"
        assert answer.status == 200 or answer.json["outcome"] == "unknown" or value not in stored, answer
    assert clients.waiting == 0
    assert seconds <= AGAIN_WITHIN_SECONDS
    assert clients.slowest_seconds <= 10 + LATE_SECONDS
    assert drained["accepted"] == drained["delivered"] + drained["failed"] + drained["unknown"]
    counts = ", ".join(f"{count} × {status}" for status, count in sorted(clients.statuses.items()))
    reached(
        6,
        f"a topic deleted under load and made again: 2xx alone again after {seconds:.1f} s ({counts}); "
        f"slowest answer {clients.slowest_seconds:.1f} s",
    )


def check(journal: Journal, stored: Counter[bytes | None]) -> None:
    """Nothing is lost, and nothing is there that was said not to be."""
    for sent in journal.requests:
        for value, fate in zip(sent.values(), sent.fates, strict=True):
            assert fate is not Fate.DELIVERED or value in stored, "lost"
            assert fate is not Fate.NOT_WRITTEN or value not in stored, "there, and said not to be"
