"""What is measured: a case is one load at one setting, and the plan is the list of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

RECORD, LINES, VALIDATED, KEYED = "record", "lines", "lines validated", "lines with key_field"
"""What a request's content is: one record, or NDJSON, whose lines are passed on, parsed, or looked into."""


@dataclass(frozen=True)
class Case:
    """One load at one setting; every system that takes part gets the same."""

    promise: str = "delivered"
    connections: int = 64
    size_bytes: int = 200
    """Of one record's value."""
    linger_ms: float = 1
    content: str = RECORD
    lines: int = 1
    """Records a request."""
    pinned: bool = True
    """Whether the server has one core, and load and broker the other."""
    batch_bytes: int = 1_000_000
    broker: str = "mock"
    profile: str = "default"
    """Of the producer's queue and batches, beyond linger and bytes: a name in `PROFILES`."""
    open_files: int | None = None
    """The server's limit (`ulimit -n`); None is the highest that there may be."""
    fresh_percent: int = 0
    """Requests that come on a connection of their own."""
    threads: int = 1
    """Of a peer in Rust, each with a loop and a listening socket of its own."""
    poll_ms: int | None = None
    """How long a loop of a peer over a TCP stream polls its producer after a record; None is not at all."""

    def __str__(self) -> str:
        what = f"{self.lines} {self.content}" if self.content != RECORD else "one record"
        linger = f"linger.ms {self.linger_ms:g}"
        parts = [self.promise, what, f"{self.size_bytes} B", f"{self.connections} connections", linger]
        parts += [] if self.pinned else ["not pinned"]
        parts += [] if self.batch_bytes == 1_000_000 else [f"batch.size {self.batch_bytes}"]
        parts += [] if self.profile == "default" else [f"producer {self.profile}"]
        parts += [] if self.open_files is None else [f"ulimit -n {self.open_files}"]
        parts += [] if not self.fresh_percent else [f"{self.fresh_percent} % on new connections"]
        parts += [] if self.threads == 1 else [f"{self.threads} threads"]
        parts += [] if self.poll_ms is None else [f"each record polled for {self.poll_ms} ms"]
        return ", ".join([*parts, BROKER_WORDS[self.broker]])


ROUND_TRIPS_MS = {"kafka-0ms": 0, "kafka-1ms": 1, "kafka-5ms": 5}
"""Brokers in a network namespace of their own, by the round trip of the link to it."""
BROKER_WORDS = {
    "mock": "mock cluster",
    "kafka": "Apache Kafka",
    **{name: f"Apache Kafka {ms} ms away" for name, ms in ROUND_TRIPS_MS.items()},
}

PROFILES: dict[str, dict[str, int]] = {
    "default": {},
    "tuned": {
        "batch.num.messages": 100_000,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 2_097_152,
    },
    "old": {"batch.num.messages": 1000},
}
"""Settings of librdkafka: `tuned` is the larger batch and buffer of the study's second phase, `old` a default
of once."""


RECORDS = [
    Case(connections=512),
    Case(),
    Case(linger_ms=0),
    Case(promise="queued"),
    Case(size_bytes=4096),
    Case(promise="queued", size_bytes=4096),
]
BATCHES = [
    # With fewer, 100 lines each, linger.ms is most of an answer's time, and the server idles.
    Case(connections=32, content=content, lines=lines)
    for lines, content in itertools.product((100, 1000), (LINES, VALIDATED, KEYED))
]
WORKERS = [Case(pinned=False)]
ALONE = [Case(connections=1, linger_ms=0)]

PLAN = {"records": RECORDS, "batches": BATCHES, "workers": WORKERS, "alone": ALONE}
"""What is measured where nobody says otherwise; `bench.figures` asks for cases of this list."""


def plan(groups: Sequence[str], brokers: Sequence[str]) -> list[Case]:
    """The cases of these groups of `PLAN`, for each broker."""
    cases = [case for group in groups for case in PLAN[group]]
    return [dataclasses.replace(case, broker=broker) for broker in brokers for case in cases]


def grid(
    promises: Sequence[str],
    connections: Sequence[int],
    sizes: Sequence[int],
    lingers: Sequence[int],
    batches: Sequence[int],
    brokers: Sequence[str],
    *,
    pinned: bool,
) -> list[Case]:
    """Every combination, with one record a request."""
    axes = itertools.product(brokers, promises, connections, sizes, lingers, batches)
    return [
        Case(promise, count, size, linger, pinned=pinned, batch_bytes=batch, broker=broker)
        for broker, promise, count, size, linger, batch in axes
    ]
