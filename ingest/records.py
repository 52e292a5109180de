"""The values that move through the pipeline: records in, receipts or errors out.  No I/O here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, overload

import msgspec

from ingest.errors import BadRequest, IngestError

RECORD_OVERHEAD_BYTES = 512
"""What a record costs beyond its own bytes while it is held.

librdkafka's queue, our objects and the report; its own `queue.buffering.max.kbytes` counts payload
only, and let 64 MiB of 20-byte records grow to 805 MB.
"""
HEADER_OVERHEAD_BYTES = 100
"""What each of its headers costs beyond name and value: librdkafka has an allocation of its own for it."""
HEADER_OBJECTS_BYTES = 150
"""What our own objects of a header cost; the lines of one stream share them."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record to be written.

    A struct of msgspec, since half a million of them a second are made.  Nothing is checked here:
    the producer reports a record that it cannot write.
    """

    topic: str
    value: bytes | None = None
    """None is a tombstone."""
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    partition: int | None = None
    """None lets the partitioner choose: by key, else at random."""
    timestamp: int | None = None
    """Milliseconds since 1970 (Kafka's CreateTime); None is the time of sending."""

    def size(self) -> int:
        """Bytes of value, key and headers together: what `limits.record_bytes` limits."""
        size = len(self.value) if self.value is not None else 0
        if self.key is not None:
            size += len(self.key)
        for name, value in self.headers:
            size += len(name.encode(errors="surrogatepass")) + (len(value) if value is not None else 0)
        return size

    def cost(self, *, shares_headers: bool = False) -> int:
        """Bytes that this record takes of the budget; `shares_headers`: others have the same tuple."""
        header = HEADER_OVERHEAD_BYTES if shares_headers else HEADER_OVERHEAD_BYTES + HEADER_OBJECTS_BYTES
        return self.size() + RECORD_OVERHEAD_BYTES + header * len(self.headers)


def unwritable(record: Record) -> BadRequest | None:
    """Why librdkafka would write another record than this one, if it would.

    For producers to report, and to be asked before an answer that does not wait for their report.
    Its names of headers end at the first NUL, and its timestamp 0 is the time of sending.
    """
    if record.timestamp == 0:
        return BadRequest("the timestamp is 0, for which librdkafka puts the time of sending; 1 is the least")
    for name, _ in record.headers:
        if "\0" in name:
            return BadRequest("a header's name has the character NUL (U+0000), where librdkafka would end it")
    return None


class Alike(Sequence[Record]):
    """Records that differ in value and key alone: the lines of a stream, without an object for each.

    Changed in place by whoever they were handed to, as a list would be.
    """

    __slots__ = ("keys", "like", "longest", "values")

    def __init__(
        self, like: Record, values: list[bytes], keys: list[bytes] | None = None, *, longest: int
    ) -> None:
        """`keys`, one for each value, where they have not all that of `like`; `longest` is of the values."""
        self.like = like
        self.values: list[bytes] = values
        self.keys = keys
        self.longest = longest

    @property
    def plain(self) -> bool:
        """Whether they have nothing but topic, value and key."""
        like = self.like
        return not like.headers and like.partition is None and like.timestamp is None

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        like = self.like
        key = like.key if self.keys is None else self.keys[index]
        return Record(like.topic, self.values[index], key, like.headers, like.partition, like.timestamp)

    def __setitem__(self, index: int, record: Record) -> None:
        """Give the record at `index` another value."""
        assert record.value is not None  # noqa: S101  # lines have one
        self.values[index] = record.value

    def __delitem__(self, those: slice) -> None:
        del self.values[those]
        if self.keys is not None:
            del self.keys[those]


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Kafka has the record: all in-sync replicas acknowledged it (acks=all)."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    """Milliseconds; None where the broker's answer does not say."""


DeliveryReport: TypeAlias = Receipt | IngestError
"""One for each record.  Errors are values here, since a batch can fail in part."""
