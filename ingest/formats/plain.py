"""One record: the content is the value, byte for byte."""

from __future__ import annotations

from ingest.errors import TooLarge
from ingest.formats.keys import key_at
from ingest.records import Record


def check_size(size: int, record_bytes: int, *, more: bool = False) -> None:
    """Raises `TooLarge` for a record of `size` bytes, or `more`, where the limit is `record_bytes`."""
    if size > record_bytes:
        or_more = " or more" if more else ""
        raise TooLarge(
            f"the record has {size} bytes{or_more} with key and headers; {record_bytes} is the most for "
            "this topic by limits.record_bytes or its own max.message.bytes"
        )


def read(content: bytes, like: Record, key_field: tuple[str, ...] | None, record_bytes: int) -> Record:
    """The record of `content`, like `like` but for its value, and for its key if `key_field` is given.

    Raises `InvalidRecord` where the key cannot be found, `TooLarge` above `record_bytes`.
    """
    key = like.key if key_field is None else key_at(content, key_field)
    record = Record(like.topic, content, key, like.headers, like.partition, like.timestamp)
    check_size(record.size(), record_bytes)
    return record
