"""The figures of every run that is kept, beside each other, and what the machine was like meanwhile."""

from __future__ import annotations

import statistics
import subprocess

from bench import results
from bench.native import program
from bench.report import grid
from bench.study import figures
from bench.study.figures import Verdict
from bench.study.findings import Findings, read

PUBLISHED = results.PUBLISHED / "study"
WALK_BYTES = 4 << 20
WALKS = 5


def walk_ns() -> float:
    """Nanoseconds that a step takes of a walk through `WALK_BYTES` in no order, the median of some.

    Raises `bench.native.NotBuilt`.
    """
    command = [str(program("walk")), str(WALK_BYTES)]
    walks = [subprocess.run(command, capture_output=True, check=True, timeout=60) for _ in range(WALKS)]
    return statistics.median(float(walk.stdout) for walk in walks)


def walked(findings: Findings) -> str:
    """What was found of the memory before and after; empty where it was not looked at."""
    steps = [
        f"{findings.settings[name]:.0f} ns {when}"
        for name, when in (("walk_ns_before", "before"), ("walk_ns_after", "after"))
        if name in findings.settings
    ]
    return " and ".join(steps)


def runs(findings: Findings) -> str:
    """The verdicts of these findings, and of the other runs that are kept."""
    kept = [read(path) for path in sorted(PUBLISHED.glob("*.json"))]
    every = [findings, *(other for other in kept if other.date != findings.date)]
    verdicts = [figures.judge(each) for each in every]
    rows = [
        (_what(of_all[0]), of_all[0].bound, *(_measured(verdict) for verdict in of_all))
        for of_all in zip(*verdicts, strict=True)
    ]
    about = [
        f"{each.date}: commit {each.commit}, CPython {each.versions['CPython']}; a step through "
        f"{WALK_BYTES >> 20} MiB took {walked(each) or 'a time that was not looked at'}."
        for each in every
    ]
    table = grid(("What", "To reach", *(each.date for each in every)), rows)
    return table + "\n\n" + "\n\n".join(about)


def _against(verdict: Verdict) -> str:
    return " / ".join(name for name, _ in verdict.between)


def _what(verdict: Verdict) -> str:
    return verdict.what.removesuffix(f": {_against(verdict)}")


def _measured(verdict: Verdict) -> str:
    """With the systems that it compares: the best of the others is not the same one in every run."""
    against = f" ({_against(verdict)})" if verdict.between else ""
    return f"{verdict.shown}{against}, {verdict.word}"
