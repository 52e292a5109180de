"""What the fields of a request say of its records, on the native way: headers, partition and timestamp."""

from __future__ import annotations

from ingest.errors import BadRequest
from ingest.formats.seam import Head
from ingest.http.codings import is_coded
from ingest.records import Record

_HEADER_PREFIX = b"kafka-header-"
_TRACE_FIELDS = frozenset({b"traceparent", b"tracestate", b"idempotency-key"})
_MAX_TIMESTAMP = (1 << 63) - 1


def read_fields(head: Head, *, content_type: bool) -> Record:
    """The record that the fields describe, without a value.

    If `content_type` is wanted it has that as a header, and the content coding too where that is kept.
    Raises `BadRequest` for a field that cannot be meant.
    """
    match = head.match
    headers: list[tuple[str, bytes | None]] = []
    partition = timestamp = None
    for name, value in head.request.fields:
        if name == b"content-type":
            if content_type:
                headers.append(("content-type", value))
        elif name.startswith(b"kafka-"):
            if name.startswith(_HEADER_PREFIX):
                header = name.removeprefix(_HEADER_PREFIX)
                if not header:
                    raise BadRequest("Kafka-Header- names no header; write Kafka-Header-Trace: abc")
                headers.append((header.decode("ascii"), value))
            elif name == b"kafka-partition":
                partition = _number("Kafka-Partition", value, partition, 0, (1 << 31) - 1)
            elif name == b"kafka-timestamp":
                timestamp = _number("Kafka-Timestamp", value, timestamp, 1, _MAX_TIMESTAMP)
        elif name == b"content-encoding":
            if content_type and match.route.content_coding == "keep" and is_coded(value):
                headers.append(("content-encoding", value))
        elif name in _TRACE_FIELDS:
            headers.append((name.decode("ascii"), value))
    if partition is None:
        partition = match.partition
    return Record(match.topic, None, match.key, tuple(headers), partition, timestamp)


def _number(name: str, value: bytes, before: int | None, least: int, most: int) -> int:
    if before is not None:
        raise BadRequest(f"{name} is given twice")
    if not (value.isdigit() and len(value) <= 19 and least <= int(value) <= most):
        shown = value[:40].decode("ascii", "replace")
        raise BadRequest(f"{name} is {shown!a}; a whole number from {least} to {most} is meant")
    return int(value)
