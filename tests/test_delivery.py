from __future__ import annotations

import pytest
import trio
import trio.testing

from ingest.budget import Budget
from ingest.delivery import Delivery, Ledger
from ingest.errors import DeliveryUnknown, IngestError, Overloaded, RecordRefused, TooLarge, UnknownTopic
from ingest.producer import send
from ingest.records import DeliveryReport, Receipt, Record
from ingest.testing import MemoryProducer

WITHDRAWN = Overloaded("withdrawn")
UNKNOWN = DeliveryUnknown("no report in time")
REFUSED = RecordRefused("refused")


def receipt(offset: int) -> Receipt:
    return Receipt("t", 0, offset, None)


def records(count: int) -> list[Record]:
    return [Record("t", b"%d" % number) for number in range(count)]


class Sink:
    """Hands records over by hand."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.settled: list[Delivery] = []

    def take(self, count: int, handed: int = 0) -> Delivery:
        delivery = Delivery(records(count), ledger=self.ledger, on_settled=self.settled.append)
        self.ledger.accepted += count
        delivery.handed = handed
        return delivery

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Accepted, delivered, failed, unknown, lost."""
        ledger = self.ledger
        return ledger.accepted, ledger.delivered, ledger.failed, ledger.unknown, ledger.lost


@pytest.fixture
def sink() -> Sink:
    return Sink()


async def test_reports_come_in_the_order_of_the_records(sink: Sink) -> None:
    delivery = sink.take(3, handed=3)
    delivery.settle(2, receipt(2))
    delivery.settle(0, REFUSED)
    assert not delivery.settled
    assert sink.ledger.pending == 1
    delivery.settle(1, receipt(1))
    assert await delivery.wait() == [REFUSED, receipt(1), receipt(2)]
    assert sink.counts == (3, 2, 1, 0, 0)
    assert sink.settled == [delivery]


async def test_a_waiting_task_wakes_with_the_last_report(sink: Sink) -> None:
    delivery = sink.take(2, handed=2)
    got: list[list[DeliveryReport]] = []

    async def wait() -> None:
        got.append(await delivery.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        delivery.settle(0, receipt(0))
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        delivery.settle(1, receipt(1))
    assert got == [[receipt(0), receipt(1)]]


async def test_no_records_have_no_reports_and_hold_nothing(sink: Sink) -> None:
    budget = Budget(100)
    delivery = Delivery((), ledger=sink.ledger, hold=await budget.acquire(10), on_settled=sink.settled.append)
    assert delivery.settled
    assert await delivery.wait() == []
    assert budget.held_bytes == 0
    assert sink.settled == [delivery]


async def test_the_hold_is_released_with_the_last_report_and_not_before(sink: Sink) -> None:
    budget = Budget(100)
    delivery = Delivery(records(2), ledger=sink.ledger, hold=await budget.acquire(10))
    delivery.handed = 2
    delivery.settle(1, receipt(0))
    delivery.expire(WITHDRAWN, UNKNOWN)
    assert await delivery.wait() == [UNKNOWN, receipt(0)]
    assert budget.held_bytes == 10  # answered, but the sink still has a record
    delivery.settle(0, receipt(1))
    assert budget.held_bytes == 0


async def test_the_deadline_withdraws_what_waits_and_leaves_the_rest_unknown(sink: Sink) -> None:
    delivery = sink.take(4, handed=2)
    delivery.settle(0, receipt(0))
    delivery.expire(WITHDRAWN, UNKNOWN)
    assert await delivery.wait() == [receipt(0), UNKNOWN, WITHDRAWN, WITHDRAWN]
    assert sink.counts == (4, 1, 2, 0, 0)
    assert sink.ledger.pending == 1  # its own report can still come
    delivery.settle(1, receipt(1))
    assert sink.counts == (4, 2, 2, 0, 0)


async def test_what_waits_whole_is_withdrawn_whole(sink: Sink) -> None:
    delivery = sink.take(2)
    delivery.expire(WITHDRAWN, UNKNOWN)
    assert delivery.settled
    assert await delivery.wait() == [WITHDRAWN, WITHDRAWN]


async def test_withdrawing_twice_reports_once(sink: Sink) -> None:
    delivery = sink.take(2, handed=1)
    delivery.withdraw(WITHDRAWN)
    delivery.withdraw(REFUSED)
    assert sink.counts == (2, 0, 1, 0, 0)


async def test_withdrawn_records_are_let_go_of(sink: Sink) -> None:
    delivery = sink.take(3, handed=1)
    delivery.withdraw(WITHDRAWN)
    # The hold is back, so a channel that still has the delivery may not keep their bytes.
    assert list(delivery.records) == records(1)


async def test_a_cancelled_caller_withdraws_what_was_not_handed_over(sink: Sink) -> None:
    delivery = sink.take(3, handed=1)
    with trio.move_on_after(0) as scope:
        await delivery.wait()
    assert scope.cancelled_caught
    assert sink.counts == (3, 0, 2, 0, 0)
    delivery.settle(0, receipt(0))  # a report that comes later is still counted
    assert sink.counts == (3, 1, 2, 0, 0)


async def test_a_report_after_the_answer_changes_the_ledger_alone(sink: Sink) -> None:
    delivery = sink.take(1, handed=1)
    delivery.expire(WITHDRAWN, UNKNOWN)
    assert await delivery.wait() == [UNKNOWN]
    assert sink.counts == (1, 0, 0, 0, 0)
    delivery.settle(0, receipt(0))
    assert sink.counts == (1, 1, 0, 0, 0)


@pytest.mark.parametrize("before", [True, False])
async def test_a_record_answered_202_and_not_delivered_is_lost(sink: Sink, before: bool) -> None:
    delivery = sink.take(4, handed=3)
    if before:
        delivery.settle(0, REFUSED)
        delivery.withdraw(WITHDRAWN)
    delivery.promise_no_more()
    if not before:
        delivery.settle(0, REFUSED)
    delivery.settle(1, UNKNOWN)
    delivery.settle(2, receipt(0))
    if not before:
        delivery.withdraw(WITHDRAWN)
    assert sink.counts == (4, 1, 2, 1, 3)


async def test_without_202_nothing_counts_as_lost(sink: Sink) -> None:
    delivery = sink.take(2, handed=2)
    delivery.settle(0, REFUSED)
    delivery.settle(1, UNKNOWN)
    assert sink.counts == (2, 0, 1, 1, 0)


# send() -----------------------------------------------------------------------------------------------


class Refusing(MemoryProducer):
    """Has no room."""

    async def submit(self, *_: object, **__: object) -> Delivery:
        raise Overloaded("no room")


async def test_send_reports_on_each_record_whatever_its_topic() -> None:
    producer = MemoryProducer(topics=["a", "b"])
    sent = [Record("a", b"1"), Record("c", b"2"), Record("b", b"3"), Record("__x", b"4"), Record("a", b"5")]
    reports = await producer.send(sent)
    assert [report if isinstance(report, Receipt) else report.error_code for report in reports] == [
        Receipt("a", 0, 0, None), 40401, Receipt("b", 0, 0, None), 40301, Receipt("a", 0, 1, None),
    ]  # fmt: skip
    assert producer.records == [sent[0], sent[4], sent[2]]  # topic by topic
    assert producer.ledger == Ledger(accepted=3, delivered=3)


async def test_send_reports_a_record_above_its_topics_limit_and_sends_the_others() -> None:
    producer = MemoryProducer(record_bytes=10)
    at_limit = Record("a", b"12345", b"678", (("h", b"9"),))
    over, report = await producer.send([Record("a", b"12345", b"678", (("h", b"90"),)), at_limit])
    assert isinstance(over, TooLarge)
    assert over.message == "the record has 11 bytes with key and headers; 10 is the most here"
    assert isinstance(report, Receipt)
    assert producer.records == [at_limit]


async def test_send_turns_a_refused_submit_into_a_report_each() -> None:
    reports = await send(Refusing(topics=["t"]), [*records(2), Record("other")])
    assert [type(report) for report in reports] == [Overloaded, Overloaded, UnknownTopic]


async def test_sending_nothing_submits_nothing() -> None:
    assert list(await send(Refusing(), [])) == []


async def test_every_report_but_a_receipt_is_an_error_with_an_outcome() -> None:
    reports = await send(Refusing(), records(1))
    assert all(isinstance(report, IngestError) and report.outcome for report in reports)
