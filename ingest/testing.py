"""Producers without Kafka, for tests of programs that embed `ingest`, and for its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio

from ingest import producer as seam
from ingest.budget import Hold
from ingest.delivery import Delivery, Ledger
from ingest.errors import DeliveryUnknown, IngestError, Overloaded, UnknownTopic
from ingest.kafka.topics import check_name
from ingest.producer import Cluster, Topic
from ingest.records import DeliveryReport, Receipt, Record, unwritable


class MemoryProducer:
    """Keeps every record in memory and reports it delivered at once.

    Topics are made by writing to them, with one partition, unless `topics` names the only ones.
    """

    def __init__(self, *, topics: Sequence[str] | None = None, record_bytes: int = 1_000_000) -> None:
        self.records: list[Record] = []
        """What was delivered, in order."""
        self.ledger = Ledger()
        self.trouble: str | None = None
        """See `ingest.producer.Producer.trouble`; to be set by a test."""
        self._topics = None if topics is None else frozenset(topics)
        self._record_bytes = record_bytes
        self._offsets: dict[tuple[str, int], int] = {}
        self._draining = False

    @property
    def full(self) -> bool:
        """Never: memory has room."""
        return False

    async def cluster(self, *, doubted: bool = False) -> Cluster:
        """See `ingest.producer.Producer.cluster`: the topics that are named, or else were written."""
        names = {record.topic for record in self.records} if self._topics is None else self._topics
        return Cluster(
            "memory", dict.fromkeys(names, Topic((0,), 1)), dict.fromkeys(names, self._record_bytes)
        )

    async def require_topic(self, name: str) -> int:
        """See `ingest.producer.Producer.require_topic`."""
        check_name(name)
        if self._topics is not None and name not in self._topics:
            raise UnknownTopic(f"topic {name} does not exist")
        return self._record_bytes

    async def submit(
        self,
        records: Sequence[Record],
        *,
        hold: Hold | None = None,
        wait_seconds: float = math.inf,
        deadline: float = math.inf,
    ) -> Delivery:
        """See `ingest.producer.Producer.submit`."""
        if self._draining:
            if hold is not None:
                hold.release()
            raise seam.draining()
        delivery = Delivery(records, hold=hold, ledger=self.ledger)
        self.ledger.accepted += len(records)
        self._deliver(delivery)
        return delivery

    def _deliver(self, delivery: Delivery) -> None:
        delivery.handed = len(delivery.records)
        for index, record in enumerate(delivery.records):
            delivery.settle(index, self._report(record))

    def _report(self, record: Record) -> DeliveryReport:
        if (refused := unwritable(record)) is not None:
            return refused
        where = (record.topic, record.partition or 0)
        offset = self._offsets.get(where, 0)
        self._offsets[where] = offset + 1
        self.records.append(record)
        return Receipt(*where, offset, record.timestamp)

    async def send(self, records: Sequence[Record]) -> Sequence[DeliveryReport]:
        """See `ingest.producer.Producer.send`."""
        return await seam.send(self, records)

    async def drain(self, deadline: float) -> None:
        """See `ingest.producer.Producer.drain`; nothing is ever pending here."""
        self._draining = True


class FailingProducer(MemoryProducer):
    """Reports `error` for every record."""

    def __init__(self, error: IngestError) -> None:
        super().__init__()
        self._error = error

    def _report(self, record: Record) -> DeliveryReport:
        return self._error


class _StalledDelivery(Delivery):
    """Answers at its deadline by itself, where KafkaProducer has a task that sweeps."""

    __slots__ = ()

    async def wait(self) -> list[DeliveryReport]:
        with trio.move_on_at(self.deadline):
            return await super().wait()
        unknown = DeliveryUnknown("the stalled producer gave no report in time")
        return [unknown if report is None else report for report in self.reports]


class StallingProducer(MemoryProducer):
    """Takes records and reports nothing until `release`, as a Kafka that does not answer.

    `accepts` records are let in, and count as handed over; further `submit` calls wait for `release`.
    """

    def __init__(self, *, accepts: float = math.inf, answer_seconds: float = 10.0) -> None:
        super().__init__()
        self._room = accepts
        self._answer_seconds = answer_seconds
        self._stalled: list[Delivery] = []
        self._released = trio.Event()
        self._moves = trio.Event()  # released, or draining

    @property
    def full(self) -> bool:
        """Whether no more records are let in."""
        return self._room <= 0 and not self._released.is_set()

    @property
    def pending(self) -> int:
        """Records that were let in and have no report."""
        return self.ledger.pending

    async def submit(
        self,
        records: Sequence[Record],
        *,
        hold: Hold | None = None,
        wait_seconds: float = math.inf,
        deadline: float = math.inf,
    ) -> Delivery:
        """See `ingest.producer.Producer.submit`."""
        if self._released.is_set() or self._draining:
            return await super().submit(records, hold=hold)
        deadline = min(deadline, trio.current_time() + self._answer_seconds)
        if self.full:
            try:
                with trio.fail_at(min(deadline, trio.current_time() + wait_seconds)):
                    await self._moves.wait()
            except BaseException as error:
                if hold is not None:
                    hold.release()
                if isinstance(error, trio.TooSlowError):
                    raise Overloaded("the producer is full") from None
                raise
            return await super().submit(records, hold=hold)
        delivery = _StalledDelivery(records, hold=hold, ledger=self.ledger, deadline=deadline)
        self.ledger.accepted += len(records)
        delivery.handed = len(records)
        self._room -= len(records)
        self._stalled.append(delivery)
        return delivery

    async def send(self, records: Sequence[Record]) -> Sequence[DeliveryReport]:
        """See `ingest.producer.Producer.send`."""
        return await seam.send(self, records)

    def release(self) -> None:
        """Deliver everything that was let in, and from now on everything at once."""
        self._released.set()
        self._moves.set()
        stalled, self._stalled = self._stalled, []
        for delivery in stalled:
            if not delivery.settled:
                self._deliver(delivery)

    async def drain(self, deadline: float) -> None:
        """See `ingest.producer.Producer.drain`."""
        self._draining = True
        self._moves.set()
        if not self.ledger.pending:
            return
        with trio.move_on_at(deadline):
            await self._released.wait()
        unknown = DeliveryUnknown("the producer was released too late")
        for delivery in self._stalled:
            for index, report in enumerate(delivery.reports):
                if report is None:
                    delivery.settle(index, unknown)
        self._stalled.clear()
