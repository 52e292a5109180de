"""What this service asks of librdkafka: to take records, to report on them, and to give up.

Nothing here waits for anything but librdkafka.  What can wait (`wait`, `purge`, `close`) is called in
worker threads, at most one `wait` at a time and no `collect` meanwhile; the rest, in the Trio thread.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from operator import length_hint
from types import MethodType
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Handle

from ingest.delivery import SOMEWHERE, Delivery
from ingest.errors import BadRequest, DeliveryFailed, IngestError, Overloaded
from ingest.kafka.handles import open_handle
from ingest.kafka.reports import delivery_error, is_of_a_batch, refusal
from ingest.kafka.statistics import Statistics, read_statistics
from ingest.records import Alike, DeliveryReport, Receipt, unwritable

log = logging.getLogger(__name__)

BATCH_BYTES = 1_000_000
"""librdkafka's own default of batch.size."""
TIMEOUT_MS = 300_000
"""librdkafka's own default of message.timeout.ms."""
SCAN_SECONDS = 2.0, 10.0
"""librdkafka looks for records past their timeout about once a second; this is well above, at the least and
at the most."""
POLL_ALONE_SECONDS = 0.005
"""How long a poll waits while records are tried alone, whose reports come through another handle."""
LOST_STATISTICS = 2
"""After so many statistics without a broker a client looks for none any more, as may happen to one that was
told once that there are none: see `ingest.kafka.topics.REOPEN_SECONDS`."""
CLOSE_SECONDS = 0.5
"""How long a client that is let go has to hand out what it purged."""
COPIED_BYTES = 512
"""From which size on a value that librdkafka has copied is let go; letting go costs about as much as it."""
WEIGHT_BYTES = 1024
"""A record counts as one more for each so many bytes, where records of a turn are counted."""
COUNTED_AS_ONE = 16
"""How many records of one delivery that is only counted take as long as one report."""

_COPIED = bytes(bytearray(b"librdkafka has the content"))  # an object that no record of a caller's has


def check_settings(settings: Mapping[str, Any]) -> None:
    """Let librdkafka check its settings.

    Raises `ConfigError` with librdkafka's words, which name the property.
    """
    KafkaClient(settings, stamps=False)


class Arrived(NamedTuple):
    """What one call of `KafkaClient.collect` brought."""

    reports: list[tuple[Delivery, int, DeliveryReport]]
    counted: list[tuple[Delivery, list[int]]]
    """Records of deliveries that are only counted, which Kafka has."""
    errors: list[KafkaError]
    """What librdkafka says of its connections, and of itself."""
    statistics: Statistics | None = None
    """The last, once in each statistics.interval.ms."""


class _Enough(Exception):
    """Raised out of a callback: librdkafka keeps the others for the next poll (`rd_kafka_yield`)."""


_ENOUGH = _Enough()
"""The only one, and without a traceback: confluent-kafka (2.16) never lets go of what a callback raised."""


class KafkaClient:
    """A librdkafka producer, and a second one once records have to be tried alone.

    Both connect in the background from their making on.
    """

    def __init__(self, settings: Mapping[str, Any], *, stamps: bool) -> None:
        """`stamps` gives records without a timestamp one of ours, and reports it.

        librdkafka's mock cluster reports 1234 as the time of every record.  Raises `ConfigError` where
        librdkafka refuses a setting.
        """
        self.taken = 0
        """How many records were handed to librdkafka."""
        self.reported = 0
        """How many of them have had their report."""
        self.failure: str | None = None
        """Why it can do no more, for good."""
        self.given_up = False
        """Whether nobody waits for this client any more: it takes no further record, and reports are
        dropped.  A thread that is stuck in it may come back long after that."""
        self._stamps = stamps
        self._settings = settings
        self._closed = False
        self._room = 0
        """After how many more reports the callback is to stop librdkafka; 0 is never."""
        # All of these are written by callbacks, so only while `wait` or `collect` runs.
        self._reports: list[tuple[Delivery, int, DeliveryReport]] = []
        self._counted: list[tuple[Delivery, list[int]]] = []
        self._suspects: list[tuple[Delivery, int]] = []
        self._errors: list[KafkaError] = []
        self._statistics: list[str] = []
        self._lost = 0  # how many statistics one after the other had no broker
        self._handle = open_handle({**settings, "stats_cb": self._statistics.append}, self._errors.append)
        self._alone: Handle | None = None  # the same with batches of one record
        self.batch_bytes = int(settings.get("batch.size", BATCH_BYTES))
        """The most bytes of one batch of records."""
        timeout_seconds = int(settings.get("message.timeout.ms", TIMEOUT_MS)) / 1000
        least, most = SCAN_SECONDS
        self.quiet_seconds = timeout_seconds + max(least, min(timeout_seconds, most))
        """After how long without a report, of whatever kind, something is wrong with librdkafka itself."""

    @property
    def pending(self) -> int:
        """How many records librdkafka has that have no report."""
        return self.taken - self.reported

    def purge(self) -> None:
        """Give up every record that librdkafka has; `collect` brings a report of each."""
        for handle in (self._handle, self._alone):
            if handle is not None:
                handle.purge(blocking=False)  # it could wait for a thread of librdkafka's that is stuck

    def close(self) -> None:
        """Let librdkafka go, which joins its threads.  What it still has is given up without a report."""
        if self._closed:
            return
        self._closed = self.given_up = True
        self.purge()
        for handle in (self._handle, self._alone):
            if handle is not None:
                # What librdkafka drops without a callback would keep its deliveries in memory.
                with contextlib.suppress(Exception):
                    handle.flush(CLOSE_SECONDS)
        del self._handle, self._alone

    def hand_over(
        self, batch: list[Delivery], refused: list[tuple[Delivery, int, IngestError]], most: int
    ) -> bool:
        """Enqueue up to `most` records; False where librdkafka takes none now, or none any more.

        A large record counts as one more for each `WEIGHT_BYTES` of it.  `produce` holds the interpreter's
        lock from its beginning to its end, so a thread for it would serve nobody.  Records that are refused
        are noted in `refused`.
        """
        if self.given_up:
            return False
        for delivery in batch:
            records = delivery.records
            if delivery.counted and type(records) is Alike and records.plain and not self._stamps:
                begun, weight = delivery.handed, 1 + records.longest // WEIGHT_BYTES
                if not self._hand_over_plain(delivery, records, -(-most // weight)):
                    return False
                most -= weight * (delivery.handed - begun)
            for index in range(delivery.handed, len(records)):
                if most <= 0:
                    return True
                value = records[index].value
                most -= 1 if value is None else 1 + len(value) // WEIGHT_BYTES
                if not self.hand_over_next(delivery, refused):
                    return False
        return True

    def hand_over_next(self, delivery: Delivery, refused: list[tuple[Delivery, int, IngestError]]) -> bool:
        """Enqueue the first record of `delivery` that was not handed over, as `hand_over` does."""
        index = delivery.handed
        try:
            error = self._produce(self._handle, delivery, index)
        except BufferError:
            return False
        except Exception as crash:  # noqa: BLE001  # logged; raised, its traceback would keep the handle
            self._crash("taking a record", crash)
            delivery.handed = index + 1  # whether it was taken is not known
            return False
        if error is None:
            self.taken += 1
        else:
            refused.append((delivery, index, error))
        delivery.handed = index + 1
        return True

    def _hand_over_plain(self, delivery: Delivery, records: Alike, most: int) -> bool:
        """What `_produce` comes to for lines that are only counted, in a third of the time.

        Ends at a record that librdkafka does not take for a reason of its own: `_produce` knows what that
        means.  False where librdkafka takes none now.
        """
        begun = delivery.handed
        end = handed = min(begun + max(most, 0), len(records))
        keys: Iterable[bytes | None] = (
            itertools.repeat(records.like.key) if records.keys is None else records.keys[begun:end]
        )
        values = records.values[begun:end]
        # Let go of before they are taken, as in `_produce`.
        records.values[begun:end] = [_COPIED] * (end - begun)
        topics, anywhere = itertools.repeat(delivery.topic), itertools.repeat(-1)
        indexes = iter(range(begun, end))
        # A bound method is the cheapest thing that remembers an index.
        reports = map(MethodType, itertools.repeat(self._counter(delivery)), indexes)
        try:
            deque(map(self._handle.produce, topics, values, keys, anywhere, reports), 0)
        except Exception as error:  # noqa: BLE001  # what is unforeseen is logged
            handed = end - length_hint(indexes) - 1  # the one that was not taken
            if isinstance(error, (KafkaException, TypeError, ValueError, OverflowError)):
                return True
            if not isinstance(error, BufferError):
                self._crash("taking a record", error)
                handed += 1  # whether it was taken is not known
            return False
        finally:
            records.values[handed:end] = values[handed - begun :]
            self.taken += handed - begun
            delivery.handed = handed
        return True

    def _counter(self, delivery: Delivery) -> Callable[[int, KafkaError | None, Message], None]:
        """`_on_delivery` in less time, for records of which nobody asks where they are."""
        indexes: list[int] = []
        count, begin = indexes.append, self._counted.append

        def report(index: int, error: KafkaError | None, message: Message) -> None:
            if error is None:
                if not indexes:
                    begin((delivery, indexes))
                count(index)
                if not index % COUNTED_AS_ONE:
                    self._room -= 1
                    if not self._room:
                        raise _ENOUGH.with_traceback(None)
            else:
                self._on_delivery(delivery, index, None, error, message)

        return report

    def _produce(self, handle: Handle, delivery: Delivery, index: int) -> IngestError | None:
        """Enqueue one record, or say why it was refused.  Raises BufferError where it takes none now."""
        record = delivery.records[index]
        if record.value is _COPIED:
            return DeliveryFailed("the record cannot be tried again: its content is gone")
        if (record.headers or record.timestamp == 0) and (refused := unwritable(record)) is not None:
            return refused
        stamp = record.timestamp or 0
        if self._stamps and not stamp:
            stamp = time.time_ns() // 1_000_000
        # librdkafka copies the content, and the budget is charged for one: ours goes.  Before and not after
        # `produce`, whose report a thread may have by then.
        if record.value is not None and len(record.value) >= COPIED_BYTES:
            delivery.records[index] = msgspec.structs.replace(record, value=_COPIED)
        report = functools.partial(self._on_delivery, delivery, index, stamp if self._stamps else None)
        if handle is not self._handle:
            report = functools.partial(report, final=True)
        partition = -1 if record.partition is None else record.partition
        try:
            if not record.headers and not stamp:
                handle.produce(record.topic, record.value, record.key, partition, report)
            else:
                headers: Any = list(record.headers)  # annotated in a way that no list of ours fits
                # confluent-kafka (2.16) brings the process down for a name that UTF-8 cannot write.
                "".join([name for name, _ in headers]).encode()
                handle.produce(
                    record.topic,
                    record.value,
                    record.key,
                    partition,
                    report,
                    timestamp=stamp,
                    headers=headers or None,
                )
        except BufferError:
            delivery.records[index] = record
            raise
        except KafkaException as error:
            if error.args[0].code() == KafkaError._FATAL:
                # Polling says so too; what was not handed over waits for the next client.
                delivery.records[index] = record
                raise BufferError from None
            return refusal(error.args[0])
        except (TypeError, ValueError, OverflowError) as error:
            return BadRequest(f"librdkafka refused the record: {error}")
        return None

    def _on_delivery(
        self,
        delivery: Delivery,
        index: int,
        stamp: int | None,
        error: KafkaError | None,
        message: Message,
        *,
        final: bool = False,
    ) -> None:
        report: DeliveryReport
        if error is None and delivery.counted:
            report = SOMEWHERE
        elif error is None:
            kind, timestamp = message.timestamp()
            report = Receipt(
                delivery.topic,
                message.partition() or 0,
                message.offset() or 0,
                stamp if stamp is not None else timestamp if kind else None,
            )
        elif not final and is_of_a_batch(error) and not self.given_up:
            # A broker refuses a batch whole, for one record in it or for its size: each is tried alone.
            record = delivery.records[index]
            if record.value is _COPIED:
                value: Any = message.value()
                delivery.records[index] = msgspec.structs.replace(record, value=value)
            self._suspects.append((delivery, index))
            return
        else:
            report = delivery_error(error)
        self.reported += 1
        self._reports.append((delivery, index, report))
        self._room -= 1
        if not self._room:
            raise _ENOUGH.with_traceback(None)

    def wait(self, seconds: float, *, flush: bool) -> None:
        """Wait until there is a report to `collect`, at most `seconds`; `flush` does not wait for linger.ms.

        No more than one callback is served here: for each, this thread and the Trio thread would have to
        change places.
        """
        if self._alone is not None and len(self._alone):
            seconds = min(seconds, POLL_ALONE_SECONDS)
        if flush and len(self._handle):
            self._serve(self._handle.flush, seconds, 1)
        else:
            self._serve(self._handle.poll, seconds, 1)

    def collect(self, most: int) -> Arrived:
        """What has arrived, at most about `most` reports; does not wait."""
        for handle in (self._handle, self._alone):
            if handle is not None:
                self._serve(handle.poll, 0, most)
        if self._suspects and not self.given_up:
            self._try_alone()
        for note in self._errors:
            if note.fatal() and self.failure is None:
                self.failure = f"it failed for good: {note.str()}"
        statistics = read_statistics(self._statistics[-1]) if self._statistics else None
        if statistics is not None:
            self._lost = 0 if statistics.brokers else self._lost + 1
            if self._lost == LOST_STATISTICS and self.failure is None:
                self.failure = "it knows no broker any more"
        counted = [(delivery, indexes.copy()) for delivery, indexes in self._counted]
        for _, indexes in self._counted:
            self.reported += len(indexes)
            indexes.clear()
        arrived = Arrived(self._reports.copy(), counted, self._errors.copy(), statistics)
        self._reports.clear()
        self._counted.clear()
        self._errors.clear()
        self._statistics.clear()
        return arrived

    def _serve(self, serve: Callable[[float], int], seconds: float, most: int) -> None:
        """Let librdkafka call back, about `most` times."""
        self._room = most
        try:
            serve(seconds)
        except _Enough as enough:
            enough.__traceback__ = None
        except KafkaException as error:
            # A fatal error is raised here, and not given to error_cb.
            self._errors.append(error.args[0])
        except Exception as crash:  # noqa: BLE001  # logged; out of a callback, whose report is lost
            self._crash("polling", crash)
        finally:
            self._room = 0

    def _crash(self, doing: str, crash: Exception) -> None:
        if self.failure is None:
            self.failure = f"{doing} failed: {crash!r}"
            log.error("kafka client crashed", exc_info=crash)

    def _try_alone(self) -> None:
        """Send records again whose batch was refused, each in a batch of its own.

        Nothing of a refused batch was written, so none can be there twice; their order may change.
        """
        if self._alone is None:
            self._alone = open_handle({**self._settings, "batch.num.messages": 1}, self._errors.append)
        suspects = self._suspects.copy()
        self._suspects.clear()
        for delivery, index in suspects:
            try:
                error = self._produce(self._alone, delivery, index)
            except BufferError:
                error = Overloaded("its batch was refused, and it cannot be tried alone now")
            if error is not None:
                self.reported += 1
                self._reports.append((delivery, index, error))
