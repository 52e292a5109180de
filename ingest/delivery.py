"""One request's records on their way (`Delivery`), and what became of all of them (`Ledger`).

Nothing here knows which sink they are on their way to, nor HTTP.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from ingest import parking
from ingest.budget import Hold
from ingest.errors import DeliveryUnknown, IngestError, Outcome, Overloaded
from ingest.faultlog import FaultLog
from ingest.metrics import MOST_TOPICS, OTHER, Histogram, TopicCounts
from ingest.records import Alike, DeliveryReport, Receipt, Record

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Ledger:
    """What became of the records that were let into a producer.

    Once nothing is pending, `accepted` is the sum of the next three.
    """

    accepted: int = 0
    delivered: int = 0
    failed: int = 0
    """Definitely not written."""
    unknown: int = 0
    """Perhaps written, and no report will come any more."""
    left_unknown: int = field(default=0, compare=False)
    """Of `unknown`: those that became so since `close`, without a caller who had been told before."""
    lost: int = 0
    """Answered 202 and then not acknowledged by Kafka; these are among `failed` and `unknown` too."""

    closing: bool = field(default=False, compare=False, repr=False)
    """Whether the service drains, whose end tells of `left_unknown`."""
    topics: dict[str, TopicCounts] = field(default_factory=dict, compare=False, repr=False)
    """The same by topic; from the hundredth on, topics share one."""
    delivery_seconds: Histogram = field(default_factory=Histogram, compare=False, repr=False)
    """How long deliveries took; kept by the service's own producer."""
    _faults: FaultLog = field(default_factory=lambda: FaultLog(log), compare=False, repr=False)

    def topic(self, name: str) -> TopicCounts:
        """The counts of a topic."""
        counts = self.topics.get(name)
        if counts is None:
            if len(self.topics) >= MOST_TOPICS:
                name = OTHER
            counts = self.topics.setdefault(name, TopicCounts())
        return counts

    def lose(self, topic: str, error: IngestError) -> None:
        """Count a record that was answered from memory and not acknowledged, and say so."""
        self.lost += 1
        extra = {"topic": topic, "error": error.message, "outcome": error.outcome.value, "lost": self.lost}
        self._faults(logging.ERROR, "queued record was not acknowledged", extra)

    def close(self) -> None:
        """The service drains from now on: begin to count `left_unknown`."""
        self.closing = True
        self.left_unknown = 0

    @property
    def sums(self) -> dict[str, int]:
        """`accepted` and what it is the sum of, by name."""
        return {
            "accepted": self.accepted,
            "delivered": self.delivered,
            "failed": self.failed,
            "unknown": self.unknown,
        }

    @property
    def pending(self) -> int:
        """Records accepted that have no final report yet."""
        return self.accepted - self.delivered - self.failed - self.unknown


class Delivery:
    """The records of one `submit` and their reports as they come in.

    Two things end apart: the wait for an answer, which has a deadline, and the records' own way, which
    ends with a report of the sink.  The hold is released by the second, so that what librdkafka still
    has stays on the budget after its request was answered 504.
    """

    __slots__ = (
        "_answer",
        "_counts",
        "_hold",
        "_ledger",
        "_on_settled",
        "_pending",
        "_queued",
        "_told",
        "_wake",
        "begun",
        "context",
        "counted",
        "deadline",
        "handed",
        "records",
        "reports",
        "topic",
    )

    def __init__(
        self,
        records: Sequence[Record],
        *,
        ledger: Ledger,
        hold: Hold | None = None,
        deadline: float = math.inf,
        on_settled: Callable[[Delivery], None] | None = None,
    ) -> None:
        self.records: list[Record] | Alike = records if type(records) is Alike else list(records)
        """Ours alone, and changed only in place: what the sink has copied is let go of."""
        count = len(records)
        self.reports: list[DeliveryReport | None] = [None] * count
        self.deadline = deadline
        """On Trio's clock: when the answer is due."""
        self.begun = -math.inf
        """On Trio's clock: when the producer took it in, where that is of interest."""
        self.counted = False
        """Whether its records are only counted: a sink may report `SOMEWHERE` for each that Kafka has."""
        self.context: Any = None
        """Whatever its caller wants to find again."""
        self.handed = 0
        """How many records, from the first, were handed to the sink; what lies behind can be withdrawn."""
        self._pending = count
        self.topic = records[0].topic if count else ""
        """Of all its records."""
        self._ledger = ledger
        self._counts = ledger.topic(self.topic) if count else _NO_COUNTS
        self._hold = hold
        self._on_settled = on_settled
        self._answer: IngestError | None = None
        self._queued = False
        self._told = False  # by an answer at the deadline, before the drain
        self._wake: Callable[[], None] | None = None
        if not count:
            self._finish()

    @property
    def settled(self) -> bool:
        """Whether every record has its final report."""
        return not self._pending

    def promise_no_more(self) -> None:
        """The caller was told 202: from now on a record that is not delivered counts as lost."""
        self._queued = True
        if self._pending < len(self.reports):
            for report in self.reports:  # of withdrawn records too, which are no longer in `records`
                if isinstance(report, IngestError):
                    self._ledger.lose(self.topic, report)

    def settle(self, index: int, report: DeliveryReport) -> None:
        """Take the final report of the record at `index`; exactly one a record."""
        self.reports[index] = report
        ledger = self._ledger
        if isinstance(report, Receipt):
            ledger.delivered += 1
            self._counts.delivered += 1
        else:
            if report.outcome is Outcome.UNKNOWN:
                ledger.unknown += 1
                self._counts.unknown += 1
                if ledger.closing and not self._told:
                    ledger.left_unknown += 1
            else:
                ledger.failed += 1
                self._counts.failed += 1
            if self._queued:
                ledger.lose(self.topic, report)
        self._pending -= 1
        if not self._pending:
            self._finish()

    def acknowledge(self, indexes: Sequence[int]) -> None:
        """Kafka has these records, somewhere in their topic; as `settle` with `SOMEWHERE` for each."""
        reports = self.reports
        count = len(indexes)
        first, last = min(indexes), max(indexes)
        if last - first + 1 == count:  # none of them is there twice, so they are all in between
            reports[first : last + 1] = [SOMEWHERE] * count
        else:
            for index in indexes:
                reports[index] = SOMEWHERE
        self._ledger.delivered += count
        self._counts.delivered += count
        self._pending -= count
        if not self._pending:
            self._finish()

    def withdraw(self, error: IngestError) -> None:
        """Take back what was not handed over yet; these records are reported as `error`, not written."""
        if self.handed < len(self.records):
            first, end = self.handed, len(self.records)
            # Their bytes leave the budget now, and a channel may keep this delivery for a while.
            del self.records[first:]
            for index in range(first, end):
                self.settle(index, error)

    def expire(self, withdrawn: IngestError, unknown: IngestError) -> None:
        """The deadline has come: withdraw what can be, and let the rest be answered as `unknown`."""
        self.withdraw(withdrawn)
        if self._pending:
            self._answer = unknown
            self._told = not (self._ledger.closing or self._queued)
            self._answered()

    async def wait(self) -> list[DeliveryReport]:
        """One report for each record, in order, once all have one or the deadline has come.

        Cancelled: what was not handed over yet is withdrawn; the outcome of the rest is unknown.
        """
        if self._pending and self._answer is None:
            place = parking.current()
            if place is not None:
                self._wake = place.go_on
                try:
                    await parking.park()
                except BaseException:
                    self.forget()
                    raise
            else:
                self._wake = functools.partial(trio.lowlevel.reschedule, trio.lowlevel.current_task())
                await trio.lowlevel.wait_task_rescheduled(self._give_up)
        return self.answers()

    def then(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called once there is an answer; False, and never, where there is one already."""
        if not self._pending or self._answer is not None:
            return False
        self._wake = wake
        return True

    def answers(self) -> list[DeliveryReport]:
        """What `wait` returns, once there is an answer."""
        reports = self.reports
        if None not in reports:
            return reports  # type: ignore[return-value]  # there is no None
        return [self._answer or _NO_REPORT if report is None else report for report in reports]

    def _finish(self) -> None:
        if self._hold is not None:
            self._hold.release()
        if self._on_settled is not None:
            self._on_settled(self)
        self._answered()

    def _answered(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def forget(self) -> None:
        """Nobody waits any more: take back what was not handed over yet."""
        self._wake = None
        self.withdraw(Overloaded("withdrawn: the caller has gone"))

    def _give_up(self, _: object = None) -> trio.lowlevel.Abort:
        self.forget()
        return trio.lowlevel.Abort.SUCCEEDED


SOMEWHERE = Receipt("", -1, -1, None)
"""The receipt of a record of which nobody asks where it is."""
_NO_COUNTS = TopicCounts()
_NO_REPORT = DeliveryUnknown("no report came; the record may have been written")
