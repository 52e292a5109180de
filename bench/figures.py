"""The figures to reach, as data: ratios of medians in one run, and whether it reached them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.cases import KEYED, LINES, VALIDATED, Case
from bench.results import Metrics, Results


@dataclass(frozen=True)
class Metric:
    """What a ratio is of."""

    name: str
    of: Callable[[Metrics], float | None]
    better: Callable[[Sequence[float]], float]
    """Which of several values is a system's best: max or min."""


REQUESTS = Metric("requests/s", lambda metrics: metrics.requests_per_second, max)
RECORDS = Metric("records/s", lambda metrics: metrics.records_per_second, max)
CPU = Metric("CPU a request", lambda metrics: metrics.cpu_us, min)
P50 = Metric("p50", lambda metrics: metrics.p50_us, min)


@dataclass(frozen=True)
class Figure:
    """`system`'s median over `against`'s: at least `bound` of a rate, at most of a time.

    Of several cases each of the two has the one that suits it best.
    """

    what: str
    cases: tuple[Case, ...]
    system: str
    against: str
    metric: Metric
    bound: float

    @property
    def limit(self) -> str:
        """The bound as people write it."""
        return f"{'≥' if self.metric.better is max else '≤'} {self.bound:g} ×"


def _pair(what: str, case: Case, against: str, rate: float, cpu: float) -> list[Figure]:
    return [
        Figure(what, (case,), "ingest", against, REQUESTS, rate),
        Figure(what, (case,), "ingest", against, CPU, cpu),
    ]


def _lines(lines: int) -> list[Figure]:
    return [
        Figure(
            f"NDJSON of {lines:,} lines, {words}",
            (Case(connections=32, content=content, lines=lines),),
            "ingest",
            "produce-loop",
            RECORDS,
            bound,
        )
        for content, words, bound in (
            (LINES, "`validate=false`", 0.8),
            (VALIDATED, "validated", 0.7),
            (KEYED, "with `key_field`", 0.5),
        )
    ]


LINGER_1, LINGER_0, QUEUED = Case(), Case(linger_ms=0), Case(promise="queued")

FIGURES = [
    *_pair("delivered, 512 connections, linger.ms 1", Case(connections=512), "uvicorn-httptools", 1.4, 0.75),
    *_pair("delivered, 64 connections, linger.ms 1", LINGER_1, "uvicorn-httptools", 1.05, 0.9),
    *_pair("delivered, 64 connections, linger.ms 0", LINGER_0, "uvicorn-httptools", 1.05, 0.9),
    Figure("queued, 64 connections", (QUEUED,), "ingest", "uvicorn-httptools", REQUESTS, 1.4),
    Figure(
        "delivered, 64 connections, the better linger.ms of each",
        (LINGER_1, LINGER_0),
        "ingest",
        "fastapi-aiokafka",
        REQUESTS,
        3,
    ),
    Figure("h11 both, delivered", (LINGER_1,), "ingest-h11", "uvicorn-h11", REQUESTS, 1.15),
    Figure("h11 both, queued", (QUEUED,), "ingest-h11", "uvicorn-h11", REQUESTS, 1.15),
    *_lines(100),
    *_lines(1000),
    Figure(
        "two workers against one, not pinned", (Case(pinned=False),), "ingest-2-workers", "ingest", CPU, 1.1
    ),
    Figure(
        "one connection, delivered, linger.ms 0",
        (Case(connections=1, linger_ms=0),),
        "ingest",
        "poll-loop",
        P50,
        1.5,
    ),
]


@dataclass(frozen=True)
class Verdict:
    """A figure on a broker; `ratio` is None where one of the two was not measured."""

    figure: Figure
    broker: str
    ratio: float | None

    @property
    def reached(self) -> bool:
        """Whether it was measured, and within its bound."""
        if self.ratio is None:
            return False
        better = self.figure.metric.better
        return better((self.ratio, self.figure.bound)) == self.ratio

    @property
    def word(self) -> str:
        """How the tables put it."""
        return "not measured" if self.ratio is None else "reached" if self.reached else "missed"


def judge(results: Results, figures: Sequence[Figure] = FIGURES) -> list[Verdict]:
    """Every figure on every broker of the run."""
    return [
        Verdict(figure, broker, _ratio(results, figure, broker))
        for broker in results.brokers
        for figure in figures
    ]


def _ratio(results: Results, figure: Figure, broker: str) -> float | None:
    best = []
    for system in (figure.system, figure.against):
        medians = []
        for case in figure.cases:
            found = results.spread(dataclasses.replace(case, broker=broker), system, figure.metric.of)
            if found is None:
                return None
            medians.append(found.median)
        best.append(figure.metric.better(medians))
    return best[0] / best[1]
