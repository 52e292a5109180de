"""CloudEvents 1.0: the HTTP protocol binding in, the Kafka protocol binding out.

Binary events have their attributes in `ce-*` fields and become records with `ce_*` headers; structured ones
and those of a batch are their record's value, whole.  The specification's documents, all of version 1.0.2:
cloudevents/spec.md, bindings/http-protocol-binding.md, bindings/kafka-protocol-binding.md, http-webhook.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Meta, Raw, Struct

from ingest.errors import BadRequest, IngestError, InvalidRecord, TooLarge, UnsupportedMediaType
from ingest.formats.cutting import ArrayInSteps, most_bytes
from ingest.formats.fields import read_fields
from ingest.formats.keys import JSON_FAULTS, json_fault, key_at
from ingest.formats.plain import RecordReader, check_size
from ingest.formats.seam import (
    BATCH_RECORDS,
    MOST_RECORDS,
    Batch,
    Bounds,
    Format,
    Head,
    Intent,
    Reader,
    ReaderInSteps,
)
from ingest.http.messages import Response
from ingest.records import DeliveryReport, Record
from ingest.sections import Compat
from ingest.tally import Tally

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
VERSION = "1.0"
REQUIRED = ("specversion", "id", "source", "type")

_PREFIX = b"ce-"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_Text = Annotated[str, Meta(min_length=1)]


class _Event(Struct, gc=False):
    """What is asked of an event in JSON; its other attributes, and its data, are passed over."""

    specversion: _Text
    id: _Text
    source: _Text
    type: _Text
    partitionkey: str | None = None


_read_event = msgspec.json.Decoder(_Event).decode
_read_items = msgspec.json.Decoder(list[Raw]).decode
_pass_over = msgspec.json.Decoder(Raw).decode


_COUNTED = {"$ref": "#/components/schemas/Counted"}
_EVENT_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string", "minLength": 1} for name in REQUIRED}
    | {"specversion": {"const": VERSION}, "partitionkey": {"type": ["string", "null"]}},
    "required": list(REQUIRED),
}


class CloudEvents(Format):
    """Binary, structured, or a batch, by the media type and the fields."""

    name = "cloudevents"
    media_types: ClassVar[Mapping[str, Any]] = {
        STRUCTURED: _EVENT_SCHEMA,
        BATCH: {"type": "array", "items": _EVENT_SCHEMA, "maxItems": MOST_RECORDS},
    }
    answers: ClassVar[Mapping[int, Mapping[str, Any]]] = {
        200: {"application/json": {"anyOf": [{"$ref": "#/components/schemas/Written"}, _COUNTED]}},
        202: {"application/json": {"anyOf": [{"$ref": "#/components/schemas/Queued"}, _COUNTED]}},
        204: {},
        207: {"application/json": _COUNTED},
    }

    def __init__(self, compat: Compat) -> None:
        self._keys = compat.cloudevents_key
        self._origins = compat.webhook_origins

    def claims(self, head: Head) -> bool:
        """A media type of events, or any field that begins with `ce-`."""
        if head.match.tombstone:
            return False
        if head.media_type.startswith("application/cloudevents"):
            return True
        for name, _ in head.request.fields:  # noqa: SIM110  # any() takes three times as long
            if name.startswith(_PREFIX):
                return True
        return False

    def like(self, head: Head) -> Record:
        """The fields; of a binary event its attributes too."""
        media_type = head.media_type
        if media_type.startswith("application/cloudevents-batch"):
            if media_type != BATCH:
                raise UnsupportedMediaType(f"media type {media_type[:60]!a} is not read here; send {BATCH}")
            like = read_fields(head, content_type=False)
            headers = (("content-type", STRUCTURED.encode()), *like.headers)
            return msgspec.structs.replace(like, headers=headers)
        if media_type.startswith("application/cloudevents"):
            if media_type != STRUCTURED:
                raise UnsupportedMediaType(
                    f"media type {media_type[:60]!a} is not read here; send {STRUCTURED}"
                )
            return read_fields(head, content_type=True)
        attributes = _attributes(head)
        for name in REQUIRED:
            if not attributes.get(name):
                raise BadRequest(f"a CloudEvent has the field ce-{name}, which is missing here, or empty")
        _check_version(attributes["specversion"])
        like = read_fields(head, content_type=True)
        key = like.key
        if self._keys and key is None and head.match.key_field is None and "partitionkey" in attributes:
            key = attributes["partitionkey"].encode()
        own = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())
        return msgspec.structs.replace(like, key=key, headers=own + like.headers)

    def open(self, intent: Intent, bounds: Bounds) -> Reader:
        """A reader of one event, or of many."""
        if intent.media_type == BATCH:
            return BatchReader(intent, bounds, keys=self._keys)
        if intent.media_type == STRUCTURED:
            return StructuredReader(intent, bounds, keys=self._keys)
        return BinaryReader(intent, bounds)

    def options(self, head: Head) -> Response | None:
        """The handshake of http-webhook.md, section 4: whoever may send is told so."""
        origin = head.request.field(b"webhook-request-origin")
        if origin is None:
            return None
        allowed = b"*"
        if self._origins is not None:
            if origin.decode("latin-1") not in self._origins:
                return None
            allowed = origin
        fields = (
            (b"allow", b"POST"),
            (b"webhook-allowed-origin", allowed),
            (b"webhook-allowed-rate", b"*"),  # who sends too much is told with 503
        )
        return Response(200, fields)


def _attributes(head: Head) -> dict[str, str]:
    """The attributes in `ce-*` fields: unquoted, then percent-decoded once (HTTP binding, 3.1.3.2)."""
    attributes: dict[str, str] = {}
    for name, value in head.request.fields:
        if not name.startswith(_PREFIX):
            continue
        attribute = name.removeprefix(_PREFIX).decode("ascii")
        if not attribute:
            raise BadRequest("ce- names no attribute; write ce-subject: abc")
        if attribute in attributes:
            raise BadRequest(f"ce-{attribute} is given twice")
        text = value.decode("latin-1")
        if quoted := _QUOTED.fullmatch(text):
            text = _ESCAPED.sub(r"\1", quoted[1])
        try:
            attributes[attribute] = unquote_to_bytes(text.encode("latin-1")).decode()
        except UnicodeDecodeError:
            raise BadRequest(f"ce-{attribute} is not UTF-8 once it is percent-decoded") from None
    return attributes


def _check_version(version: str) -> None:
    if version != VERSION:
        raise BadRequest(f"CloudEvents of version {version[:20]!a} are not read here; {VERSION} is")


class BinaryReader(RecordReader):
    """One event whose data is the content."""

    def read(self, content: bytes) -> Batch:
        """Its record.  No data is a null value (Kafka binding, 3.2.2)."""
        if content:
            return super().read(content)
        if self.intent.key_path is not None:
            raise InvalidRecord("there is no data to take the key from")
        return Batch((self.intent.like,), (1,), (), self.intent.like_cost)


def _read_json(
    text: bytes, like: Record, key_path: tuple[str, ...] | None, record_bytes: int, *, keys: bool
) -> Record:
    """The record of an event in JSON, which is its value as it is.

    Raises `InvalidRecord` for what is no event, and `TooLarge`.
    """
    try:
        text.decode()
        event = _read_event(text)
        _check_version(event.specversion)
    except JSON_FAULTS as error:
        raise InvalidRecord(f"no CloudEvent: {json_fault(error)}") from None
    except BadRequest as error:
        raise InvalidRecord(error.message) from None
    key = like.key
    if key_path is not None:
        key = key_at(text, key_path)
    elif keys and key is None and event.partitionkey is not None:
        key = event.partitionkey.encode()
    record = Record(like.topic, text, key, like.headers, like.partition, like.timestamp)
    check_size(record.size(), record_bytes)
    return record


def _check_item(text: bytes, number: int) -> None:
    """Raises `BadRequest` for one of a batch that is no JSON, so that the batch is none either."""
    try:
        _pass_over(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"no batch of CloudEvents: item {number}: {json_fault(error)}") from None


class StructuredReader(RecordReader):
    """One event, all of it in the content."""

    def __init__(self, intent: Intent, bounds: Bounds, *, keys: bool) -> None:
        super().__init__(intent, bounds)
        self._keys = keys

    def read(self, content: bytes) -> Batch:
        """Its record."""
        intent = self.intent
        record = _read_json(content, intent.like, intent.key_path, self.bounds.record_bytes, keys=self._keys)
        return Batch((record,), (1,), (), record.cost())


class BatchReader(ReaderInSteps):
    """Events in an array; each becomes a structured record, or fails alone."""

    result_bytes = 16  # only counted; failures are paid for apart
    places = False

    def __init__(self, intent: Intent, bounds: Bounds, *, keys: bool) -> None:
        super().__init__(intent, bounds)
        self._keys = keys

    def read(self, content: bytes) -> Batch:
        """Their records."""
        try:
            items = [bytes(item) for item in _read_items(content)]
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadRequest(f"no batch of CloudEvents: {json_fault(error)}") from None
        for number, item in enumerate(items, 1):
            if not item.startswith(b"{"):
                raise BadRequest(f"no batch of CloudEvents: item {number} is no object")
        return self._batch(items, 1)

    def read_in_steps(self, content: bytes) -> Iterator[Batch]:
        """The same in batches."""
        steps = ArrayInSteps(content, most_bytes(self.bounds.record_bytes), "item")
        for items in steps:
            if steps.before + len(items) > MOST_RECORDS:
                raise TooLarge(f"more than {MOST_RECORDS} events in one batch; send several")
            first = steps.before + 1
            batch = self._batch(items, first)
            for number, _ in batch.failures:
                _check_item(items[number - first], number)
            yield batch
        if content[steps.end :].strip(b" \t\r\n"):
            raise BadRequest("no batch of CloudEvents: there is more behind the array")

    def _batch(self, items: Sequence[bytes], first: int) -> Batch:
        intent, most = self.intent, self.bounds.record_bytes
        records: list[Record] = []
        numbers: list[int] = []
        failures: list[tuple[int, IngestError]] = []
        cost = 0
        for number, item in enumerate(items, first):
            try:
                record = _read_json(item, intent.like, intent.key_path, most, keys=self._keys)
            except (InvalidRecord, TooLarge) as error:
                failures.append((number, error.alone()))
                continue
            records.append(record)
            numbers.append(number)
            cost += record.cost()
        return Batch(records, numbers, failures, cost)

    def answer_in_steps(self, reports: Sequence[DeliveryReport | None]) -> Iterator[Response | None]:
        """The counts, as for lines."""
        tally = Tally()
        for at in range(0, len(reports), BATCH_RECORDS):
            some = reports[at : at + BATCH_RECORDS]
            failures = [(n, each) for n, each in enumerate(some, at + 1) if isinstance(each, IngestError)]
            tally.count_queued(range(len(some) - len(failures)), failures)
            yield None
        yield tally.response(queued=self.intent.queued, minimal=self.intent.minimal, called="item")
