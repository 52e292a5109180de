"""KafkaProducer: a bounded channel, librdkafka, and the delivery reports back.

All of it runs in the Trio thread.  What runs in worker threads is `ingest.kafka.client`'s: one hands a
batch over, another polls, each one call at a time.  There are no locks.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import operator
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

import trio
from confluent_kafka import KafkaError
from trio_util import AsyncValue, periodic

from ingest import producer as seam
from ingest.budget import Budget, Hold
from ingest.errors import DeliveryUnknown, Overloaded, RecordRefused, TooLarge
from ingest.faultlog import FaultLog
from ingest.kafka.client import Arrived, KafkaClient
from ingest.kafka.statistics import Statistics
from ingest.kafka.topics import Topics
from ingest.producer import Delivery, Ledger
from ingest.records import DeliveryReport, Record

log = logging.getLogger(__name__)

CHANNEL_DELIVERIES = 16_384
"""Deliveries that can wait in the channel; their bytes are on the budget."""
BATCH_RECORDS = 10_000
"""About how many records one hop into the thread hands over; more would hold up the next answers."""
REPORTS_A_TURN = 64
"""How many reports are settled before other tasks get their turn: a slow broker's come by the thousand."""
POLL_SECONDS = 0.1
"""How long the poll thread waits for a report: what ending it takes at the most."""
POLL_ALONE_SECONDS = 0.005
"""The same while records are tried alone, whose reports come through another client."""
LEAST_BATCH_BYTES = 65_536
"""How far a topic's max.message.bytes lowers the batches of all topics; below, records are tried alone."""
SWEEP_SECONDS = 0.25
"""How late an answer's deadline can be noticed."""
QUIET_SECONDS = 2.0
"""After so long without a round of the poll thread, something is wrong with it."""
PURGE_SECONDS = 2.0
"""How long librdkafka has to report on what was purged."""


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
        self._settings = dict(settings)
        self._budget = budget
        self._answer_seconds = answer_seconds
        self._inside = inside
        # Three threads at the most: one hands over, one polls, one asks for metadata.
        self._limiter = trio.CapacityLimiter(3)
        self.topics = Topics(
            settings,
            record_bytes=record_bytes,
            allow=allow,
            expected=topics,
            auto_create=auto_create,
            describe=not inside,
            limiter=self._limiter,
        )
        self._client = KafkaClient(settings, stamps=inside)
        self._into_channel, self._from_channel = trio.open_memory_channel[Delivery](CHANNEL_DELIVERIES)
        self._waiting: dict[Delivery, None] = {}  # in order of their deadlines, until answered
        self._late: dict[Delivery, None] = {}  # answered at their deadline, and not reported yet
        self._rounds: AsyncValue[int] = AsyncValue(0)  # counts up whenever records got their reports
        self._alone: KafkaClient | None = None  # for records whose batch was refused, each on its own
        self._failed = False  # the client said so, for good
        self._faults = FaultLog(log)
        self._polled_at = trio.current_time()  # when the poll thread was back last
        self.statistics: Statistics | None = None
        """librdkafka's last, once it has given any."""
        self.draining = False
        """Whether nothing new is taken any more."""

    # The Producer protocol ------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the channel has no place left."""
        return self._into_channel.statistics().current_buffer_used >= CHANNEL_DELIVERIES

    @property
    def trouble(self) -> str | None:
        """See `ingest.producer.Producer.trouble`."""
        if self._failed:
            return "the Kafka producer failed for good and is being replaced"
        if trio.current_time() - self._polled_at > QUIET_SECONDS:
            return "librdkafka has not been polled lately"
        return self.topics.trouble

    async def require_topic(self, name: str) -> int:
        """See `ingest.producer.Producer.require_topic`."""
        return await self.topics.require(name)

    async def submit(
        self, records: Sequence[Record], *, hold: Hold | None = None, wait_seconds: float = math.inf
    ) -> Delivery:
        """See `ingest.producer.Producer.submit`.  Without a hold, the budget is charged here."""
        wait_seconds = min(wait_seconds, self._answer_seconds)
        if hold is None:
            hold = await self._budget.acquire(sum(record.cost() for record in records), wait_seconds)
        delivery = Delivery(records, hold=hold, ledger=self.ledger, on_settled=self._on_settled)
        try:
            await self._enter_channel(delivery, wait_seconds)
        except BaseException:
            hold.release()
            raise
        return delivery

    async def _enter_channel(self, delivery: Delivery, wait_seconds: float) -> None:
        # Accepted before it is sent: the task at the other end may have it reported before we run again.
        self.ledger.accepted += len(delivery.records)
        try:
            try:
                self._into_channel.send_nowait(delivery)
            except trio.WouldBlock:
                with trio.move_on_after(wait_seconds) as scope:
                    await self._into_channel.send(delivery)
                if scope.cancelled_caught:
                    raise Overloaded(f"{CHANNEL_DELIVERIES} requests wait for Kafka already") from None
        except BaseException as error:
            self.ledger.accepted -= len(delivery.records)
            if isinstance(error, trio.ClosedResourceError):
                raise seam.draining() from None
            raise
        if not delivery.settled:
            # From here, not from `submit`: those that waited for room would break the order.
            delivery.deadline = trio.current_time() + self._answer_seconds
            self._waiting[delivery] = None

    async def send(self, records: Sequence[Record]) -> Sequence[DeliveryReport]:
        """See `ingest.producer.Producer.send`."""
        return await seam.send(self, records)

    async def drain(self, deadline: float) -> None:
        """See `ingest.producer.Producer.drain`.  At the deadline the queues are purged."""
        self.draining = True
        self._into_channel.close()
        with trio.move_on_at(deadline):
            while self.ledger.pending:
                await self._rounds.wait_transition()
        if not self.ledger.pending:
            return
        log.warning("giving up", extra={"records": self.ledger.pending})
        with trio.move_on_after(PURGE_SECONDS):
            while self.ledger.pending:
                for delivery in list(self._waiting):
                    delivery.withdraw(seam.draining())
                # What a hand-over enqueues while we purge is caught by the next round.
                await trio.to_thread.run_sync(self._purge, limiter=self._limiter)
                with trio.move_on_after(POLL_SECONDS):
                    await self._rounds.wait_transition()

    # The tasks --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Move records and reports until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._submit)
            nursery.start_soon(self._collect)
            nursery.start_soon(self._sweep)
            nursery.start_soon(self.topics.watch)

    def _on_settled(self, delivery: Delivery) -> None:
        self._waiting.pop(delivery, None)
        self._late.pop(delivery, None)
        if delivery.deadline < math.inf:  # else it was settled before it was even waited for
            begun = delivery.deadline - self._answer_seconds
            self.ledger.delivery_seconds.observe(trio.current_time() - begun)
        if self.draining:  # it may have been withdrawn by its caller, whom `drain` does not know
            self._rounds.value += 1

    async def _submit(self) -> None:
        async for first in self._from_channel:
            batch = [first]
            records = len(first.records)
            with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                while records < BATCH_RECORDS:
                    batch.append(self._from_channel.receive_nowait())
                    records += len(batch[-1].records)
            await self._keep_client_fit()
            while batch:
                rounds = self._rounds.value
                for delivery in batch:
                    delivery.busy = True
                complete, refused = await trio.to_thread.run_sync(
                    self._client.hand_over, batch, limiter=self._limiter
                )
                for delivery in batch:
                    delivery.rest()
                for delivery, index, error in refused:
                    delivery.settle(index, error)
                if refused:
                    self._rounds.value += 1
                if complete:
                    break
                # librdkafka's queue is full: nothing more goes in before a report has come out.  All of
                # them may have come while the thread was on its way back.
                await self._rounds.wait_value(functools.partial(operator.ne, rounds))
                batch = [delivery for delivery in batch if delivery.handed < len(delivery.records)]

    async def _collect(self) -> None:
        while True:
            client = self._client
            arrived, alone = await trio.to_thread.run_sync(self._poll, client, limiter=self._limiter)
            self._polled_at = trio.current_time()
            self.statistics = arrived.statistics or self.statistics
            suspects = []
            for count, (delivery, index, report) in enumerate(arrived.reports, 1):
                if not count % REPORTS_A_TURN:
                    # Each may wake a task that writes an answer.  Not to be cancelled between two reports.
                    await trio.lowlevel.cancel_shielded_checkpoint()
                # A broker refuses a batch whole, for one record in it or for its size: each is tried alone.
                if isinstance(report, RecordRefused | TooLarge):
                    suspects.append((delivery, index))
                else:
                    delivery.settle(index, report)
            for delivery, index, report in alone.reports:
                delivery.settle(index, report)
            for error in (*arrived.errors, *alone.errors):
                self._note_error(error)
            if suspects:
                await self._try_alone(suspects)
            if any(error.fatal() for error in arrived.errors) and client is self._client:
                self._failed = True
                await trio.to_thread.run_sync(client.purge, limiter=self._limiter)
            if any(error.fatal() for error in alone.errors):
                self._alone = None  # what it had was reported, or is unknown at its deadline; the next is new
            if arrived.reports or alone.reports:
                self._rounds.value += 1

    def _poll(self, client: KafkaClient) -> tuple[Arrived, Arrived]:
        """Serve the callbacks of both clients; in a thread."""
        alone = self._alone
        if alone is None:
            return client.poll(POLL_SECONDS, flush=self.draining), Arrived([], [])
        seconds = POLL_ALONE_SECONDS if len(alone) else POLL_SECONDS
        return client.poll(seconds, flush=self.draining), alone.poll(0, flush=False)

    async def _try_alone(self, suspects: list[tuple[Delivery, int]]) -> None:
        """Send records again whose batch was refused, each in a batch of its own.

        Nothing of a refused batch was written, so none can be there twice; their order may change.
        """
        if self._alone is None:
            self._alone = await self._open_client({**self._settings, "batch.num.messages": 1})
        again = functools.partial(self._alone.hand_over_again, suspects)
        for delivery, index, error in await trio.to_thread.run_sync(again, limiter=self._limiter):
            delivery.settle(index, error)

    def _note_error(self, error: KafkaError) -> None:
        """What librdkafka says of its connections, several times a second while brokers are down."""
        extra = {"code": error.name(), "error": error.str()}
        self._faults(logging.WARNING, "kafka error", extra, kind=error.name())
        self.topics.doubt()

    async def _sweep(self) -> None:
        withdrawn = Overloaded("Kafka took nothing in time; the record was withdrawn")
        unknown = DeliveryUnknown(
            f"Kafka did not answer within timeouts.answer_seconds = {self._answer_seconds:g}; "
            "the record may have been written"
        )
        async for _ in periodic(SWEEP_SECONDS):
            now = trio.current_time()
            expired = []
            for delivery in self._waiting:
                if delivery.deadline > now:
                    break
                expired.append(delivery)
            for delivery in expired:
                delivery.expire(withdrawn, unknown)
                if not delivery.settled:
                    del self._waiting[delivery]
                    self._late[delivery] = None
            if expired:
                self._rounds.value += 1

    # Replacing the client ---------------------------------------------------------------------------

    async def _keep_client_fit(self) -> None:
        """Replace a client that failed for good, or whose batches are too large for a topic in use.

        An idempotent producer can fail (KIP-360 heals most of that, not all).  librdkafka does not split a
        batch that a broker refuses for its size.
        """
        batch_bytes = max(LEAST_BATCH_BYTES, self.topics.batch_bytes or self._client.batch_bytes)
        if batch_bytes < self._client.batch_bytes:
            log.info("batch size lowered", extra={"batch_bytes": batch_bytes})
            self._settings["batch.size"] = batch_bytes
        elif not self._failed:
            return
        # The old client is emptied first, which keeps the order of records; a failed one was purged.
        with trio.move_on_after(self._answer_seconds):
            while len(self._client):  # which counts events other than reports too
                with trio.move_on_after(POLL_SECONDS):
                    await self._rounds.wait_transition()
        self._client = await self._open_client(self._settings)
        if self._failed:
            self._failed = False
            log.warning("kafka producer replaced")

    async def _open_client(self, settings: Mapping[str, Any]) -> KafkaClient:
        make = functools.partial(KafkaClient, settings, stamps=self._inside)
        return await trio.to_thread.run_sync(make, limiter=self._limiter)

    def _give_up(self) -> None:
        """Report what librdkafka did not report in time as unknown; after every task has ended."""
        unknown = DeliveryUnknown("given up without a report from librdkafka")
        for delivery in [*self._waiting, *self._late]:
            for index, report in enumerate(delivery.reports):
                if report is None:
                    delivery.settle(index, unknown)

    def _purge(self) -> None:
        self._client.purge()
        if self._alone is not None:
            self._alone.purge()

    def _free(self) -> None:
        """Let librdkafka go, which joins its threads; in a thread, after every task has ended."""
        del self._client, self._alone
        self.topics.close()


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
        with trio.CancelScope(shield=True):  # bounded: nothing is queued any more, so the threads end at once
            await trio.to_thread.run_sync(producer._free)
