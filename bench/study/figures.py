"""The study's figures to reach, as data: reached, missed or not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.cases import Case
from bench.study.findings import Findings, Hold, Rate, Storm
from bench.study.plan import AT_64, AT_512, BATCHES, DEFAULT_64, OURS, QUEUED
from bench.systems import RUST_PEERS

HOLD_AT_LEAST = 15_000.0
ACCEPTS_WITHIN_SECONDS = 1.0


@dataclass(frozen=True)
class Verdict:
    """One row; `value` is None where it was not measured."""

    what: str
    bound: str
    value: float | None
    shown: str
    reached: bool
    between: tuple[tuple[str, Case], ...] = ()
    """The systems that it compares, ours first, each with the case whose rates were taken."""

    @property
    def word(self) -> str:
        """How the table puts it."""
        return "not measured" if self.value is None else "reached" if self.reached else "missed"


def judge(findings: Findings) -> list[Verdict]:
    """Every figure."""
    rust = RUST_PEERS
    return [
        _ratio(findings, "delivered, 64 connections, linger.ms 5", (DEFAULT_64,), rust, 1.0),
        _ratio(findings, "delivered, 64 connections, each with its best linger.ms", AT_64, rust, 0.7),
        _ratio(findings, "delivered, 512 connections, each with its best linger.ms", AT_512, rust, 0.45),
        _ratio(findings, "queued, 64 connections", (QUEUED,), ("tokio-tcp",), 0.45),
        _cpu(findings, "queued, 64 connections: CPU a request", QUEUED, "tokio-tcp", 2.3),
        _ratio(
            findings, "delivered, 64 connections, each with its best linger.ms", AT_64, ("go-franz",), 0.65
        ),
        _hold(findings),
        _batches(findings),
        _storms(findings),
    ]


def best(
    findings: Findings,
    cases: Sequence[Case],
    systems: Sequence[str],
    metric: Callable[[Rate], float] = lambda rate: rate.per_second,
) -> tuple[float, str, Case] | None:
    """The highest median of these systems in these cases, and whose it is and where; None for none."""
    medians = [
        (median, system, case)
        for system in systems
        for case in cases
        if (median := findings.median(system, case, metric)) is not None
    ]
    return max(medians, key=lambda each: each[0]) if medians else None


def _ratio(
    findings: Findings, what: str, cases: Sequence[Case], against: Sequence[str], bound: float
) -> Verdict:
    ours, theirs = best(findings, cases, [OURS]), best(findings, cases, against)
    whom = against[0] if len(against) == 1 else "the best in Rust"
    what = f"{what}: {OURS} / {theirs[1] if theirs else whom}"
    if ours is None or theirs is None:
        return Verdict(what, f"requests/s ≥ {bound:g} ×", None, "", reached=False)
    value = ours[0] / theirs[0]
    between = (ours[1:], theirs[1:])
    return Verdict(what, f"requests/s ≥ {bound:g} ×", value, f"{value:.2f} ×", value >= bound, between)


def _cpu(findings: Findings, what: str, case: Case, against: str, bound: float) -> Verdict:
    ours = findings.median(OURS, case, lambda rate: rate.cpu_us)
    theirs = findings.median(against, case, lambda rate: rate.cpu_us)
    what = f"{what}: {OURS} / {against}"
    if ours is None or not theirs:
        return Verdict(what, f"≤ {bound:g} ×", None, "", reached=False)
    value = ours / theirs
    between = ((OURS, case), (against, case))
    return Verdict(what, f"≤ {bound:g} ×", value, f"{value:.2f} ×", value <= bound, between)


def _hold(findings: Findings) -> Verdict:
    what = f"highest constant rate of {OURS}, delivered, p99 ≤ 50 ms"
    holds = [hold for hold in findings.of(Hold) if hold.system == OURS]
    if not holds:
        return Verdict(what, f"≥ {HOLD_AT_LEAST:,.0f} requests/s", None, "", reached=False)
    value = max(hold.held.per_second if hold.held else 0.0 for hold in holds)
    return Verdict(
        what, f"≥ {HOLD_AT_LEAST:,.0f} requests/s", value, f"{value:,.0f} requests/s", value >= HOLD_AT_LEAST
    )


def _batches(findings: Findings) -> Verdict:
    ours = findings.median(OURS, BATCHES, lambda rate: rate.records_per_second)
    theirs = best(findings, AT_512, RUST_PEERS)
    what = (
        f"NDJSON of 100 lines, records/s: {OURS} / the best in Rust with single requests at 512 connections"
    )
    if ours is None or theirs is None:
        return Verdict(what, "≥ 5 ×", None, "", reached=False)
    value = ours / theirs[0]
    between = ((OURS, BATCHES), theirs[1:])
    return Verdict(what, "≥ 5 ×", value, f"{value:.2f} ×", value >= 5, between)


def _storms(findings: Findings) -> Verdict:
    what = f"storms that {OURS} survives, accepting again within {ACCEPTS_WITHIN_SECONDS:g} s"
    storms = [storm for storm in findings.of(Storm) if storm.system == OURS]
    survived = [storm for storm in storms if survives(storm)]
    shown = f"{len(survived)} of {len(storms)}"
    value = len(survived) / len(storms) if storms else None
    return Verdict(what, "all", value, shown if storms else "", bool(storms) and survived == storms)


def survives(storm: Storm) -> bool:
    """Whether it still runs, and answered everybody again in time."""
    recovered = storm.recovered_seconds
    return not storm.died and recovered is not None and recovered <= ACCEPTS_WITHIN_SECONDS
