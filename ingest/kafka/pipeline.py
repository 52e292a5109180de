"""From the channel through librdkafka and back, with one client at a time.

A client that can do no more is replaced in place.  What the old one was handed and did not report is
unknown from then on, and is never sent again; a report that still comes is dropped.  What it was not
handed waits for the next one.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import trio
from confluent_kafka import KafkaError
from trio_util import AsyncValue

from ingest.delivery import Delivery
from ingest.errors import ConfigError, DeliveryUnknown, IngestError, UnknownTopic
from ingest.faultlog import FaultLog
from ingest.kafka.client import Arrived, KafkaClient
from ingest.kafka.statistics import Statistics
from ingest.kafka.threads import LOOK_SECONDS, Patience, Stuck, Threads, Worker
from ingest.kafka.topics import Topics

log = logging.getLogger(__name__)

RECORDS_A_TURN = 512
"""About how many records are handed over before other tasks get their turn."""
POLL_SECONDS = 0.1
"""How long the thread waits for a report: what ending it takes at the most."""
LEAST_BATCH_BYTES = 65_536
"""How far a topic's max.message.bytes lowers the batches of all topics; below, records are tried alone."""
REPORTS_A_TURN = 64
"""How many reports are taken before other tasks get their turn: each may wake one that writes an answer,
and a slow broker's come by the thousand."""
FIRST_REPORTS = 12
"""How many are taken first, after the loop was idle, and twice as many each time from then on: those who are
answered first can send again while the others are answered, and linger.ms of all that comes begins with the
first."""
GLANCE_SECONDS = 0.001
"""How long it waits where librdkafka has nothing to report on: it is only to be seen that it comes back."""
BUSY_SECONDS = 0.0001
"""A pass of the loop that takes longer has something to do.  While it has, reports are looked for after each
pass: a thread that waits for them hardly gets the interpreter's lock, which such a loop takes back at once
whenever it lets go of it."""
SOON_SECONDS = 0.0005
"""Where the last records that were handed over while there were none had a report sooner than this, the next
one's is waited for in the loop itself, which stands still meanwhile: to wait in a thread, and to come back
from it, takes longer than the report."""
SOON_WAIT_SECONDS = 0.001
"""How long it stands still at the most; librdkafka counts in milliseconds."""
UNPOLLED_SECONDS = 2.0
"""After so long without a round of the thread that waits, something is wrong with it."""
PURGE_SECONDS = 2.0
"""How long librdkafka has to report on what was purged."""
REPLACE_SECONDS = 1.0
"""The least time between two replacements of a client."""
LEFT_BEHIND = 4
"""How many clients whose threads are stuck may be left behind; with so many there is no further one."""


class Pipeline:
    """Moves deliveries out of the channel into a client, and its reports to them."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        from_channel: trio.MemoryReceiveChannel[Delivery],
        topics: Topics,
        *,
        answer_seconds: float,
        stamps: bool,
        unsettled: Callable[[], Iterable[Delivery]],
    ) -> None:
        """`stamps` is `KafkaClient`'s; `unsettled` gives every delivery that may have been handed over."""
        self.rounds: AsyncValue[int] = AsyncValue(0)
        """Counts up whenever records got their reports."""
        self.failure: str | None = None
        """Why the client can do no more, until there is another."""
        self.waiting = 0
        """How many deliveries are in the channel, or wait to be let into it; kept by who sends them."""
        self.flushing = False
        """Whether nothing waits for linger.ms any more."""
        self._settings = dict(settings)
        self._from_channel = from_channel
        self._topics = topics
        self._answer_seconds = answer_seconds
        self._make_client = functools.partial(KafkaClient, self._settings, stamps=stamps)
        self._unsettled = unsettled
        self._handed_over = trio.Event()  # something, to a client that had nothing; or it is to be looked at
        self._handed_at: float | None = None  # to a client that had nothing; until its first report
        self._soon = False  # whether that came soon, the last time
        self._sent = trio.Event()  # something, into the channel
        self._batch: list[Delivery] = []  # out of the channel, and not handed over to the end
        self._client = self._make_client()
        self._outdated = trio.Event()  # the client is to be replaced
        self._quiet = Patience(self._client.quiet_seconds)
        self._replaced_at = -math.inf
        self._threads = Threads()
        self._left: dict[KafkaClient, list[Worker]] = {}  # replaced and not closed yet, perhaps for ever
        self._faults = FaultLog(log)
        self.polled_at = trio.current_time()
        """When librdkafka was looked at last, on Trio's clock."""
        self.statistics: Statistics | None = None
        """librdkafka's last, once it has given any."""

    @property
    def trouble(self) -> str | None:
        """Why nothing goes through now, as far as the client shows."""
        if self.failure is not None:
            return f"the Kafka client is being replaced: {self.failure}"
        if trio.current_time() - self.polled_at > UNPOLLED_SECONDS:
            return "librdkafka has not been polled lately"
        return None

    async def run(self) -> None:
        """Move records and reports until cancelled; somebody has to `look` meanwhile."""
        async with trio.open_nursery() as nursery:
            while True:
                workers = await self._use_client()
                nursery.start_soon(self._let_go, self._client, workers)
                await self._replace_client()

    async def purge(self) -> None:
        """Have librdkafka give up what it has; the reports come in as others do."""
        with contextlib.suppress(Stuck, RuntimeError):  # the latter where there is no thread to be had
            await self._threads.run(self._client.purge)

    def close(self) -> None:
        """Let librdkafka go, which joins its threads; in a thread, after `run` has ended."""
        for client, workers in [*self._left.items(), (self._client, [])]:
            if not any(worker.left_behind for worker in workers):
                client.close()

    def look(self) -> None:
        """See that threads come back, and that librdkafka reports on what it has; every `LOOK_SECONDS`."""
        self._threads.look()
        self._handed_over.set()
        client = self._client
        if not client.pending or client.given_up:
            self._quiet.start()
        elif self._quiet.ends(client.reported):
            self._fail(f"it has records, and reported on none of them for {client.quiet_seconds:g} seconds")

    # One client after another -----------------------------------------------------------------------

    async def _use_client(self) -> list[Worker]:
        """Move records and reports through the client until it has to be replaced.

        Afterwards nothing it was handed is without a report.  Returns its workers.
        """
        client = self._client
        polling, purging = Worker(lambda: client.reported), Worker()
        workers = [polling, purging]
        async with trio.open_nursery() as collecting:
            collecting.start_soon(self._collect, client, polling)
            async with trio.open_nursery() as submitting:
                submitting.start_soon(self._submit, client)
                await self._outdated.wait()
                submitting.cancel_scope.cancel()
            if self.failure is None:
                with trio.move_on_after(self._answer_seconds):  # emptied first, which keeps the order
                    while client.pending and self.failure is None:
                        await self.rounds.wait_transition()
            with contextlib.suppress(Stuck, RuntimeError), trio.move_on_after(PURGE_SECONDS):
                if client.pending and not any(worker.stuck for worker in workers):
                    await self._threads.run(client.purge, worker=purging)
                    while client.pending and not polling.stuck:
                        await self.rounds.wait_transition()
            collecting.cancel_scope.cancel()
        client.given_up = True
        self._settle_handed()
        return workers

    def _settle_handed(self) -> None:
        """What was handed over and has no report gets none any more, whatever a thread may still bring."""
        unknown = DeliveryUnknown(
            "the Kafka client was replaced before it reported; the record may have been written"
        )
        for delivery in self._unsettled():
            for index in range(delivery.handed):
                if delivery.reports[index] is None:
                    delivery.settle(index, unknown)
        self.rounds.value += 1

    async def _replace_client(self) -> None:
        await trio.sleep_until(self._replaced_at + REPLACE_SECONDS)
        self._replaced_at = trio.current_time()
        while True:
            try:
                if len(self._left) <= LEFT_BEHIND:
                    self._client = await self._threads.run(self._make_client)
                    break
                why = f"{len(self._left)} clients are stuck in librdkafka; the service has to be restarted"
            except (ConfigError, RuntimeError) as error:  # no memory or no thread for it
                why = f"there is no new one: {error}"
            except Stuck:
                why = "making a new one does not come to its end"
            if self.failure != why:
                log.error("kafka client not replaced", extra={"reason": why})
                self.failure = why
            await trio.sleep(REPLACE_SECONDS)
        self._quiet = Patience(self._client.quiet_seconds)
        self._outdated = trio.Event()
        if self.failure is not None:
            log.warning("kafka client replaced", extra={"reason": self.failure})
            self.failure = None

    async def _let_go(self, client: KafkaClient, workers: list[Worker]) -> None:
        """Close a client that was replaced, once the threads that are stuck in it have come back, if ever."""
        closing = Worker()
        self._left[client] = [*workers, closing]
        await self._come_back(workers)
        with contextlib.suppress(Stuck, RuntimeError):
            await self._threads.run(client.close, worker=closing)
        await self._come_back([closing])
        del self._left[client]

    async def _come_back(self, workers: list[Worker]) -> None:
        stuck = [worker for worker in workers if worker.left_behind]
        if stuck:
            log.error("threads left behind in librdkafka", extra={"threads": len(stuck)})
            while any(worker.left_behind for worker in stuck):  # noqa: ASYNC110  # a thread cannot set events
                await trio.sleep(LOOK_SECONDS)
            log.warning("threads came back from librdkafka", extra={"threads": len(stuck)})

    def _fail(self, why: str) -> None:
        """The client can do no more: it is to be replaced."""
        if self.failure is None:
            self.failure = why
            log.error("kafka client failed", extra={"reason": why, "records": self._client.pending})
        self._outdated.set()
        self.rounds.value += 1

    # Out of the channel ---------------------------------------------------------------------------

    async def _submit(self, client: KafkaClient) -> None:
        while True:
            if not self._batch:
                self._fill_batch()
            if not self._batch:
                self._sent = trio.Event()
                await self._sent.wait()
            elif self._wants_smaller_batches(client):
                batch_bytes = max(LEAST_BATCH_BYTES, self._topics.batch_bytes or 0)
                self._settings["batch.size"] = batch_bytes
                log.info("batch size lowered", extra={"batch_bytes": batch_bytes})
                self._outdated.set()
                await trio.sleep_forever()  # until this is cancelled
            elif self._hand_over(client):
                if self._batch:
                    await trio.lowlevel.checkpoint()
            else:
                # librdkafka's queue is full: nothing more goes in before a report has come out.
                await self.rounds.wait_transition()

    def sent(self) -> None:
        """Something has been sent into the channel."""
        self._sent.set()

    @property
    def clear(self) -> bool:
        """Whether a record can be handed over now: nothing waits in front of it."""
        return not (
            self.waiting
            or self._batch
            or self._outdated.is_set()
            or self._wants_smaller_batches(self._client)
        )

    def hand_over_one(self, delivery: Delivery) -> bool:
        """Hand over a record past the channel, while that is `clear`; False where it was not taken."""
        client = self._client
        refused: list[tuple[Delivery, int, IngestError]] = []
        had = client.pending
        took = client.hand_over_next(delivery, refused)
        if not had and client.pending:
            self._note_handed_over()
        if not took and client.failure is not None:
            self._fail(client.failure)
        return not refused and delivery.handed > 0

    def hand_over_now(self, delivery: Delivery) -> bool:
        """Hand over records past the channel, while that is `clear`; False where not even one was taken.

        What does not fit in follows as what came through the channel does.
        """
        self._batch.append(delivery)
        self._hand_over(self._client)
        if not delivery.handed:
            self._batch.clear()
            return False
        if self._batch:
            self._sent.set()
        return True

    def _note_handed_over(self) -> None:
        self._handed_at = time.perf_counter()
        self._handed_over.set()

    def _fill_batch(self) -> None:
        """Take what waits in the channel."""
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while len(self._batch) < RECORDS_A_TURN:
                self._batch.append(self._from_channel.receive_nowait())
        self.waiting -= len(self._batch)

    def _hand_over(self, client: KafkaClient) -> bool:
        """Hand over a turn's part of the batch; False where librdkafka takes none now."""
        refused: list[tuple[Delivery, int, IngestError]] = []
        had = client.pending
        took = client.hand_over(self._batch, refused, RECORDS_A_TURN)
        if not had and client.pending:
            self._note_handed_over()
        if client.failure is not None:
            self._fail(client.failure)
        for delivery, index, refusal in refused:
            delivery.settle(index, self._topics.named(refusal, delivery.records[index]))
        self._batch = [delivery for delivery in self._batch if delivery.handed < len(delivery.records)]
        if refused:
            self.rounds.value += 1
        return took

    def _wants_smaller_batches(self, client: KafkaClient) -> bool:
        """Whether a topic in use has a limit that batches could outgrow: librdkafka does not split those."""
        most = self._topics.batch_bytes
        return most is not None and max(LEAST_BATCH_BYTES, most) < client.batch_bytes

    async def _collect(self, client: KafkaClient, worker: Worker) -> None:
        most = REPORTS_A_TURN
        while True:
            arrived = client.collect(most)
            if self._handed_at is not None and (arrived.reports or arrived.counted):
                # Before they are settled, which may hand over what is stamped anew.
                self._soon = time.perf_counter() - self._handed_at < SOON_SECONDS
                self._handed_at = None
            took = self._take(arrived)
            began = time.perf_counter()
            seconds, busy = POLL_SECONDS, False
            if client.pending:
                # Not to be cancelled: it is asked for the reports of a purge, too.
                await trio.lowlevel.cancel_shielded_checkpoint()
                if most < REPORTS_A_TURN:
                    # A pass runs its tasks in any order: after two of them what was sent again has been read.
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    most = min(2 * most, REPORTS_A_TURN)
                busy = time.perf_counter() - began > BUSY_SECONDS
            if not client.pending:
                self._handed_over = trio.Event()
                await self._handed_over.wait()
                seconds = GLANCE_SECONDS
            if not took and not busy and self._soon and self._handed_at is not None:
                self._soon = False  # unless it comes
                client.wait(SOON_WAIT_SECONDS, flush=self.flushing)
            elif not client.pending or not (took or (busy and not self.flushing)):
                await trio.lowlevel.checkpoint_if_cancelled()
                most = FIRST_REPORTS
                wait = functools.partial(client.wait, seconds, flush=self.flushing)
                try:
                    await self._threads.run(wait, worker=worker)
                except Stuck:
                    self._fail("librdkafka does not come back from being polled")
                    return
                except RuntimeError as cause:  # there was no thread to be had
                    self._fail(f"it cannot be polled: {cause}")
                    return
            self.polled_at = trio.current_time()
            if client.failure is not None:
                self._fail(client.failure)

    def _take(self, arrived: Arrived) -> bool:
        """Take note of what arrived; whether there were reports."""
        self.statistics = arrived.statistics or self.statistics
        for delivery, index, report in arrived.reports:
            if isinstance(report, IngestError):
                report = self._topics.named(report, delivery.records[index])
                if isinstance(report, UnknownTopic):
                    self._topics.doubt()
            delivery.settle(index, report)
        for delivery, indexes in arrived.counted:
            delivery.acknowledge(indexes)
        for error in arrived.errors:
            self._note_error(error)
        took = bool(arrived.reports or arrived.counted)
        if took:
            self.rounds.value += 1
        return took

    def _note_error(self, error: KafkaError) -> None:
        """What librdkafka says of its connections, several times a second while brokers are down."""
        extra = {"code": error.name(), "error": error.str()}
        self._faults(logging.WARNING, "kafka error", extra, kind=error.name())
        self._topics.doubt()
