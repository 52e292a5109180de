from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import select
import threading
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import logs

log = logging.getLogger("ingest.tests")


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Put back what `configure` replaces, which pytest's own capture is part of."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_is_time_level_event_and_fields_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text")
    log.info("drained", extra={"accepted": 3, "delivered": 2, "failed": 1, "unknown": 0, "seconds": 0.41})
    time, rest = capsys.readouterr().err.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == "info drained accepted=3 delivered=2 failed=1 unknown=0 seconds=0.41\n"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("", '""'),
        ("a\r\nforged", r'"a\r\nforged"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("\x9b31m", r'"\u009b31m"'),
        ("a\u2028b", r'"a\u2028b"'),
        ("größe", "größe"),
    ],
)
def test_a_field_that_could_be_misread_is_quoted(
    capsys: pytest.CaptureFixture[str], value: str, written: str
) -> None:
    logs.configure("text")
    log.warning("seen", extra={"value": value})
    assert capsys.readouterr().err.split(" ", 1)[1] == f"warning seen value={written}\n"


@given(st.text(), st.text())
def test_an_event_is_one_printable_line_whatever_it_holds(words: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines = _Lines()
        patch.setattr("sys.stderr", lines)
        logs.configure("text")
        log.info("%s", words, extra={"value": value})
    written = "".join(lines.written)
    assert written.endswith("\n")
    assert written[:-1].isprintable()


class _Lines:
    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, text: str) -> int:
        self.written.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def test_an_error_s_traceback_is_folded_into_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text")
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        log.exception("failed")
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "RuntimeError: two\\nlines" in written


def test_json_is_one_object_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    log.error("kafka %s", "error", extra={"reason": "a\nb", "count": 2})
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    event = json.loads(line)
    assert list(event) == ["time", "level", "event", "reason", "count"]
    assert event | {"time": ""} == {
        "time": "",
        "level": "error",
        "event": "kafka error",
        "reason": "a\nb",
        "count": 2,
    }


def test_json_is_printable_ascii_whatever_an_event_holds(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    log.error("seen", extra={"value": "\x00\x1b[31m\x7f\x9b\u2028\ud800ü"})
    line = capsys.readouterr().err[:-1]
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["value"] == "\x00\x1b[31m\x7f\x9b\u2028\ud800ü"


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_field_is_bounded(capsys: pytest.CaptureFixture[str], format_: Literal["text", "json"]) -> None:
    logs.configure(format_)
    try:
        raise RuntimeError(1_000_000 * "x" + "the end")
    except RuntimeError:
        log.exception("failed", extra={"value": 1_000_000 * "y"})
    line = capsys.readouterr().err
    assert len(line) < 2 * logs.FIELD_CHARACTERS + 500
    assert "the end" in line


def test_events_below_info_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text")
    log.debug("small talk")
    assert capsys.readouterr().err == ""


# Written aside ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def narrow_pipe() -> Iterator[int]:
    """Make a pipe standard error; gives its other end.  No fixture: pytest sets its own after those."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
    with os.fdopen(writing, "w", encoding="utf-8") as standard_error, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", standard_error)
        yield reading
    os.close(reading)


def writes(thread: threading.Thread) -> bool:
    return thread.name == "ingest log"


def test_nobody_waits_for_a_reader_that_stands_still_and_what_is_dropped_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "WAITING_BYTES", 10_000)
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 20)  # which is not waited for: it is read
    written: list[str] = []

    def read(descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8", closefd=False) as lines:
            while not written or '"last"' not in written[-1]:
                written.append(lines.readline())

    with narrow_pipe() as reading:
        logs.configure("json")
        reader = threading.Thread(target=read, args=(reading,))
        with logs.written_aside():
            for number in range(5000):
                log.info("line", extra={"number": number})
            reader.start()
            log.info("last", extra={"number": 5000})
        reader.join()
    events = [json.loads(line) for line in written]
    dropped = [event["lines"] for event in events if event["event"] == "log lines dropped"]
    numbers = [event["number"] for event in events if event["event"] != "log lines dropped"]
    assert numbers == sorted(numbers)
    assert len(numbers) + sum(dropped) == 5001
    assert sum(dropped) > 4000
    assert not any(map(writes, threading.enumerate()))


def test_the_end_does_not_wait_for_a_reader_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.1)
    with narrow_pipe():
        logs.configure("text")
        with logs.written_aside():
            for number in range(1000):
                log.info("line", extra={"number": number})
            assert any(map(writes, threading.enumerate()))
        assert not any(map(writes, threading.enumerate()))


def test_a_reader_that_has_gone_is_no_event() -> None:
    with narrow_pipe() as reading:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), reading)
        logs.configure("text")
        with logs.written_aside():
            log.info("line")
            log.info("line")
