"""What every peer answers."""

from __future__ import annotations

QUEUED = b'{"promise":"queued"}'
FULL = b'{"message":"no room for the record in time"}'
FAILED = b'{"message":"Kafka did not report the record as written"}'


def receipt(topic: str, partition: int | None, offset: int | None) -> bytes:
    """The answer for a record that Kafka has."""
    return b'{"topic":"%b","partition":%d,"offset":%d}' % (topic.encode(), partition or 0, offset or 0)
