"""One record: the content is the value, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ingest.answers import queued_response, record_response
from ingest.errors import BadRequest, TooLarge, UnsupportedMediaType
from ingest.formats.fields import read_fields
from ingest.formats.keys import key_at
from ingest.formats.seam import Batch, Bounds, Format, Head, Intent, Reader
from ingest.http.messages import Response
from ingest.records import DeliveryReport, Record

_MORE_THAN_BYTES = ("application/vnd.kafka.", "application/vnd.kafka+", "application/cloudevents")
"""Media types whose meaning is more than their bytes: stored as they are, they would mean something else."""


_WITH_SCHEMA = re.compile(r"application/vnd\.kafka\.(avro|jsonschema|protobuf)\b")
"""REST Proxy v2's envelopes whose keys and values are written by a schema."""
ENVELOPES = (
    "application/vnd.kafka.json.v2+json, application/vnd.kafka.binary.v2+json and "
    "application/vnd.kafka.text.v2+json"
)
"""Those that are taken, for messages."""

MOST_HEADERS = 100
"""The most headers of one record, as many as a request's head has fields."""


def not_read(media_type: str) -> str:
    """How the refusal of a media type begins; what is taken in its place is to follow."""
    why = ", as there is no schema registry here" if _WITH_SCHEMA.match(media_type) else ""
    return f"media type {media_type[:60]!a} is not read here{why}; "


def check_size(size: int, record_bytes: int, *, more: bool = False) -> None:
    """Raises `TooLarge` for a record of `size` bytes, or `more`, where the limit is `record_bytes`."""
    if size > record_bytes:
        or_more = " or more" if more else ""
        raise TooLarge(
            f"the record has {size} bytes{or_more} with key and headers; {record_bytes} is the most for "
            "this topic by limits.record_bytes or its own max.message.bytes"
        )


def check_headers(count: int) -> None:
    """Raises `BadRequest` for more headers than the head of a request has room for."""
    if count > MOST_HEADERS:
        raise BadRequest(f"the record has {count} headers; {MOST_HEADERS} is the most")


def read(content: bytes, like: Record, key_field: tuple[str, ...] | None, record_bytes: int) -> Record:
    """The record of `content`, like `like` but for its value, and for its key if `key_field` is given.

    Raises `InvalidRecord` where the key cannot be found, `TooLarge` above `record_bytes`.
    """
    key = like.key if key_field is None else key_at(content, key_field)
    record = Record(like.topic, content, key, like.headers, like.partition, like.timestamp)
    check_size(record.size(), record_bytes)
    return record


class Plain(Format):
    """Whatever is of no other format, and tombstones."""

    name = "plain"
    media_types: ClassVar[Mapping[str, Any]] = {"*/*": {}}
    answers: ClassVar[Mapping[int, Mapping[str, Any]]] = {
        200: {"application/json": {"$ref": "#/components/schemas/Written"}},
        202: {"application/json": {"$ref": "#/components/schemas/Queued"}},
        204: {},
    }
    keeps_codings = True

    def claims(self, head: Head) -> bool:
        """Everything."""
        return True

    def like(self, head: Head) -> Record:
        """The fields; the media type stays with the record."""
        if head.media_type.startswith(_MORE_THAN_BYTES):
            taken = "send one record"
            if head.match.route.format is None and not head.match.tombstone:
                taken += f", NDJSON, or an envelope: there are {ENVELOPES}"
            raise UnsupportedMediaType(not_read(head.media_type) + taken)
        if head.match.tombstone and any(name.startswith(b"ce-") for name, _ in head.request.fields):
            raise UnsupportedMediaType("CloudEvents (ce-* fields) are not read here; POST them")
        return read_fields(head, content_type=not head.match.tombstone)

    def open(self, intent: Intent, bounds: Bounds) -> Reader:
        """A reader of one record."""
        return RecordReader(intent, bounds)


class RecordReader(Reader):
    """The one record of a request, or a tombstone."""

    def __init__(self, intent: Intent, bounds: Bounds) -> None:
        super().__init__(intent, bounds)
        self.places = not intent.minimal

    def check_length(self, length: int, *, more: bool = False) -> None:
        """Raises `TooLarge` for what no record can be made of."""
        self.check_coded_length(length, more=more)
        check_size(self.intent.like_bytes + length, self.bounds.record_bytes, more=more)

    def check_coded_length(self, length: int, *, more: bool = False) -> None:
        """Raises `TooLarge` by the limit of content; that of a record is for what is made of it."""
        if length > self.bounds.request_bytes:
            or_more = " or more" if more else ""
            raise TooLarge(
                f"the content has {length} bytes{or_more}; "
                f"limits.request_bytes is {self.bounds.request_bytes}"
            )

    def read(self, content: bytes) -> Batch:
        """The record."""
        intent = self.intent
        if intent.match.tombstone:
            if content:
                raise BadRequest("DELETE writes a record without a value, so it has no content")
            record = intent.like
        else:
            record = read(content, intent.like, intent.key_path, self.bounds.record_bytes)
        return Batch((record,), (1,), (), intent.like_cost + len(content))

    def answer(self, reports: Sequence[DeliveryReport | None]) -> Response:
        """Where the record is, or why it is not."""
        (report,) = reports
        if report is None:
            return queued_response(self.intent.like.topic, minimal=self.intent.minimal)
        return record_response(report, minimal=self.intent.minimal)
