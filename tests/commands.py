"""`ingest` as a process: its log line by line, its children, and requests to it."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

SECONDS = 20.0
"""When a process that should have ended is given up."""

AUTO_CREATE = "allow.auto.create.topics=true"
"""For a service before the broker inside another."""

Running = subprocess.Popen[bytes]
Ingest = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., AbstractContextManager[Running]]


class Listening(NamedTuple):
    url: str
    brokers: str


def listening(service: Running) -> Listening:
    line = line_with(service, "info listening")
    found = re.search(r"url=(\S+) brokers=(\S+)", line)
    assert found is not None, line
    return Listening(found[1], found[2])


def line_with(service: Running, words: str) -> str:
    assert service.stderr is not None
    lines = []
    for line in service.stderr:
        lines.append(line.decode())
        if words in lines[-1]:
            return lines[-1]
    raise AssertionError("".join(lines))


def post(url: str, content: bytes, **fields: str) -> int:
    request = urllib.request.Request(url, content, {name.replace("_", "-"): fields[name] for name in fields})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return int(answer.status)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are there, the oldest first."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return sorted(int(each) for text in lists for each in text.split())
