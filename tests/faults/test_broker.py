"""A broker that goes and comes back: answers stay true and in time, memory stays, and 2xx return."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.broker.ingest_process import open_ingest
from tests.broker.kafka_server import RealKafka
from tests.client import request
from tests.faults.journal import Journal
from tests.faults.load import Load, Senders
from tests.faults.verdict import judge

pytestmark = pytest.mark.broker

ANSWER_SECONDS = 10.0  # the default of timeouts.answer_seconds
BUDGET_BYTES = 4 << 20
LARGE = Load(connections=20, filling_bytes=300_000)
"""Of all connections at once, more than the budget."""


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_answers_are_true_while_the_broker_is_gone_and_2xx_return_with_it(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None], fault: str
) -> None:
    topic = new_topic()
    journal = Journal()
    environ = {"INGEST_LIMITS__HELD_BYTES": str(BUDGET_BYTES)}
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers, environ=environ) as server:
        idle_bytes = server.most_resident_bytes()
        async with trio.open_nursery() as nursery:
            Senders(LARGE, journal, topic).start(nursery, server)
            with trio.fail_after(30):
                await journal.wait_for(200, count=200)

            (kafka.kill if fault == "killed" else kafka.freeze)()
            with trio.fail_after(ANSWER_SECONDS + 5):
                # Known to be down, or at the deadline; and everyone has met it.
                await journal.wait_for(503 if fault == "killed" else 504)
                await journal.wait_for(503, 504, count=LARGE.connections)
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
    verdict = judge(journal.requests, await trio.to_thread.run_sync(kafka.read_all, topic))
    report(
        f"broker {fault}: {dict(sorted(journal.statuses.items()))}, "
        f"slowest answer {journal.slowest_seconds:.1f} s, memory {grown_bytes / 1e6:+.0f} MB, "
        f"2xx {recovered_seconds:.1f} s after its return, {verdict}"
    )
    verdict.check()
    assert not journal.unanswered
    assert journal.slowest_seconds <= ANSWER_SECONDS + 1
    assert grown_bytes <= BUDGET_BYTES + (64 << 20)
    assert code == (1 if drained["left_unknown"] else 0)
    assert drained["accepted"] == drained["delivered"] + drained["failed"] + drained["unknown"]


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
