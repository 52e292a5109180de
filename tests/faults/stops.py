"""A SIGTERM under load, and everything that a client can be doing at that moment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Literal, NamedTuple

import trio

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.broker.kafka_server import RealKafka
from tests.client import Client
from tests.faults.journal import Fate, Journal
from tests.faults.load import BROKEN, Load, Senders, ask_for_one
from tests.faults.verdict import Verdict, judge

State = Literal["up", "slow", "frozen", "killed"]
"""What the broker is meanwhile."""
STATES: Sequence[State] = ("up", "slow", "frozen", "killed")
IDLE = 40
"""Keep-alive connections that have had an answer, and send once more at some time of the drain."""
CONNECTING = 4
"""Clients that open one connection after the other, until it is refused."""
IDLE_SECONDS = 1.5
"""In which those send: about when such connections are closed."""
FROZEN_SECONDS, THAWED_SECONDS = 0.3, 0.05


class Stop(NamedTuple):
    """How one stop went."""

    code: int
    seconds: float
    """From the signal to the end of the process."""
    drained: dict[str, float]
    journal: Journal
    verdict: Verdict

    def check(self) -> None:
        """Fail where a promise was broken; how long it took is not looked at."""
        self.verdict.check()
        drained = self.drained
        assert drained["accepted"] == drained["delivered"] + drained["failed"] + drained["unknown"]
        assert self.code == (1 if drained["left_unknown"] else 0)
        never = [sent for sent in self.journal.requests if Fate.UNANSWERED in sent.fates]
        assert not never, f"never answered: {never}"


async def stop_under_load(
    load: Load, kafka: RealKafka, topic: str, state: State, *, grace_seconds: float, seed: int = 0
) -> Stop:
    """Run a process, put the load on it, send it SIGTERM, and wait for its end."""
    journal = Journal()
    random = Random(seed)
    arguments = ("--bootstrap-servers", kafka.bootstrap_servers, "--grace-seconds", str(grace_seconds))
    async with open_ingest(*arguments) as server:
        async with trio.open_nursery() as nursery:
            idle = [await server.connect() for _ in range(IDLE)]
            for client in idle:
                assert await ask_for_one(client, journal, journal.connection(), topic)
            Senders(load, journal, topic).start(nursery, server)
            with trio.fail_after(30):
                await journal.wait_for(200, count=200)
            async with broker_in(state, kafka):
                if state in ("frozen", "killed"):
                    # Whoever asks next waits for a broker that says nothing, or hears that it is down.
                    with trio.move_on_after(1):
                        await journal.wait_for(503, 504, count=load.connections)
                for client in idle:
                    nursery.start_soon(_ask_later, client, journal, topic, random.uniform(0, IDLE_SECONDS))
                for _ in range(CONNECTING):
                    nursery.start_soon(_connect_and_ask, server, journal, topic)
                began = trio.current_time()
                code = await server.end()
                seconds = trio.current_time() - began
        drained = server.drained()
    stored = await trio.to_thread.run_sync(kafka.read_all, topic)
    return Stop(code, seconds, drained, journal, judge(journal.requests, stored))


@contextlib.asynccontextmanager
async def broker_in(state: State, kafka: RealKafka) -> AsyncIterator[None]:
    """Bring the broker into a state, and back in the end."""
    async with trio.open_nursery() as nursery:
        if state == "slow":
            nursery.start_soon(_pulse, kafka)
        elif state == "frozen":
            kafka.freeze()
        elif state == "killed":
            await trio.to_thread.run_sync(kafka.kill)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):  # its start has a deadline of its own
                if state == "killed":
                    await trio.to_thread.run_sync(kafka.start)
                else:
                    kafka.thaw()
                    await trio.to_thread.run_sync(kafka.wait_until_unfenced)


async def _pulse(kafka: RealKafka) -> None:
    """Let the broker run for a moment at a time."""
    while True:
        kafka.freeze()
        await trio.sleep(FROZEN_SECONDS)
        kafka.thaw()
        await trio.sleep(THAWED_SECONDS)


async def _ask_later(client: Client, journal: Journal, topic: str, seconds: float) -> None:
    await trio.sleep(seconds)
    await ask_for_one(client, journal, journal.connection(), topic)


async def _connect_and_ask(server: IngestProcess, journal: Journal, topic: str) -> None:
    with contextlib.suppress(*BROKEN):
        while True:
            client = await server.connect()
            await ask_for_one(client, journal, journal.connection(), topic)
            await client.close()
