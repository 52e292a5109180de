"""The verdict, on answers and topics written by hand: each broken promise is found, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.broker.kafka_server import StoredRecord
from tests.client import Answer
from tests.faults.journal import Fate, Journal, Sent
from tests.faults.verdict import judge


def answer(status: int, **body: Any) -> Answer:
    return Answer(status, {}, json.dumps(body).encode())


def failed(line: int, outcome: str = "not_written") -> dict[str, Any]:
    return {"line": line, "outcome": outcome}


def stored(sent: Sent, *places: int) -> list[StoredRecord]:
    """The records of a request at these places in it, at offsets that are their numbers."""
    values = sent.values()
    return [StoredRecord(0, sent.first + at, sent.keys[at], values[at], (), 0) for at in places]


def one(status: int, **body: Any) -> tuple[Journal, Sent]:
    """A journal of one request for one record, with its answer."""
    journal = Journal()
    sent = journal.begin(journal.connection(), [b"k"], 10)
    sent.note_single(answer(status, **body))
    journal.end(sent, 0.1)
    return journal, sent


def batch(lines: int, status: int, **body: Any) -> tuple[Journal, Sent]:
    journal = Journal()
    sent = journal.begin(journal.connection(), [b"k"] * lines, 10)
    sent.note_batch(answer(status, **body))
    journal.end(sent, 0.1)
    return journal, sent


def test_what_was_promised_and_is_there_is_right() -> None:
    journal, sent = one(200, partition=0, offset=0)
    verdict = judge(journal.requests, stored(sent, 0))
    verdict.check()
    assert verdict.fates == {Fate.DELIVERED: 1}


@pytest.mark.parametrize(
    ("status", "body"), [(200, {"partition": 0, "offset": 0}), (204, {})], ids=["with its receipt", "bare"]
)
def test_an_answer_of_2xx_without_its_record_is_a_loss(status: int, body: dict[str, Any]) -> None:
    journal, _ = one(status, **body)
    assert judge(journal.requests, []).wrongs == {"lost": 1}


def test_not_written_and_there_is_found() -> None:
    journal, sent = one(503, outcome="not_written")
    judge(journal.requests, []).check()
    assert judge(journal.requests, stored(sent, 0)).wrongs == {"written": 1}


def test_unknown_may_be_there_or_not() -> None:
    journal, sent = one(504, outcome="unknown")
    judge(journal.requests, []).check()
    judge(journal.requests, stored(sent, 0)).check()


def test_queued_may_be_missing_and_is_counted() -> None:
    journal, _ = one(202)
    verdict = judge(journal.requests, [])
    verdict.check()
    assert verdict.queued_missing == 1


def test_a_record_that_is_there_twice_is_counted() -> None:
    journal, sent = one(200, partition=0, offset=0)
    (record,) = stored(sent, 0)
    verdict = judge(journal.requests, [record, record._replace(offset=1)])
    assert verdict.wrongs == {"duplicates": 1}


def test_another_place_than_the_receipt_says_is_found() -> None:
    journal, sent = one(200, partition=0, offset=5)
    assert judge(journal.requests, stored(sent, 0)).wrongs == {"misplaced": 1}


@pytest.mark.parametrize("change", [{"value": b"?"}, {"value": b'{"n":0,}'}, {"value": None}, {"key": b"l"}])
def test_what_nobody_sent_is_found(change: dict[str, Any]) -> None:
    journal, sent = one(504, outcome="unknown")
    (record,) = stored(sent, 0)
    assert judge(journal.requests, [record._replace(**change)]).wrongs == {"strangers": 1}


def test_each_line_of_a_batch_has_its_own_outcome() -> None:
    journal, sent = batch(4, 207, accepted=2, failed=2, results=[failed(2), failed(4, "unknown")])
    assert sent.fates == [Fate.DELIVERED, Fate.NOT_WRITTEN, Fate.DELIVERED, Fate.UNKNOWN]
    judge(journal.requests, stored(sent, 0, 2)).check()
    judge(journal.requests, stored(sent, 0, 2, 3)).check()
    assert judge(journal.requests, stored(sent, 0)).wrongs == {"lost": 1}
    assert judge(journal.requests, stored(sent, 0, 1, 2)).wrongs == {"written": 1}


def test_lines_that_were_only_counted_must_be_there_in_that_number() -> None:
    # Only so many failures are named, so which of the others were accepted is not known.
    journal, sent = batch(4, 207, accepted=2, failed=2, results=[failed(1)])
    judge(journal.requests, stored(sent, 1, 3)).check()
    assert judge(journal.requests, stored(sent, 1)).wrongs == {"lost": 1}


def test_a_batch_refused_as_a_whole_is_nowhere() -> None:
    journal, sent = batch(2, 503, outcome="not_written")
    assert judge(journal.requests, stored(sent, 1)).wrongs == {"written": 1}


def test_a_line_whose_result_came_before_the_connection_broke_is_kept_to_it() -> None:
    journal = Journal()
    sent = journal.begin(0, [None] * 3, 10)
    sent.note_result({"line": 1, "partition": 0, "offset": 0})
    sent.note_result(failed(2))
    journal.end(sent, 0.1)
    assert sent.fates == [Fate.DELIVERED, Fate.NOT_WRITTEN, Fate.UNANSWERED]
    assert journal.unanswered == 1
    judge(journal.requests, stored(sent, 0, 2)).check()
    assert judge(journal.requests, stored(sent, 1)).wrongs == {"lost": 1, "written": 1}


def test_an_error_at_the_end_of_the_results_is_about_the_rest() -> None:
    sent = Journal().begin(0, [None] * 3, 10)
    sent.note_result({"line": 1, "partition": 0, "offset": 0})
    sent.note_result({"error_code": 50301, "outcome": "not_written"})
    assert sent.fates == [Fate.DELIVERED, Fate.NOT_WRITTEN, Fate.NOT_WRITTEN]


def test_records_of_one_key_out_of_order_are_found_within_a_connection_only() -> None:
    journal = Journal()
    two = [journal.begin(connection, [b"k"], 10) for connection in (0, 0)]
    for sent in two:
        sent.note_single(answer(204))
    first, second = stored(two[0], 0) + stored(two[1], 0)
    swapped = [first._replace(offset=1), second._replace(offset=0)]
    judge(two, [first, second]).check()
    assert judge(two, swapped).wrongs == {"disordered": 1}
    two[1].connection = 1
    judge(two, swapped).check()


def test_a_key_in_two_partitions_has_no_order() -> None:
    journal = Journal()
    two = [journal.begin(0, [b"k"], 10) for _ in range(2)]
    for sent in two:
        sent.note_single(answer(204))
    first, second = stored(two[0], 0) + stored(two[1], 0)
    assert judge(two, [first, second._replace(partition=1)]).wrongs == {"disordered": 1}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"outcome": "unknown"}),
        (503, {"outcome": "unknown"}),
        (504, {"outcome": "not_written"}),
        (404, {"outcome": "not_written"}),
    ],
)
def test_an_answer_that_no_fault_excuses_fails_at_once(status: int, body: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        one(status, **body)
    with pytest.raises(AssertionError):
        batch(2, status, **body)


@pytest.mark.parametrize(
    ("status", "accepted", "failures"), [(200, 1, 0), (200, 1, 1), (207, 0, 1), (503, 1, 1)]
)
def test_counts_that_do_not_add_up_fail_at_once(status: int, accepted: int, failures: int) -> None:
    with pytest.raises(AssertionError):
        batch(2, status, accepted=accepted, failed=failures, outcome="not_written")
