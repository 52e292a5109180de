"""Seeded schedules of faults against a real Kafka and a real process: a seed makes the same one each time."""

from __future__ import annotations

import contextlib
import enum
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import trio

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.broker.kafka_server import RealKafka
from tests.faults.journal import Fate, Journal
from tests.faults.load import Kind, Load, Senders
from tests.faults.verdict import Verdict, judge

LATE_SECONDS = 4.0
"""How much later than its deadline an answer may be on a machine that runs Kafka and the load besides."""
RECOVERY_SECONDS = 60.0
"""How long after the last fault everyone may wait for a 2xx."""


class Fault(enum.Enum):
    """What is done; the value says to whom.  Those of one party come one after the other."""

    FREEZE = "broker frozen"
    """SIGSTOP, and SIGCONT after a while."""
    KILL = "broker killed"
    """SIGKILL, and started after a while, with the same data."""
    STOP = "broker stopped"
    """SIGTERM, and the same."""
    TERM = "ingest stopped"
    """SIGTERM, and another one is started when it has drained."""
    TERM_TWICE = "ingest stopped at once"
    """A second SIGTERM after a while: it gives up what is pending."""
    CRASH = "ingest killed"
    """SIGKILL."""
    RESET = "clients reset"
    """Some connections that wait for an answer are reset."""


BROKER_FAULTS = (Fault.FREEZE, Fault.KILL, Fault.STOP)
INGEST_FAULTS = (Fault.TERM, Fault.TERM_TWICE, Fault.CRASH)


class Event(NamedTuple):
    """A fault at its time."""

    at_seconds: float
    """After the load has begun; later if what came before lasts longer."""
    fault: Fault
    seconds: float
    """How long the broker is frozen or gone, or until the second SIGTERM."""


class Schedule(NamedTuple):
    """What happens in one run."""

    seed: int
    load: Load
    answer_seconds: int
    """timeouts.answer_seconds."""
    queue_records: int
    """librdkafka's queue.buffering.max.messages."""
    events: tuple[Event, ...]

    def __str__(self) -> str:
        events = ", ".join(f"{e.at_seconds:.1f} s {e.fault.value} ({e.seconds:.1f} s)" for e in self.events)
        shape = f"{self.load.connections} connections × {self.load.lines} lines"
        return f"seed {self.seed}: {shape}, answers within {self.answer_seconds} s: {events}"


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    random = Random(seed)
    answer_seconds = random.choice((2, 2, 3, 8))
    lines = random.choice((20, 50, 100, 200))
    connections = random.randint(4, 24)
    load = Load(
        connections=connections,
        kinds=(Kind.SINGLE, Kind.QUEUED, *(Kind.COUNTED, Kind.OFFSETS) * 2, Kind.COUNTED_QUEUED),
        lines=lines,
        filling_bytes=random.choice((10, 100, 400)),
        keys=random.choice((1, 5, 100)),
        pause_seconds=max(0.02, connections * lines / 12_000),
    )
    events = []
    at_seconds = random.uniform(0.5, 1.5)
    for _ in range(random.randint(1, 2)):
        fault = random.choice((Fault.FREEZE, Fault.FREEZE, Fault.KILL, Fault.STOP))
        seconds = random.uniform(0, 2)
        if fault is Fault.FREEZE:  # shorter than an answer may take, about as long, or longer
            seconds = random.choice(
                (random.uniform(0.1, 1.5), answer_seconds, answer_seconds + random.uniform(0.5, 4))
            )
        events.append(Event(at_seconds, fault, seconds))
        at_seconds += seconds + random.uniform(1, 3)
    span_seconds = at_seconds
    if random.random() < 0.7:
        at_seconds = random.uniform(0.5, span_seconds)
        for _ in range(random.randint(1, 2)):
            events.append(Event(at_seconds, random.choice(INGEST_FAULTS), random.uniform(0, 0.5)))
            at_seconds += random.uniform(1, 4)
    if random.random() < 0.5:
        events += [
            Event(random.uniform(0.5, span_seconds), Fault.RESET, 0) for _ in range(random.randint(1, 4))
        ]
    return Schedule(
        seed,
        load,
        answer_seconds=answer_seconds,
        queue_records=random.choice((300, 100_000, 100_000)),
        events=tuple(sorted(events, key=lambda event: event.at_seconds)),
    )


class Service:
    """An ingest that is started again whenever it ends, until it is over."""

    def __init__(
        self, *arguments: str, environ: dict[str, str], program: Sequence[str] = ("ingest",)
    ) -> None:
        self.drains: list[dict[str, float]] = []
        """The last line of each that drained."""
        self.over = False
        self.crashes = 0
        """How many ended without a drain."""
        self._arguments = arguments
        self._environ = environ
        self._program = program
        self._server: IngestProcess | None = None
        self._changed = trio.Event()

    async def serving(self) -> IngestProcess | None:
        """The one to send to; None when there will be none."""
        while self._server is None or self._server.refuses:
            if self.over:
                return None
            await self._changed.wait()
        return self._server

    @property
    def last_lines(self) -> list[str]:
        """What the one that runs logged last."""
        return self._server.log[-30:] if self._server is not None else []

    async def run(self) -> None:
        """Keep one running."""
        while not self.over:
            opened = open_ingest(*self._arguments, environ=self._environ, program=self._program)
            async with opened as server:
                self._become(server)
                await server.process.wait()
                code = await server.ended()
                self._note_end(server, code)
        self._become(None)

    async def do(self, fault: Fault, seconds: float) -> None:
        """Let the one that runs meet a fault, and return when another one takes requests."""
        server = self._server
        assert server is not None
        server.process.send_signal(signal.SIGKILL if fault is Fault.CRASH else signal.SIGTERM)
        if fault is Fault.TERM_TWICE:
            await trio.sleep(seconds)
            server.process.send_signal(signal.SIGTERM)
        while self._server is server:
            await self._changed.wait()

    async def end(self) -> None:
        """Stop the one that runs, and start no other."""
        self.over = True
        await self.do(Fault.TERM, 0)

    def _become(self, server: IngestProcess | None) -> None:
        self._server = server
        self._changed.set()
        self._changed = trio.Event()

    def _note_end(self, server: IngestProcess, code: int) -> None:
        drained = server.drained()
        if not drained:
            assert code in (1, -signal.SIGKILL, -signal.SIGTERM), (code, server.log)
            self.crashes += 1
            return
        self.drains.append(drained)
        assert drained["accepted"] == drained["delivered"] + drained["failed"] + drained["unknown"], drained
        lost = any("queued record was not acknowledged" in line for line in server.log)
        assert code == (1 if drained["left_unknown"] or lost else 0), (code, drained)


@contextlib.contextmanager
def within(seconds: float, journal: Journal, service: Service) -> Iterator[None]:
    """Fail after so many seconds, and tell what was answered and what the process said last."""
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError as error:
        error.add_note(f"answers: {dict(journal.statuses)}, {dict(journal.fates)}")
        error.add_note("\n".join(service.last_lines))
        raise


class Run(NamedTuple):
    """How a schedule went."""

    journal: Journal
    verdict: Verdict
    service: Service
    stored: int
    """Records in the topic."""

    def check(self, schedule: Schedule) -> None:
        """Fail where a promise was broken."""
        self.verdict.check()
        faults = {event.fault for event in schedule.events}
        if not self.service.crashes:
            # Every process has drained, so their last lines account for everything.
            sums: Counter[str] = Counter()
            for drained in self.service.drains:
                sums.update({name: int(count) for name, count in drained.items()})
            most = sums["delivered"] + sums["unknown"]
            assert sums["delivered"] <= self.stored <= most, f"{self.stored} are stored, {sums}"
            missing = self.verdict.queued_missing
            assert missing <= sums["failed"] + sums["unknown"], f"{missing} of 202 missing, {sums}"
            unanswered = self.journal.unanswered
            assert Fault.RESET in faults or not unanswered, f"{unanswered} requests have no answer"
        slowest = self.journal.slowest_seconds
        assert slowest <= schedule.answer_seconds + LATE_SECONDS, f"an answer took {slowest:.1f} s"


async def run_schedule(schedule: Schedule, kafka: RealKafka, topic: str, *, records: int) -> Run:
    """Put the load on a process and do what the schedule says; then everyone must get 2xx again.

    It goes on until so many records have been delivered.
    """
    journal = Journal()
    senders = Senders(schedule.load, journal, topic, Random(schedule.seed))
    service = Service(
        *("--bootstrap-servers", kafka.bootstrap_servers),
        *("--kafka", f"queue.buffering.max.messages={schedule.queue_records}"),
        environ={"INGEST_TIMEOUTS__ANSWER_SECONDS": str(schedule.answer_seconds)},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        assert await service.serving() is not None
        senders.start(nursery, service.serving)
        async with trio.open_nursery() as faults:
            for party in (BROKER_FAULTS, INGEST_FAULTS, (Fault.RESET,)):
                events = [event for event in schedule.events if event.fault in party]
                faults.start_soon(_do, events, kafka, service, senders)
        try:
            with within(RECOVERY_SECONDS, journal, service):
                await journal.wait_for(200, count=2 * schedule.load.connections)
                await journal.wait_until(lambda: journal.fates[Fate.DELIVERED] >= records)
        except trio.TooSlowError as error:
            error.add_note(kafka.state())
            raise
        senders.stopped = True
        await service.end()
    stored = await trio.to_thread.run_sync(kafka.read_all, topic)
    return Run(journal, judge(journal.requests, stored), service, len(stored))


async def _do(events: Sequence[Event], kafka: RealKafka, service: Service, senders: Senders) -> None:
    """One party's faults in order."""
    began = trio.current_time()
    for at_seconds, fault, seconds in events:
        await trio.sleep_until(began + at_seconds)
        if fault is Fault.RESET:
            senders.reset(0.5)
        elif fault in INGEST_FAULTS:
            await service.do(fault, seconds)
        else:
            await do_to(kafka, fault, seconds)


async def do_to(kafka: RealKafka, fault: Fault, seconds: float) -> None:
    """Let the broker meet a fault of so many seconds, and return when it is over."""
    if fault is Fault.FREEZE:
        kafka.freeze()
        await trio.sleep(seconds)
        kafka.thaw()
    else:
        await trio.to_thread.run_sync(kafka.stop if fault is Fault.STOP else kafka.kill)
        await trio.sleep(seconds)
        await trio.to_thread.run_sync(kafka.start)
