"""The verdict: what was answered, held against what is in the topic."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.broker.kafka_server import StoredRecord
from tests.faults.journal import Fate, Sent, record_value

_NUMBER = re.compile(rb'\{"n":(\d+),')

Place = tuple[int, int]
"""Partition and offset."""


class Verdict(NamedTuple):
    """What is wrong, as text with an example each; all empty and zero is what was promised."""

    lost: list[str]
    """Answered 2xx, and not there."""
    written: list[str]
    """Answered `not_written`, and there."""
    misplaced: list[str]
    """There, and not where the answer said."""
    disordered: list[str]
    """Of one key and connection, all answered 2xx, and not in the order in which they were sent."""
    strangers: list[str]
    """There, and sent by nobody: or not with these bytes, or not with this key."""
    duplicates: int
    """Records that are there once too often."""
    queued_missing: int
    """Answered 202, and not there: wrong only where the process did not say so."""
    fates: Counter[Fate]
    """How many records were sent, by what the answer said."""

    @property
    def wrongs(self) -> dict[str, int]:
        """What breaks a promise whatever happened, by name, where there is any."""
        found = {name: getattr(self, name) for name in self._fields[:6]}
        counts = {name: each if isinstance(each, int) else len(each) for name, each in found.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def sent(self) -> int:
        """How many records were sent."""
        return self.fates.total()

    def check(self) -> None:
        """Fail with what is wrong, if anything is."""
        examples = [each[0] for each in self[:5] if each]
        assert not self.wrongs, f"{self.wrongs}: {'; '.join(examples)}"

    def __str__(self) -> str:
        fates = ", ".join(f"{count:,} {fate.value}" for fate, count in sorted_by_name(self.fates))
        return f"{self.sent:,} records ({fates})"


def sorted_by_name(fates: Counter[Fate]) -> list[tuple[Fate, int]]:
    """The counts in the order in which the fates are defined."""
    return [(fate, fates[fate]) for fate in Fate if fates[fate]]


def judge(requests: Iterable[Sent], stored: Iterable[StoredRecord]) -> Verdict:
    """Hold every answer against the topic."""
    requests = sorted(requests, key=lambda sent: sent.first)
    places, strangers = _find(requests, stored)
    lost, written, misplaced = [], [], []
    fates: Counter[Fate] = Counter()
    queued_missing = 0
    for sent in requests:
        fates.update(sent.fates)
        there = 0
        for index, fate in enumerate(sent.fates):
            number = sent.first + index
            found = places.get(number)
            there += found is not None
            if found is None:
                if fate is Fate.DELIVERED:
                    lost.append(f"record {number} was answered {sent.status} and is not there")
                queued_missing += fate is Fate.QUEUED
            elif fate is Fate.NOT_WRITTEN:
                written.append(f"record {number} was answered not_written and is at {found[0]}")
            if found is not None and sent.receipts.get(index, found[0]) not in found:
                misplaced.append(f"record {number} is at {found}, and was answered {sent.receipts[index]}")
        if there < sent.accepted:
            lost.append(f"of records {sent.first}… {sent.accepted} were answered accepted, {there} are there")
    return Verdict(
        lost=lost,
        written=written,
        misplaced=misplaced,
        disordered=_disordered(requests, places),
        strangers=strangers,
        duplicates=sum(len(found) - 1 for found in places.values()),
        queued_missing=queued_missing,
        fates=fates,
    )


def _find(
    requests: Sequence[Sent], stored: Iterable[StoredRecord]
) -> tuple[dict[int, list[Place]], list[str]]:
    """Where each record is, by its number, in the topic's order; and what nobody sent."""
    firsts = [sent.first for sent in requests]
    places: dict[int, list[Place]] = defaultdict(list)
    strangers = []
    for record in stored:
        found = _NUMBER.match(record.value or b"")
        number = -1 if found is None else int(found[1])
        at = bisect_right(firsts, number) - 1
        if at >= 0 and _is_of(requests[at], number, record):
            places[number].append((record.partition, record.offset))
        else:
            strangers.append(f"nobody sent key {record.key!r}, value {(record.value or b'')[:80]!r}")
    return places, strangers


def _is_of(sent: Sent, number: int, record: StoredRecord) -> bool:
    index = number - sent.first
    if index >= len(sent.keys):
        return False
    key = sent.keys[index]
    return record.key == key and record.value == record_value(number, key, sent.filling_bytes)


def _disordered(requests: Sequence[Sent], places: dict[int, list[Place]]) -> list[str]:
    last: dict[tuple[int, bytes], tuple[int, Place]] = {}
    wrong = []
    for sent in requests:
        for number, (fate, key) in enumerate(zip(sent.fates, sent.keys, strict=True), sent.first):
            if key is None or fate not in (Fate.DELIVERED, Fate.QUEUED) or number not in places:
                continue
            place = places[number][0]
            before, there = last.get((sent.connection, key), (-1, place))
            if place[0] != there[0] or place < there:
                wrong.append(f"key {key!r}: record {number} at {place} came after {before} at {there}")
            last[sent.connection, key] = number, place
    return wrong
