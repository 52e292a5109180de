"""The load: contents of requests, and wrk in closed loop, whose last line load.lua writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from bench.cases import RECORD, Case

SCRIPT = Path(__file__).with_name("load.lua")
ANSWER_SECONDS = 10
"""wrk's own limit for an answer: as long as a server may take for it."""

LINE_TYPE = "application/x-ndjson"


class WrkMissing(Exception):
    """There is no wrk; the text says what to install."""


class LoadFailed(Exception):
    """Answers that were not 2xx, or did not come: what was measured then is another thing."""


class Load(NamedTuple):
    """What one run of wrk counted; times of answers in microseconds."""

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    p999_us: int


def find_wrk() -> str:
    """The program, or `WrkMissing`."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise WrkMissing("the load comes from wrk, which is not on the PATH (Debian: apt-get install wrk)")
    return wrk


def command(wrk: str, url: str, content: Path, case: Case, seconds: float, content_type: str) -> list[str]:
    """One thread, the case's connections."""
    options = ["-t1", f"-c{case.connections}", f"-d{max(1, round(seconds))}s"]
    options += ["--timeout", f"{ANSWER_SECONDS}s", "-s", str(SCRIPT)]
    arguments = [str(content), str(case.fresh_percent), *([content_type] if content_type else [])]
    return [wrk, *options, url, "--", *arguments]


def parse(output: str) -> Load:
    """What load.lua wrote at the end of wrk's output.

    Raises `LoadFailed` where there is no such line, nothing was answered, or an answer was not 2xx.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise LoadFailed(f"wrk printed no result: {output.strip()[-200:]}")
    counted = json.loads(lines[-1])
    wrong = {name: counted[name] for name in ("connect", "read", "write", "status", "timeout")}
    if any(wrong.values()):
        named = ", ".join(f"{name} {count}" for name, count in wrong.items() if count)
        raise LoadFailed(f"of {counted['requests']} requests failed: {named}")
    if not counted["requests"]:
        raise LoadFailed("no request was answered")
    return Load(
        counted["requests"], counted["microseconds"] / 1e6, counted["p50"], counted["p99"], counted["p999"]
    )


def record(number: int, size_bytes: int) -> bytes:
    """A JSON object of exactly so many bytes, with its number in the field `id`."""
    start = b'{"id":"%d","text":"' % number
    return start + b"x" * (size_bytes - len(start) - 2) + b'"}'


def content(case: Case) -> bytes:
    """One request's: a record, or the case's lines of them."""
    if case.content == RECORD:
        return record(0, case.size_bytes)
    return b"".join(record(number, case.size_bytes) + b"\n" for number in range(case.lines))
