"""The figures that the promises have reached, kept as data, and the table made of them.

`docs/explanation/reliability.json` is what was measured; the table in `reliability.md` is written from it
and from `PROMISES`, and a test of the default session holds the two together.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "docs" / "explanation"
DATA = FOLDER / "reliability.json"
PAGE = FOLDER / "reliability.md"
BEGIN, END = "<!-- the table: written by tests/promises/record.py -->\n", "<!-- the table ends -->"

PROMISES = {
    1: "A 2xx comes after the delivery report: nothing that was answered is lost",
    2: "A stop answers every request that was sent, within the grace",
    3: "Memory stays within the budget and 64 MB over idle",
    4: "Full means a quick answer, and the rest goes on at full speed",
    5: "A timeout in flight is unknown, and `not_written` is absent",
    6: "A producer that failed for good is replaced in place",
    7: "Ready follows Kafka within 5 seconds; live follows the process alone",
    8: "A client that pipelines and never reads costs nothing",
    9: "One strict reading of RFC 9112",
    10: "Every wait of a connection has a deadline; others are not held up",
    11: "Compressed content costs no more memory or time than it may have",
    12: "The largest record is known, and a larger one is told so",
    13: "Unknown topics are answered at once, and others do not notice",
    14: "Connections by the thousand, and none left: neither ends the accept loop",
    15: "Wrong configuration is refused at start",
    16: "Nothing from a client gets into a log line or a label unescaped or unbounded",
    17: "Cancelling is prompt and clean",
}
"""The rows; what must be reached stands in the tests, which fail below it."""


class Record(NamedTuple):
    """A figure reached: by a row of `PROMISES`, in a test."""

    row: int
    test: str
    figure: str


def add_record(records: Iterable[Record], command: str) -> None:
    """Put what a session measured in place of what the same tests had measured before."""
    kept: list[dict[str, Any]] = json.loads(DATA.read_text()) if DATA.exists() else []
    new = [
        {
            **record._asdict(),
            "command": command,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "commit": _commit(),
            "machine": _machine(),
        }
        for record in records
    ]
    tests = {record["test"] for record in new}
    kept = [record for record in kept if record["test"] not in tests]
    kept = sorted([*kept, *new], key=lambda record: (record["row"], record["test"]))
    DATA.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(kept) + END + rest.partition(END)[2])


def table(records: Iterable[dict[str, Any]]) -> str:
    """The rows of the page, in Markdown."""
    rows = list(records)
    lines = ["", "| | What must hold | Reached | Command | Date |", "| --- | --- | --- | --- | --- |"]
    for number, promise in PROMISES.items():
        own = [record for record in rows if record["row"] == number]
        for at, record in enumerate(own):
            first = (str(number), promise) if not at else ("", "")
            command, date = record["command"], record["date"]
            lines.append(f"| {first[0]} | {first[1]} | {record['figure']} | `{command}` | {date} |")
        if not own:
            lines.append(f"| {number} | {promise} | not measured | | |")
    machines = sorted({record["machine"] for record in rows})
    return "\n".join([*lines, "", *(f"Measured on: {machine}." for machine in machines), ""])


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=FOLDER
    )
    return done.stdout.strip()


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{cores} cores of {model}, Linux {platform.release()}, CPython {platform.python_version()}"
