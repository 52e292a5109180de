"""Seeded changes to good and bad streams: both engines read them alike, and others where they should.

Where Node's http or Go's net/http, as far as they are installed, read a stream otherwise, the reason has
to be in `EXPLAINED`.  Neither reads a request where we read another one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from ingest.http.engines import ENGINES
from tests.conformance.mutated import mutated_streams, random_cuts
from tests.conformance.reading import Outcome, bytewise, feed, read
from tests.fuzz.explained import EXPLAINED
from tests.fuzz.oracles import Difference, difference, installed

FEW, MANY = 20_000, 1_000_000
SEED, OTHER_SEED = 9, 10
AT_ONCE = 20_000
STATUSES = (None, 400, 411, 417, 431, 501, 505)


def test_some_streams_are_read_alike(tmp_path: Path) -> None:
    # Another version of theirs may refuse for other reasons.
    compare(SEED, FEW, tmp_path, lambda _, parted: parted.kind != "read otherwise")


@pytest.mark.fuzz
def test_many_streams_are_read_alike(tmp_path: Path, reached: Callable[[int, str], None]) -> None:
    reached(9, compare(OTHER_SEED, MANY, tmp_path, lambda name, parted: parted in EXPLAINED[name]))


def compare(seed: int, count: int, folder: Path, explained: Callable[[str, Difference], bool]) -> str:
    """Read so many streams with both engines and every other reader; returns what was found, in words."""
    chance = random.Random(seed)
    oracles = installed(folder)
    found: dict[str, Counter[Difference]] = {oracle.name: Counter() for oracle in oracles}
    refused = 0
    streams = mutated_streams(seed, count)
    while batch := list(islice(streams, AT_ONCE)):
        ours = [reading(raw, chance) for raw in batch]
        refused += sum(outcome.refused is not None for outcome, _ in ours)
        for oracle in oracles:
            for raw, (outcome, why), theirs in zip(batch, ours, oracle.read(batch), strict=True):
                parted = difference(outcome.requests, why, theirs)
                if parted is not None:
                    assert explained(oracle.name, parted), (oracle.name, parted, raw)
                    found[oracle.name][parted] += 1
    assert count / 10 < refused < count, "the changes are of one kind"
    words = [
        f"{count:,} mutated streams (seed {seed}): 0 differences between the engines and between cuts",
        f"{refused:,} refused",
    ]
    for name, differing in found.items():
        reasons = f"each for one of {len(differing)} explained reasons, and none as another request"
        words.append(f"{name} reads {differing.total():,} otherwise, {reasons}")
    return "; ".join(words)


def reading(raw: bytes, chance: random.Random) -> tuple[Outcome, str]:
    """What we make of a stream, whichever engine reads it and however it is cut; and why no more."""
    first, *others = ENGINES.values()
    outcome, error = read(first(), [raw, b""])  # raises what is no refusal
    assert outcome.refused in STATUSES, raw
    for engine in others:
        assert feed(engine(), [raw, b""]) == outcome, raw
    pieces = bytewise(raw) if chance.random() < 0.1 else random_cuts(raw, chance)
    assert feed(first(), [*pieces, b""]) == outcome, raw
    if error is not None:
        return outcome, str(error)
    return outcome, "the last request was answered with close" if outcome.ended else "the end of the stream"
