"""The search for the highest rate that holds, and what is read from a load in open loop.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.study.findings import Tenth

STEP_UP = 1.3
"""How much more is tried while everything holds."""
STEP_DOWN = 0.9
"""How much less is tried where a rate held for a short while, and not for a long one."""


def highest(holds: Callable[[float], bool], first: float, *, precision: float, trials: int) -> float:
    """The highest rate that `holds`, to a precision such as 0.05, in at most so many trials; 0.0 if none.

    Upwards from `first` in steps until one does not hold, then by halving what is between.
    """
    good, bad, rate = 0.0, float("inf"), first
    for _ in range(trials):
        if holds(rate):
            good = rate
        else:
            bad = rate
        if good and bad / good <= 1 + precision:
            break
        rate = good * STEP_UP if bad == float("inf") else (good + bad) / 2
    return good


def confirmed(holds: Callable[[float], bool], rate: float, *, tries: int) -> float:
    """`rate`, or the first lower one that holds where this one does not; 0.0 after so many tries."""
    for _ in range(tries):
        if rate and holds(rate):
            return rate
        rate *= STEP_DOWN
    return 0.0


def by_seconds(tenths: Sequence[Tenth], whole_seconds: int) -> list[int]:
    """Answers in each of so many seconds."""
    return [sum(tenth[4] for tenth in tenths[n * 10 : n * 10 + 10]) for n in range(whole_seconds)]


def recovered(tenths: Sequence[Tenth], overload_seconds: float) -> float | None:
    """Seconds after the overload from which on nothing failed, and nothing took longer than 50 ms.

    A tenth that has one late request in a hundred is as good as one without.  None where the last tenth in
    which something was due is not good.
    """
    end = round(overload_seconds * 10)
    after = [tenth for tenth in tenths[end:] if tenth[0]]
    if not after:
        return None
    bad = [number for number, (due, _, failed, late, _) in enumerate(after) if failed or late * 100 > due]
    if not bad:
        return 0.0
    return None if bad[-1] == len(after) - 1 else (bad[-1] + 1) / 10
