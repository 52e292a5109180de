"""What was sent, record by record, and what the answers say became of it.

A record is known by its number, which its value carries.  An answer that wire.md does not have for a right
request under a fault of Kafka's or of the process fails at once, as an AssertionError.
"""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.client import Answer


class Fate(enum.Enum):
    """What the answer says of a record."""

    DELIVERED = "2xx"
    QUEUED = "202"
    """In the memory of the process, and no more was promised."""
    NOT_WRITTEN = "not_written"
    UNKNOWN = "unknown"
    UNANSWERED = "unanswered"


def record_value(number: int, key: bytes | None, filling_bytes: int) -> bytes:
    """The value of a record: its number and key in it, and as many bytes of filling."""
    name = b"" if key is None else b'"k":"%b",' % key
    return b'{"n":%d,%b"x":"%b"}' % (number, name, b"x" * filling_bytes)


@dataclass(slots=True, eq=False)
class Sent:
    """One request of one record or many."""

    connection: int
    """The number of the connection: within it, the records of one key keep their order."""
    first: int
    """The number of its first record; the others follow."""
    keys: Sequence[bytes | None]
    """The key of each record."""
    filling_bytes: int
    fates: list[Fate] = field(default_factory=list)
    """One a record; what has no answer yet is unanswered."""
    receipts: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Partition and offset, by the record's place in the request, where the answer told them."""
    accepted: int = 0
    """How many of its records are there for sure, where the answer gives a number and not which."""
    status: int | None = None
    seconds: float = 0.0
    """From sending to the end of the answer."""

    def __post_init__(self) -> None:
        self.fates = [Fate.UNANSWERED] * len(self.keys)

    def values(self) -> list[bytes]:
        """The values of its records, in order."""
        return [
            record_value(number, key, self.filling_bytes) for number, key in enumerate(self.keys, self.first)
        ]

    def note_single(self, answer: Answer) -> None:
        """The answer to one record."""
        self.status = answer.status
        if answer.status in (200, 204):
            self.fates[0] = Fate.DELIVERED
            if answer.status == 200:
                self.receipts[0] = (answer.json["partition"], answer.json["offset"])
        elif answer.status == 202:
            self.fates[0] = Fate.QUEUED
        else:
            self.fates[0] = _failed(answer.status, answer.json)

    def note_batch(self, answer: Answer) -> None:
        """The answer with which a request of many lines ends; its body counts, and names what failed."""
        self.status, body = answer.status, answer.json
        count = len(self.keys)
        named = {result["line"] - 1: Fate(result["outcome"]) for result in body.get("results", ())}
        accepted, failed = body.get("accepted", 0), body.get("failed", 0)
        assert accepted + failed <= count, answer
        if answer.status in (200, 202, 207):
            assert accepted + failed == count, answer
            assert answer.status != 200 or not failed, answer
            told = len(named) == failed  # only so many failures are named, the others are counted
            rest = Fate.QUEUED if answer.status == 202 else Fate.DELIVERED
            if not told:
                rest, self.accepted = Fate.UNKNOWN, accepted
        else:
            rest = _failed(answer.status, body)
            assert rest is Fate.UNKNOWN or not accepted, answer
            self.accepted = accepted
        self.fates = [named.get(index, rest) for index in range(count)]

    def note_result(self, result: dict[str, Any]) -> None:
        """One line of an answer with the result of each line; without a number it is about the rest."""
        line = result.get("line")
        if line is None:
            rest = Fate(result["outcome"])
            self.fates = [rest if fate is Fate.UNANSWERED else fate for fate in self.fates]
        elif "offset" in result:
            self.fates[line - 1] = Fate.DELIVERED
            self.receipts[line - 1] = (result["partition"], result["offset"])
        else:
            self.fates[line - 1] = Fate(result["outcome"])


def _failed(status: int, body: dict[str, Any]) -> Fate:
    assert (status, body["outcome"]) in ((503, "not_written"), (504, "unknown")), (status, body)
    return Fate(body["outcome"])


class Journal:
    """Every request of a run, over all connections."""

    def __init__(self) -> None:
        self.requests: list[Sent] = []
        self.fates: Counter[Fate] = Counter()
        """How many records have which fate so far."""
        self.statuses: Counter[int] = Counter()
        """How many requests were answered with which status so far."""
        self.slowest_seconds = 0.0
        self.crossed = 0
        """How many requests met the server's close on their way; they are none of `requests`."""
        self._connections = itertools.count()
        self._numbers = 0
        self._changed = trio.Event()

    def connection(self) -> int:
        """The number of a new connection."""
        return next(self._connections)

    def begin(self, connection: int, keys: Sequence[bytes | None], filling_bytes: int) -> Sent:
        """Note a request that is about to be sent."""
        sent = Sent(connection, self._numbers, keys, filling_bytes)
        self._numbers += len(keys)
        self.requests.append(sent)
        return sent

    def end(self, sent: Sent, seconds: float) -> None:
        """Note that a request has been answered as far as it ever will."""
        sent.seconds = seconds
        self.fates.update(sent.fates)
        if sent.status is not None:
            self.statuses[sent.status] += 1
            self.slowest_seconds = max(self.slowest_seconds, seconds)
        self._changed.set()
        self._changed = trio.Event()

    @property
    def unanswered(self) -> int:
        """Requests that were sent and have no answer, or only a part of one."""
        return sum(Fate.UNANSWERED in sent.fates for sent in self.requests)

    async def wait_until(self, state: Callable[[], bool]) -> None:
        """Wait until an answer has brought `state` about."""
        while not state():
            await self._changed.wait()

    async def wait_for(self, *statuses: int, count: int = 1) -> None:
        """Wait until so many more requests have been answered with one of these statuses."""
        before = self._with(statuses)
        await self.wait_until(lambda: self._with(statuses) >= before + count)

    def _with(self, statuses: Sequence[int]) -> int:
        return sum(self.statuses[status] for status in statuses)
