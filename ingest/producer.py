"""What takes records: the `Producer` protocol.

Nothing here knows which sink it is, nor HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ingest.budget import Hold
from ingest.delivery import Delivery, Ledger
from ingest.errors import Draining, IngestError, Overloaded, TooLarge
from ingest.records import DeliveryReport, Record


class Topic(NamedTuple):
    """What is known of a topic."""

    leaders: tuple[int, ...]
    """The broker that leads each partition, by number; -1 where none does."""
    replicas: int
    """Of its first partition."""


class Cluster(NamedTuple):
    """What is known of a cluster."""

    id: str
    topics: Mapping[str, Topic]
    """All of them, internal ones too."""
    record_bytes: Mapping[str, int]
    """The most bytes of a record, for topics that are in use."""


class Producer(Protocol):
    """Takes records and reports on each of them.

    `ingest.kafka.producer.KafkaProducer` is the one of the service; `ingest.testing` has others; an
    embedding program can bring its own.  One contract test runs over all of them.
    """

    ledger: Ledger

    @property
    def full(self) -> bool:
        """Whether `submit` would have to wait."""

    @property
    def trouble(self) -> str | None:
        """Why records cannot be expected to be delivered now, in words for an operator; None if they can."""

    async def cluster(self, *, doubted: bool = False) -> Cluster:
        """What is known of the cluster, without asking it; waits only while nothing is known yet.

        `doubted` says that this may be out of date, so that it is asked soon.  Raises `Overloaded` (it does
        not say in time what it has) or `KafkaUnavailable`.
        """

    async def require_topic(self, name: str) -> int:
        """The most bytes a record for this topic may have (value, key and headers).

        Raises `BadRequest`, `TopicDenied`, `UnknownTopic`, `Overloaded` (nothing is known of the
        cluster yet) or `KafkaUnavailable`.
        """

    async def submit(
        self,
        records: Sequence[Record],
        *,
        hold: Hold | None = None,
        wait_seconds: float = math.inf,
        deadline: float = math.inf,
    ) -> Delivery:
        """Take records of one topic in, which was required before; their reports come through the `Delivery`.

        The producer owns `hold` from the call on, whatever becomes of it.  Waits while full, at most
        `wait_seconds`: that wait is the backpressure.  `deadline`, on Trio's clock, is when their answer is
        due: neither this wait nor the delivery's goes beyond it, nor beyond a deadline of the producer's own.

        Raises `Overloaded` or `Draining`; then nothing was taken.  Cancelled: nothing was taken.
        """

    async def send(self, records: Sequence[Record]) -> Sequence[DeliveryReport]:
        """One report for each record, in order.  Waits while full: that wait is the backpressure.

        Failed records are reports, not exceptions.  Cancelled: the outcome is unknown.
        """

    async def drain(self, deadline: float) -> None:
        """Take nothing new, and return when every record has its report.

        At `deadline` (Trio's clock) what is left is given up, and reported as unknown.
        """


async def send(producer: Producer, records: Sequence[Record]) -> Sequence[DeliveryReport]:
    """`Producer.send` in terms of the other methods: looks up topics, submits topic by topic, waits."""
    limits: dict[str, int | IngestError] = {}
    for topic in dict.fromkeys(record.topic for record in records):
        try:
            limits[topic] = await producer.require_topic(topic)
        except IngestError as error:
            limits[topic] = error
    reports: dict[int, DeliveryReport] = {}
    places: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        refusal = _refusal(record, limits[record.topic])
        if refusal is None:
            places.setdefault(record.topic, []).append(index)
        else:
            reports[index] = refusal
    deliveries: list[tuple[Delivery, list[int]]] = []
    try:
        for indexes in places.values():
            try:
                delivery = await producer.submit([records[index] for index in indexes])
            except IngestError as error:
                reports |= dict.fromkeys(indexes, error)
            else:
                deliveries.append((delivery, indexes))
        for delivery, indexes in deliveries:
            reports |= zip(indexes, await delivery.wait(), strict=True)
    except BaseException:
        for delivery, _ in deliveries:
            delivery.withdraw(Overloaded("withdrawn: the caller has gone"))
        raise
    return [reports[index] for index in range(len(records))]


def _refusal(record: Record, limit: int | IngestError) -> IngestError | None:
    if isinstance(limit, IngestError):
        return limit
    if record.size() > limit:
        return TooLarge(
            f"the record has {record.size()} bytes with key and headers; {limit} is the most here"
        )
    return None


def draining() -> Draining:
    """What `submit` raises once a producer drains."""
    return Draining("the service is draining and takes nothing new; send again elsewhere or later")
