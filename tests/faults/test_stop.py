"""An ingest that is stopped or killed under load: every request has its answer, nothing answered is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import trio

from tests.broker.ingest_process import open_ingest
from tests.broker.kafka_server import RealKafka
from tests.faults.journal import Journal
from tests.faults.load import Kind, Load, Senders
from tests.faults.stops import STATES, State, stop_under_load
from tests.faults.verdict import judge

pytestmark = pytest.mark.broker

BUSY = Load(connections=20, kinds=(Kind.SINGLE, Kind.SINGLE, Kind.COUNTED, Kind.OFFSETS), lines=20, keys=5)


@pytest.mark.parametrize("state", STATES)
async def test_a_sigterm_leaves_no_request_unanswered_and_its_last_line_adds_up(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None], state: State
) -> None:
    stop = await stop_under_load(BUSY, kafka, new_topic(), state, grace_seconds=4)
    report(
        f"SIGTERM under {BUSY.connections} busy connections, broker {state}: exit {stop.code} after "
        f"{stop.seconds:.1f} s, unanswered {stop.journal.unanswered}, {stop.verdict}"
    )
    stop.check()
    if state == "up":
        assert stop.code == 0
        assert stop.drained["accepted"] == stop.drained["delivered"]
    if state == "frozen":
        assert stop.drained["unknown"] > 0


async def test_a_second_sigterm_ends_at_once_and_its_last_line_adds_up(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None]
) -> None:
    topic = new_topic()
    journal = Journal()
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers) as server:
        async with trio.open_nursery() as nursery:
            Senders(BUSY, journal, topic).start(nursery, server)
            with trio.fail_after(30):
                await journal.wait_for(200, count=200)
            kafka.freeze()
            server.process.send_signal(signal.SIGTERM)
            with trio.fail_after(10):
                while not any(" draining " in line for line in server.log):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            with trio.fail_after(10):  # of the 25 that the first alone would have
                code = await server.end()
        abandoned = server.abandoned()
    kafka.thaw()
    report(f"a second SIGTERM: unanswered {journal.unanswered}, {abandoned}")
    assert code == 1
    assert abandoned["accepted"] == abandoned["delivered"] + abandoned["failed"] + abandoned["unknown"]
    judge(journal.requests, await trio.to_thread.run_sync(kafka.read_all, topic)).check()


async def test_a_kill_loses_nothing_that_was_answered(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None]
) -> None:
    topic = new_topic()
    journal = Journal()
    serving = open_ingest("--bootstrap-servers", kafka.bootstrap_servers)
    async with serving as server, trio.open_nursery() as nursery:
        without_pause = BUSY._replace(pause_seconds=0)  # so that some are always under way
        Senders(without_pause, journal, topic).start(nursery, server)
        with trio.fail_after(30):
            await journal.wait_for(200, count=1000)
        assert await server.end(signal.SIGKILL) == -signal.SIGKILL
    verdict = judge(journal.requests, await trio.to_thread.run_sync(kafka.read_all, topic))
    report(f"SIGKILL: unanswered {journal.unanswered}, {verdict}")
    verdict.check()
    assert journal.unanswered, "nothing was under way"
