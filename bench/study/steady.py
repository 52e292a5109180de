"""The load in open loop: `native/steady.c`, the search with it, and the overload."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench import load
from bench.cases import Case
from bench.native import program
from bench.processes import Cores, ended
from bench.study.findings import Hold, Recovery, Tenth, Trial
from bench.study.search import by_seconds, confirmed, highest, recovered
from bench.systems import Server

BOUND_US = 50_000
GIVE_UP_MS = 1000
"""How long a request may wait for a free connection before it counts as failed."""
ANSWER_SECONDS = 15.0
WARM_SECONDS = 0.5
FIRST_SHARE = 0.7
"""Of the rate in closed loop, where the search begins."""
TRIES = 8
"""Of a long load, each of a lower rate than the one before: one that does not hold ends soon."""
REST_SECONDS = 1.0
"""Before each, for what the one before has left behind on its way to Kafka's disk."""


class Steady(NamedTuple):
    """What one run counted."""

    trials: list[Trial]
    tenths: list[Tenth]


class Durations(NamedTuple):
    """How long things take, in seconds, and how exact the search is."""

    trial: float = 2.0
    hold: float = 30.0
    overload: float = 4.0
    after: float = 6.0
    trials: int = 6
    precision: float = 0.06


def parse(output: str) -> Steady:
    """The line that `steady` prints.  Raises `LoadFailed` where there is none."""
    try:
        found = json.loads(output)
    except ValueError:
        raise load.LoadFailed(f"steady printed no result: {output.strip()[-200:]!r}") from None
    trials = msgspec.convert(found["rates"], list[Trial])
    return Steady(trials, msgspec.convert(found["tenths"], list[Tenth]))


class Load:
    """A constant load on a server; the content is written into `folder`."""

    def __init__(self, server: Server, case: Case, where: Cores, folder: Path) -> None:
        self._server, self._case, self._where = server, case, where
        self._content = folder / "content"
        self._content.write_bytes(load.content(case))

    def put(self, *rates: tuple[float, float], strict: bool = False) -> Steady:
        """Rates a second and their seconds, one after the other without a pause.

        `strict` ends one as soon as it cannot hold any more.
        """
        case = self._case
        command = [str(program("steady")), str(self._server.port), "/", str(self._content)]
        command += [str(case.connections), str(case.fresh_percent), str(GIVE_UP_MS)]
        command += [f"{rate:.1f}:{seconds:g}{'!' * strict}" for rate, seconds in rates]
        patience = sum(seconds for _, seconds in rates) + 2 * ANSWER_SECONDS
        try:
            done = ended(command, self._where.others, patience)
        except subprocess.TimeoutExpired:
            raise load.LoadFailed(f"steady did not end within {patience:.0f} s") from None
        return parse(done.output)


def hold(system: str, case: Case, steady: Load, closed_loop: float, durations: Durations) -> Hold:
    """Search from a share of what the system does in closed loop, and hold what was found for long."""
    trials: list[Trial] = []
    held: list[tuple[Trial, list[int]]] = []

    def short(rate: float) -> bool:
        (trial,) = steady.put((rate, durations.trial), strict=True).trials
        trials.append(trial)
        return trial.holds(BOUND_US)

    def long(rate: float) -> bool:
        time.sleep(REST_SECONDS)
        found = steady.put((rate, durations.hold), strict=True)
        (trial,) = found.trials
        if not trial.holds(BOUND_US):
            trials.append(trial)
            return False
        held.append((trial, by_seconds(found.tenths, int(durations.hold))))
        return True

    steady.put((max(1.0, closed_loop * FIRST_SHARE / 2), WARM_SECONDS))
    first = max(1.0, closed_loop * FIRST_SHARE)
    found = highest(short, first, precision=durations.precision, trials=durations.trials)
    confirmed(long, found, tries=TRIES)
    trial, seconds = held[-1] if held else (None, [])
    return Hold(system, case, BOUND_US, trials, trial, seconds)


def overload(system: str, case: Case, steady: Load, capacity: float, durations: Durations) -> Recovery:
    """Twice the capacity, and then half of it."""
    found = steady.put((capacity * 2, durations.overload), (capacity / 2, durations.after))
    over, after = found.trials
    seconds = recovered(found.tenths, durations.overload)
    return Recovery(system, case, capacity, over, after, found.tenths, seconds)
