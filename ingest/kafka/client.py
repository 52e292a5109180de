"""What this service asks of librdkafka: to take records, to report on them, and to give up.

`KafkaClient`'s methods run in worker threads of `ingest.kafka.producer`'s, which sees to it that at most
one hands over and one polls at a time.  Nothing here waits for anything but librdkafka.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Handle

from ingest.errors import BadRequest, ConfigError, IngestError, Overloaded
from ingest.kafka.reports import delivery_error, refusal
from ingest.kafka.statistics import Statistics, read_statistics
from ingest.producer import Delivery
from ingest.records import DeliveryReport, Receipt

BATCH_BYTES = 1_000_000
"""librdkafka's own default of batch.size."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Let librdkafka check its settings.

    Raises `ConfigError` with librdkafka's words, which name the property.
    """
    KafkaClient(settings, stamps=False)


class Arrived(NamedTuple):
    """What one call of `KafkaClient.poll` brought."""

    reports: list[tuple[Delivery, int, DeliveryReport]]
    errors: list[KafkaError]
    """What librdkafka says of its connections, and of itself."""
    statistics: Statistics | None = None
    """The last, once in each statistics.interval.ms."""


class KafkaClient:
    """A librdkafka producer; connects in the background from its making on."""

    def __init__(self, settings: Mapping[str, Any], *, stamps: bool) -> None:
        """`stamps` gives records without a timestamp one of ours, and reports it.

        librdkafka's mock cluster reports 1234 as the time of every record.  Raises `ConfigError` where
        librdkafka refuses a setting.
        """
        self._stamps = stamps
        # All three are written by callbacks, so only while the poll thread polls.
        self._reports: list[tuple[Delivery, int, DeliveryReport]] = []
        self._errors: list[KafkaError] = []
        self._statistics: list[str] = []
        callbacks = {"error_cb": self._errors.append, "stats_cb": self._statistics.append}
        try:
            self._handle = Handle({**settings, **callbacks}, logger=logging.getLogger("ingest.librdkafka"))
        except KafkaException as error:
            raise ConfigError(f"[kafka] {error.args[0].str()}") from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"[kafka] {error}") from None
        self.batch_bytes = int(settings.get("batch.size", BATCH_BYTES))
        """The most bytes of one batch of records."""

    def __len__(self) -> int:
        """Records without a report, and events that nobody has polled yet."""
        return len(self._handle)

    def purge(self) -> None:
        """Give up every record that librdkafka has; `poll` brings a report of each."""
        self._handle.purge()

    def hand_over(self, batch: list[Delivery]) -> tuple[bool, list[tuple[Delivery, int, IngestError]]]:
        """Enqueue what the batch still has.

        Returns whether that was all of it (else librdkafka's queue is full), and which records `produce()`
        refused.
        """
        refused: list[tuple[Delivery, int, IngestError]] = []
        for delivery in batch:
            for index in range(delivery.handed, len(delivery.records)):
                try:
                    error = self._produce(delivery, index)
                except BufferError:
                    return False, refused
                if error is not None:
                    refused.append((delivery, index, error))
                delivery.handed = index + 1
        return True, refused

    def hand_over_again(self, places: list[tuple[Delivery, int]]) -> list[tuple[Delivery, int, IngestError]]:
        """Enqueue single records that were handed over before; which of them were refused."""
        refused: list[tuple[Delivery, int, IngestError]] = []
        for delivery, index in places:
            try:
                error = self._produce(delivery, index)
            except BufferError:
                error = Overloaded("too many records wait to be tried alone")
            if error is not None:
                refused.append((delivery, index, error))
        return refused

    def _produce(self, delivery: Delivery, index: int) -> IngestError | None:
        """Enqueue one record, or say why it was refused.  Raises BufferError where the queue is full."""
        record = delivery.records[index]
        stamp = record.timestamp or 0
        if self._stamps and not stamp:
            stamp = time.time_ns() // 1_000_000
        headers: Any = None  # annotated in a way that no list of ours fits
        try:
            if record.headers:
                headers = list(record.headers)
                # confluent-kafka (2.16) brings the process down for a name that UTF-8 cannot write.
                "".join([name for name, _ in headers]).encode()
            self._handle.produce(
                record.topic,
                record.value,
                record.key,
                -1 if record.partition is None else record.partition,
                functools.partial(self._on_delivery, delivery, index, stamp if self._stamps else None),
                timestamp=stamp,
                headers=headers,
            )
        except KafkaException as error:
            return refusal(error.args[0])
        except (TypeError, ValueError, OverflowError) as error:
            return BadRequest(f"librdkafka refused the record: {error}")
        return None

    def _on_delivery(
        self, delivery: Delivery, index: int, stamp: int | None, error: KafkaError | None, message: Message
    ) -> None:
        report: DeliveryReport
        if error is not None:
            report = delivery_error(error)
        else:
            kind, timestamp = message.timestamp()
            report = Receipt(
                delivery.records[index].topic,
                message.partition() or 0,
                message.offset() or 0,
                stamp if stamp is not None else timestamp if kind else None,
            )
        self._reports.append((delivery, index, report))

    def poll(self, seconds: float, *, flush: bool) -> Arrived:
        """Serve callbacks until some come, at most `seconds`; `flush` does not wait for linger.ms."""
        try:
            if flush and len(self._handle):
                self._handle.flush(seconds)
            else:
                self._handle.poll(seconds)
        except KafkaException as error:
            # A fatal error is raised here, and not given to error_cb.
            self._errors.append(error.args[0])
        statistics = read_statistics(self._statistics[-1]) if self._statistics else None
        arrived = Arrived(self._reports.copy(), self._errors.copy(), statistics)
        self._reports.clear()
        self._errors.clear()
        self._statistics.clear()
        return arrived
