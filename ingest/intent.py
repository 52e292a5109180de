"""What a request's head asks for: topic, key, headers, promise.  Nothing of its content is looked at."""

from __future__ import annotations

import re
from typing import NamedTuple

from ingest.errors import BadRequest, UnsupportedMediaType
from ingest.http.messages import Request
from ingest.records import Record
from ingest.routing import Match

NDJSON_TYPES = frozenset({"application/x-ndjson", "application/jsonl", "application/x-jsonlines"})

_HEADER_PREFIX = b"kafka-header-"
_TRACE_FIELDS = frozenset({b"traceparent", b"tracestate", b"idempotency-key"})
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_MAX_TIMESTAMP = (1 << 63) - 1


class Intent(NamedTuple):
    """Everything a request's head asks for, once it has been found fit."""

    match: Match
    media_type: str
    like: Record
    """Topic, key, headers, partition and timestamp for every record of the request."""
    queued: bool
    """Answer 202 once the records are in the pipeline."""
    minimal: bool
    """`Prefer: return=minimal`: a success has no content."""
    request_id: bytes | None
    """The client's own, if it gave one that is fit."""
    key_path: tuple[str, ...] | None
    """The JSON field of the key as its names, outermost first."""
    wait_seconds: float
    """How long the request waits for room; 0 is not at all."""
    like_bytes: int
    """`Record.size` of `like`."""
    like_cost: int
    """Its `Record.cost`."""


def request_id(request: Request) -> bytes | None:
    """The id that the client gave the request, if it is fit to be logged and sent back."""
    given = request.field(b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def read_intent(request: Request, match: Match) -> Intent:
    """Everything the head says.

    Raises `BadRequest` for a field that cannot be meant and `UnsupportedMediaType` for content that
    nothing here reads.
    """
    media_type = _media_type(request)
    preferences = _preferences(request)
    route = match.route
    like = _like(request, match, media_type)
    return Intent(
        match,
        media_type,
        like,
        queued=route.promise == "queued" or (route.respond_async and "respond-async" in preferences),
        minimal="return=minimal" in preferences,
        request_id=request_id(request),
        key_path=None if match.key_field is None else tuple(match.key_field.split(".")),
        wait_seconds=route.wait_seconds if route.when_full == "wait" else 0.0,
        like_bytes=like.size(),
        like_cost=like.cost(),
    )


def _media_type(request: Request) -> str:
    """The media type of the content in lower case, without parameters; "" where none is named.

    Raises `UnsupportedMediaType` for a content coding, and for the types whose meaning is more than
    their bytes and which nothing here reads yet: storing them as they are would change what they mean.
    """
    if (request.field(b"content-encoding") or b"identity").lower() != b"identity":
        raise UnsupportedMediaType("content codings are not read here; send the content as it is")
    media_type = (request.field(b"content-type") or b"").partition(b";")[0].strip().lower().decode("latin-1")
    if media_type.startswith(("application/vnd.kafka.", "application/vnd.kafka+", "application/cloudevents")):
        raise UnsupportedMediaType(
            f"media type {media_type[:60]!a} is not read here; send one record, or NDJSON"
        )
    if any(name.startswith(b"ce-") for name, _ in request.fields):
        raise UnsupportedMediaType("CloudEvents (ce-* fields) are not read here; send one record, or NDJSON")
    return media_type


def _like(request: Request, match: Match, media_type: str) -> Record:
    """What the fields say of a request's records.

    Raises `BadRequest` for a field that cannot be meant.
    """
    headers: list[tuple[str, bytes | None]] = []
    partition = timestamp = None
    for name, value in request.fields:
        if name == b"content-type":
            if not match.tombstone and media_type not in NDJSON_TYPES:
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
        elif name in _TRACE_FIELDS:
            headers.append((name.decode("ascii"), value))
    return Record(match.topic, None, match.key, tuple(headers), partition, timestamp)


def _number(name: str, value: bytes, before: int | None, least: int, most: int) -> int:
    if before is not None:
        raise BadRequest(f"{name} is given twice")
    if not (value.isdigit() and len(value) <= 19 and least <= int(value) <= most):
        shown = value[:40].decode("ascii", "replace")
        raise BadRequest(f"{name} is {shown!a}; a whole number from {least} to {most} is meant")
    return int(value)


def _preferences(request: Request) -> set[str]:
    """The preferences named in Prefer fields (RFC 7240), without their parameters."""
    value = request.field(b"prefer")
    if value is None:
        return set()
    parts = value.decode("latin-1").lower().split(",")
    return {part.partition(";")[0].strip().replace(" ", "").replace('"', "") for part in parts}
