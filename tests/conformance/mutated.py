"""Streams of the table after seeded changes: bytes put in, left out, doubled, replaced; streams crossed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.conformance.case import CANARY
from tests.conformance.cases import CASES

LONGEST_BYTES = 400
_SEEDS = [case.raw for case in CASES if len(case.raw) < LONGEST_BYTES]
_GOOD = [case.raw for case in CASES if len(case.raw) < LONGEST_BYTES and case.refused is None]
_LINES = [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"0\r\n\r\n", CANARY]
_PIECES = [
    *(bytes([code]) for code in b'\r\n\0 \t:;,01"\\\x0b\xff'),
    *(b"\r\n", b"\r\n\r\n", b"HTTP/1.0"),
    *_LINES,
]


def mutated_streams(seed: int, count: int) -> Iterator[bytes]:
    """`count` streams, each with the canary behind it; the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        # Mostly of what is read: a second fault behind the first shows nothing.
        raw = bytearray(chance.choice(_GOOD if chance.random() < 0.8 else _SEEDS))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            _change(raw, chance)
        yield bytes(raw) + CANARY


def random_cuts(raw: bytes, chance: random.Random) -> list[bytes]:
    """The stream in up to five pieces."""
    places = sorted({chance.randrange(1, len(raw)) for _ in range(chance.randint(1, 4))})
    return [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]


def _change(raw: bytearray, chance: random.Random) -> None:
    start = chance.randint(0, len(raw))
    end = min(len(raw), start + chance.choice((1, 1, 2, 4, 16)))
    kind = chance.randrange(6)
    if kind == 0:
        raw[start:start] = chance.choice(_PIECES)
    elif kind == 1:
        raw[start:end] = chance.choice(_PIECES)
    elif kind == 2:
        del raw[start:end]
    elif kind == 3:
        raw[start:start] = raw[start:end]
    elif kind == 4 and start < len(raw):
        raw[start] = chance.randrange(256)
    else:
        other = chance.choice(_SEEDS)
        raw[start:] = other[chance.randint(0, len(other)) :]
