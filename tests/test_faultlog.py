from __future__ import annotations

import logging

import pytest

from ingest.faultlog import MOST_KINDS, FaultLog

log = logging.getLogger("ingest.tests")


class Faults:
    """A fault log on a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tell = FaultLog(log, seconds=10, clock=lambda: self.now)


def test_a_fault_that_repeats_is_logged_once_and_then_with_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = Faults()
    for second in range(25):
        faults.now = second
        faults.tell(logging.WARNING, "kafka error", {"second": second})
    told = [(line.message, vars(line)["second"], vars(line).get("suppressed")) for line in caplog.records]
    assert told == [("kafka error", 0, None), ("kafka error", 10, 9), ("kafka error", 20, 9)]


def test_another_kind_is_another_fault(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    for _ in range(2):
        for event, kind in (("a", None), ("a", 1), ("a", 2), ("b", None)):
            faults.tell(logging.ERROR, event, {"kind": kind}, kind=kind)
    assert [(line.message, vars(line)["kind"]) for line in caplog.records] == [
        ("a", None), ("a", 1), ("a", 2), ("b", None),
    ]  # fmt: skip


def test_an_error_is_told_apart_by_its_type_and_place_and_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = Faults()

    def fail(number: int) -> None:
        try:
            if number:
                raise KeyError(number)
            raise ValueError(number)
        except (KeyError, ValueError) as error:
            faults.tell(logging.ERROR, "request failed", {}, error=error)

    for number in (0, 1, 2, 0):
        fail(number)
    assert [line.exc_info and line.exc_info[0] for line in caplog.records] == [ValueError, KeyError]


def test_however_many_kinds_there_are_they_are_not_all_kept(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    for kind in range(3 * MOST_KINDS):
        faults.tell(logging.ERROR, "a", {}, kind=kind)
    faults.tell(logging.ERROR, "a", {}, kind=0)
    assert len(caplog.records) == 3 * MOST_KINDS + 1  # forgotten, so it is told once more
