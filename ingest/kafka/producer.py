"""KafkaProducer: a bounded channel, librdkafka, and the delivery reports back.

It takes records in, watches over their deadlines and drains.  All of it runs in the Trio thread; what
runs in worker threads is `ingest.kafka.client`'s, one call at a time.  There are no locks.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

import trio
from trio_util import periodic

from ingest import producer as seam
from ingest.budget import Budget, Hold
from ingest.delivery import Delivery, Ledger
from ingest.errors import DeliveryUnknown, KafkaUnavailable, Overloaded
from ingest.kafka.pipeline import POLL_SECONDS, PURGE_SECONDS, Pipeline
from ingest.kafka.pulse import Pulse
from ingest.kafka.statistics import Statistics
from ingest.kafka.threads import LOOK_SECONDS
from ingest.kafka.topics import Topics
from ingest.parking import own_task
from ingest.producer import Cluster
from ingest.records import Alike, DeliveryReport, Record

log = logging.getLogger(__name__)

CHANNEL_DELIVERIES = 16_384
"""Deliveries that can wait in the channel; their bytes are on the budget."""
SWEEP_SECONDS = LOOK_SECONDS
"""How late an answer's deadline can be noticed."""
FREE_SECONDS = 2.0
"""How long librdkafka has to end its threads when the producer closes."""


class KafkaProducer:
    """The service's `ingest.producer.Producer`.  Made by `open_kafka_producer`, which runs its tasks."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        budget: Budget,
        record_bytes: int,
        answer_seconds: float,
        allow: Collection[str] | None,
        auto_create: bool,
        inside: bool,
        topics: Collection[str],
    ) -> None:
        self.ledger = Ledger()
        self._budget = budget
        self._answer_seconds = answer_seconds
        self.topics = Topics(
            settings,
            record_bytes=record_bytes,
            allow=allow,
            expected=topics,
            auto_create=auto_create,
            describe=not inside,
        )
        self.pulse = Pulse(settings, lambda: self.topics.leaders, lambda: self.ledger.delivered)
        self._into_channel, from_channel = trio.open_memory_channel[Delivery](CHANNEL_DELIVERIES)
        self._pipeline = Pipeline(
            settings,
            from_channel,
            self.topics,
            answer_seconds=answer_seconds,
            stamps=inside,
            unsettled=lambda: [*self._waiting, *self._hurried, *self._late],
        )
        self._now = trio.lowlevel.current_clock().current_time  # what trio.current_time() asks, on a detour
        self._waiting: dict[Delivery, None] = {}  # in order of their deadlines, until answered
        self._latest = -math.inf  # the last deadline among them
        self._hurried: dict[Delivery, None] = {}  # the same for those due before others that came before them
        self._late: dict[Delivery, None] = {}  # answered at their deadline, and not reported yet
        self.draining = False
        """Whether nothing new is taken any more."""

    # The Producer protocol ------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the channel has no place left."""
        return self._pipeline.waiting >= CHANNEL_DELIVERIES

    @property
    def trouble(self) -> str | None:
        """See `ingest.producer.Producer.trouble`."""
        return self._pipeline.trouble or self.topics.trouble or self.pulse.trouble

    @property
    def statistics(self) -> Statistics | None:
        """librdkafka's last, once it has given any."""
        return self._pipeline.statistics

    async def cluster(self, *, doubted: bool = False) -> Cluster:
        """See `ingest.producer.Producer.cluster`."""
        if doubted:
            self.topics.doubt()
        return await self.topics.cluster()

    async def require_topic(self, name: str) -> int:
        """See `ingest.producer.Producer.require_topic`."""
        refusal = self._refusal
        if refusal is not None:
            raise KafkaUnavailable(refusal)
        return await self.topics.require(name)

    def most_bytes_now(self, topic: str) -> int | None:
        """What `require_topic` returns, where it does so at once; None where it has to be asked."""
        return self.topics.known(topic) if self._refusal is None else None

    @property
    def _refusal(self) -> str | None:
        """Why Kafka is to be given nothing new now, whatever the topic; None while it is."""
        failure = self._pipeline.failure
        if failure is not None:
            return f"the Kafka client is being replaced: {failure}"
        return "Kafka is connected and says nothing" if self.pulse.silent else None

    @property
    def clear(self) -> bool:
        """Whether `submit_now` has nothing to wait for."""
        return not self.draining and self._pipeline.clear

    def submit_now(self, record: Record, hold: Hold, now: float, *, counted: bool) -> Delivery | None:
        """Hand a record of a known topic over to librdkafka at once, as `submit` does in time.

        `now` is the time on Trio's clock, and `counted` the delivery's.  None where it would have to wait,
        or not be taken: then nothing was done, and `hold` is still the caller's.
        """
        if not self.clear:
            return None
        delivery = Delivery((record,), hold=hold, ledger=self.ledger, on_settled=self._on_settled)
        delivery.counted = counted
        if not self._pipeline.hand_over_one(delivery):
            return None
        self.ledger.accepted += 1
        self._expect(delivery, now, now + self._answer_seconds)
        return delivery

    def submit_lines_now(self, records: Alike, hold: Hold, now: float) -> Delivery | None:
        """`submit_now` for records that are only counted; the last of them may follow in time."""
        if not self.clear:
            return None
        delivery = Delivery(records, hold=hold, ledger=self.ledger, on_settled=self._on_settled)
        delivery.counted = True
        delivery.begun = now
        count = len(records)
        self.ledger.accepted += count  # before some of them are refused
        if not self._pipeline.hand_over_now(delivery):
            self.ledger.accepted -= count
            return None
        if not delivery.settled:
            self._expect(delivery, now, now + self._answer_seconds)
        return delivery

    async def submit(
        self,
        records: Sequence[Record],
        *,
        hold: Hold | None = None,
        wait_seconds: float = math.inf,
        deadline: float = math.inf,
    ) -> Delivery:
        """See `ingest.producer.Producer.submit`.  Without a hold, the budget is charged here."""
        wait_seconds = min(wait_seconds, self._answer_seconds)
        if hold is None:
            hold = await self._budget.acquire(sum(record.cost() for record in records), wait_seconds)
        delivery = Delivery(records, hold=hold, ledger=self.ledger, on_settled=self._on_settled)
        # Accepted before it is sent: the task at the other end may have it reported before we run again.
        self.ledger.accepted += len(records)
        self._pipeline.waiting += 1
        try:
            try:
                self._into_channel.send_nowait(delivery)
            except trio.WouldBlock:
                await own_task()
                with trio.move_on_at(min(deadline, trio.current_time() + wait_seconds)) as scope:
                    await self._into_channel.send(delivery)
                if scope.cancelled_caught:
                    raise Overloaded(f"{CHANNEL_DELIVERIES} requests wait for Kafka already") from None
        except BaseException as error:
            self.ledger.accepted -= len(records)
            self._pipeline.waiting -= 1
            hold.release()
            if isinstance(error, trio.ClosedResourceError):
                raise seam.draining() from None
            raise
        self._pipeline.sent()
        if not delivery.settled:
            now = self._now()
            self._expect(delivery, now, min(deadline, now + self._answer_seconds))
        return delivery

    def _expect(self, delivery: Delivery, now: float, deadline: float) -> None:
        """See to it that the delivery is answered by the deadline."""
        delivery.begun = now
        delivery.deadline = deadline
        if deadline >= self._latest:
            self._latest = deadline
            self._waiting[delivery] = None
        else:
            self._hurried[delivery] = None

    async def send(self, records: Sequence[Record]) -> Sequence[DeliveryReport]:
        """See `ingest.producer.Producer.send`."""
        return await seam.send(self, records)

    def stop_lingering(self) -> None:
        """From now on no record waits for linger.ms, while records are still taken."""
        self._pipeline.flushing = True

    async def drain(self, deadline: float) -> None:
        """See `ingest.producer.Producer.drain`.  At the deadline the queues are purged."""
        self.stop_lingering()
        self.draining = True
        self._into_channel.close()
        with trio.move_on_at(deadline):
            while self.ledger.pending:
                await self._pipeline.rounds.wait_transition()
        if not self.ledger.pending:
            return
        log.warning("giving up", extra={"records": self.ledger.pending})
        with trio.move_on_after(PURGE_SECONDS):
            while self.ledger.pending:
                for delivery in [*self._waiting, *self._hurried]:
                    delivery.withdraw(seam.draining())
                # What a hand-over enqueues while we purge is caught by the next round.
                await self._pipeline.purge()
                with trio.move_on_after(POLL_SECONDS):
                    await self._pipeline.rounds.wait_transition()

    # The tasks --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Move records and reports until cancelled."""
        async with trio.open_nursery() as sweeping:
            sweep = trio.CancelScope(shield=True)  # it is what ends the waits for threads, so it ends last
            sweeping.start_soon(self._sweep, sweep)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.topics.watch)
                    nursery.start_soon(self.pulse.watch)
                    nursery.start_soon(self._pipeline.run)
            finally:
                sweep.cancel()

    def _on_settled(self, delivery: Delivery) -> None:
        try:
            del self._waiting[delivery]
        except KeyError:
            self._hurried.pop(delivery, None)
            self._late.pop(delivery, None)
        if delivery.deadline < math.inf:  # else it was settled before it was even waited for
            # A clock for each would cost more than all the counting; reports come when the thread is back.
            self.ledger.delivery_seconds.observe(max(0.0, self._pipeline.polled_at - delivery.begun))
        if self.draining:  # it may have been withdrawn by its caller, whom `drain` does not know
            self._pipeline.rounds.value += 1

    async def _sweep(self, scope: trio.CancelScope) -> None:
        withdrawn = Overloaded("Kafka took nothing in time; the record was withdrawn")
        unknown = DeliveryUnknown(
            f"Kafka did not answer within timeouts.answer_seconds = {self._answer_seconds:g}; "
            "the record may have been written"
        )
        with scope:
            async for _ in periodic(SWEEP_SECONDS):
                self._pipeline.look()
                now = trio.current_time()
                expired = [delivery for delivery in self._hurried if delivery.deadline <= now]
                for delivery in self._waiting:
                    if delivery.deadline > now:
                        break
                    expired.append(delivery)
                for delivery in expired:
                    delivery.expire(withdrawn, unknown)
                    if not delivery.settled:
                        self._waiting.pop(delivery, None)
                        self._hurried.pop(delivery, None)
                        self._late[delivery] = None
                if expired:
                    self._pipeline.rounds.value += 1

    # The end ----------------------------------------------------------------------------------------

    def _give_up(self) -> None:
        """Report what librdkafka did not report in time as unknown; after every task has ended."""
        unknown = DeliveryUnknown("given up without a report from librdkafka")
        for delivery in [*self._waiting, *self._hurried, *self._late]:
            for index, report in enumerate(delivery.reports):
                if report is None:
                    delivery.settle(index, unknown)

    def _free(self) -> None:
        self._pipeline.close()
        self.topics.close()
        self.pulse.close()


@contextlib.asynccontextmanager
async def open_kafka_producer(
    settings: Mapping[str, Any],
    *,
    budget: Budget,
    record_bytes: int,
    answer_seconds: float,
    allow: Collection[str] | None = None,
    auto_create: bool = False,
    inside: bool = False,
    topics: Collection[str] = (),
) -> AsyncIterator[KafkaProducer]:
    """A running `KafkaProducer` with librdkafka's `settings`; it connects in the background.

    When the block ends, records that are still pending get `answer_seconds` to be reported; when it is
    cancelled or raises, they are given up at once and reported as unknown (`PURGE_SECONDS` at the most).
    `inside` says that the cluster is librdkafka's mock; `topics` are looked up before anyone asks.

    Raises `ConfigError` where librdkafka refuses a setting.
    """
    producer = KafkaProducer(
        settings,
        budget=budget,
        record_bytes=record_bytes,
        answer_seconds=answer_seconds,
        allow=allow,
        auto_create=auto_create,
        inside=inside,
        topics=topics,
    )
    try:
        async with trio.open_nursery() as nursery:
            # The tasks outlive a cancellation from outside just long enough to report what is given up.
            tasks = trio.CancelScope(shield=True)

            async def run() -> None:
                with tasks:
                    await producer.run()

            nursery.start_soon(run)
            try:
                yield producer
                if not producer.draining:
                    await producer.drain(trio.current_time() + answer_seconds)
            finally:
                with trio.move_on_after(2 * PURGE_SECONDS, shield=True):
                    await producer.drain(-math.inf)
                tasks.cancel()
    finally:
        producer._give_up()
        # Nothing is queued any more, so the threads end at once, unless one is stuck.
        # Where there is no thread to do it in, the process's end does.
        with trio.move_on_after(FREE_SECONDS, shield=True), contextlib.suppress(RuntimeError):
            await trio.to_thread.run_sync(producer._free, abandon_on_cancel=True)
