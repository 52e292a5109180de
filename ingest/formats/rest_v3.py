"""Confluent's REST Proxy v3: a stream of objects, each with its report; and what its batches share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Generic

import msgspec
from msgspec import Meta, Raw, Struct

from ingest.answers import error_body, error_response
from ingest.errors import (
    BadRequest,
    IngestError,
    UnknownPartition,
    Unprocessable,
    UnsupportedMediaType,
    shown,
)
from ingest.formats.base64 import B, from_base64, read_leniently
from ingest.formats.cutting import Cutter, most_bytes
from ingest.formats.keys import JSON_FAULTS, json_fault
from ingest.formats.plain import MOST_HEADERS, check_headers, check_size
from ingest.formats.seam import (
    Batch,
    Bounds,
    Format,
    Head,
    Intent,
    StreamReader,
)
from ingest.http.messages import Response
from ingest.records import DeliveryReport, Receipt, Record
from ingest.tally import Tally

PATHS = tuple(f"{base}/v3/clusters/{{cluster}}/topics/{{topic}}/records" for base in ("", "/kafka"))
MOST_AT_ONCE = 200
"""Records of one batch of a stream: each has a report of some hundred bytes, all written at once."""
RECORD_COST = 2_500
"""What making a record takes, as so many bytes of JSON."""
CLUSTER_CHARACTERS = 255

_JSON = (b"content-type", b"application/json")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_NULL = b"null"
_NOT_GIVEN = Raw(_NULL)
"""By its identity: what was not written."""


class _Header(Struct, Generic[B], forbid_unknown_fields=True, gc=False):
    name: str
    value: B | None = None


class _Data(Struct, forbid_unknown_fields=True, gc=False):
    """A key or a value."""

    type: str | None = None
    data: Raw = Raw(_NULL)
    # What names a schema, and is not read.
    schema: Raw = _NOT_GIVEN
    schema_id: Raw = _NOT_GIVEN
    schema_version: Raw = _NOT_GIVEN
    subject: Raw = _NOT_GIVEN
    subject_name_strategy: Raw = _NOT_GIVEN

    def names_schema(self) -> bool:
        """Whether it is to be written by a schema, whatever its type."""
        named = self.schema, self.schema_id, self.schema_version, self.subject, self.subject_name_strategy
        return any(each is not _NOT_GIVEN and bytes(each) != _NULL for each in named)


class WrittenRecord(Struct, Generic[B], forbid_unknown_fields=True, gc=False):
    """One record as it is written."""

    id: Raw = Raw(_NULL)  # of an entry of a batch; in a stream it is passed over
    partition_id: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] | None = None
    headers: list[_Header[B]] | None = None
    key: _Data | None = None
    value: _Data | None = None
    timestamp: Annotated[datetime, Meta(tz=True)] | None = None


_encode = msgspec.json.Encoder().encode
_read_object = msgspec.json.Decoder(WrittenRecord[bytes]).decode
_read_loose_object = msgspec.json.Decoder(WrittenRecord[str]).decode
_read_base64 = msgspec.json.Decoder(bytes | None).decode
_read_string = msgspec.json.Decoder(str | None).decode


_DATA_SCHEMA = {
    "type": ["object", "null"],
    "properties": {"type": {"enum": ["BINARY", "JSON", "STRING"]}, "data": {}},
}
RECORD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "partition_id": {"type": ["integer", "null"], "maximum": (1 << 31) - 1},
        "headers": {
            "type": ["array", "null"],
            "maxItems": MOST_HEADERS,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "value": {"type": ["string", "null"]}},
                "required": ["name"],
            },
        },
        "key": _DATA_SCHEMA,
        "value": _DATA_SCHEMA,
        "timestamp": {"type": ["string", "null"], "format": "date-time"},
    },
}


class V3(Format):
    """What the two ways of v3 have in common."""

    queues = False
    key_fields = False

    def like(self, head: Head) -> Record:
        """The topic; fields say nothing of a record."""
        if head.media_type not in ("", "application/json"):
            raise UnsupportedMediaType(
                f"media type {head.media_type[:60]!a} is not read here; send application/json"
            )
        return Record(head.match.topic, partition=head.match.partition)


class RestV3(V3):
    """Objects one after another, or in one array; each is answered before the next has to be sent."""

    name = "rest_v3"
    media_types: ClassVar[Mapping[str, Any]] = {"application/json": RECORD_SCHEMA}
    # A stream of reports, one after another, is no one JSON value.
    answers: ClassVar[Mapping[int, Mapping[str, Any]]] = {200: {"application/json": {}}}

    def __init__(self, *, paths: bool) -> None:
        """`paths` says whether its own are served."""
        self.paths = PATHS if paths else ()

    def open(self, intent: Intent, bounds: Bounds) -> StreamReader:
        """A reader of one stream."""
        return ObjectReader(intent, bounds)


def decode_headers(record: Any, where: str = "$") -> Any:
    """Decode what is in base64, in its place.  Raises `msgspec.ValidationError`."""
    headers = record.headers or ()
    if len(headers) <= MOST_HEADERS:  # what has more is refused anyway
        for number, header in enumerate(headers):
            header.value = from_base64(header.value, "%s.headers[%d].value", where, number)
    return record


def read_record(item: WrittenRecord[bytes], intent: Intent, record_bytes: int) -> tuple[Record, bytes]:
    """The record of an object, and the end of its report.

    Raises `BadRequest`, `UnknownPartition` and `TooLarge`.
    """
    partition = item.partition_id
    if partition is None:
        partition = intent.like.partition
    elif intent.like.partition is not None:
        raise BadRequest("the record has a partition_id, and its path names a partition; leave one out")
    elif partition < 0:
        raise UnknownPartition(f"there is no partition {partition}")
    key, key_said = _bytes(item.key, "key")
    value, value_said = _bytes(item.value, "value")
    given = item.headers or ()
    check_headers(len(given))
    headers = tuple((header.name, header.value) for header in given)
    timestamp = None
    if item.timestamp is not None:
        timestamp = (item.timestamp - _EPOCH) // timedelta(milliseconds=1)
        if not 0 <= timestamp <= _LAST:
            raise BadRequest("timestamp is before 1970, where Kafka has none, or after 9999")
    record = Record(intent.like.topic, value, key, headers, partition, timestamp)
    check_size(record.size(), record_bytes)
    return record, key_said + value_said


def _bytes(written: _Data | None, name: str) -> tuple[bytes | None, bytes]:
    """A key or value, and what its report says of it: not an object, of which there may be thousands."""
    if written is None:
        return None, b""
    if written.names_schema():
        raise BadRequest(f"{name} names a schema; there are the types BINARY, JSON and STRING, without one")
    kind = "BINARY" if written.type is None else written.type
    data = bytes(written.data)
    found: bytes | None
    try:
        if kind == "JSON":
            found = None if data == _NULL else data  # byte for byte
        elif kind == "BINARY":
            found = read_leniently(data, _read_base64, _read_string, from_base64)
        elif kind == "STRING":
            text = _read_string(data)
            found = None if text is None else text.encode()
        else:
            raise BadRequest(f"{name}.type is {kind[:60]!a}; there are BINARY, JSON and STRING")
    except msgspec.DecodeError as error:
        raise BadRequest(f"{name}.data of type {kind}: {error}") from None
    size = 0 if found is None else len(found)
    return found, b',"%b":{"type":"%b","size":%d}' % (name.encode(), kind.encode(), size)


def report_receipt(begin: bytes, receipt: Receipt, said: bytes) -> bytes:
    """The report of a record that was written; `begin` is how it begins, and `said` how it ends."""
    timestamp = b""
    if receipt.timestamp is not None:
        timestamp = b',"timestamp":"%b"' % _instant(receipt.timestamp).encode()
    return b'{%b,"partition_id":%d,"offset":%d%b%b}' % (
        begin,
        receipt.partition,
        receipt.offset,
        timestamp,
        said,
    )


def _instant(milliseconds: int) -> str:
    """A time as Java writes it: no fraction where there is none."""
    instant = _EPOCH + timedelta(milliseconds=milliseconds)
    return instant.isoformat(timespec="milliseconds").removesuffix("+00:00").removesuffix(".000") + "Z"


def report_begin(intent: Intent) -> bytes:
    """What each report says of cluster and topic."""
    cluster = (intent.match.cluster or "")[:CLUSTER_CHARACTERS]
    return b'"cluster_id":%b,"topic_name":%b' % (_encode(cluster), _encode(intent.like.topic))


def invalid_object(error: Exception) -> BadRequest:
    """The refusal of what is no such object, by what reading it raised; see `json_fault`."""
    if isinstance(error, msgspec.ValidationError):
        return BadRequest(shown(str(error)))
    return BadRequest(f"invalid JSON: {json_fault(error)}")


class ObjectReader(StreamReader):
    """The records of one stream."""

    each = True
    idles = True
    record_cost = RECORD_COST

    def __init__(self, intent: Intent, bounds: Bounds) -> None:
        self._intent = intent
        self._record_bytes = bounds.record_bytes
        self._at_once = MOST_AT_ONCE
        self._cost_bytes = bounds.cost_bytes
        self._cutter = Cutter(most_bytes(bounds.record_bytes))
        self._begin = b'"error_code":200,' + report_begin(intent)
        self._number = 0
        self._begun = False

    @property
    def held_bytes(self) -> int:
        """Bytes of the object that has begun."""
        return self._cutter.held_bytes

    def begins(self, data: bytes) -> bool:
        """Anything of an object: who sends that waits for the answer to begin."""
        return bool(data.strip(b" \t\r\n[]"))

    def feed(self, data: bytes) -> Iterator[Batch]:
        """The objects that end in `data`.  Raises `BadRequest` for what is no JSON, `TooLarge`."""
        self._begun = self._begun or not data.isspace()
        self._cutter.feed(data)
        while True:
            objects, error, more = self._cut()
            records: list[Record] = []
            numbers: list[int] = []
            failures: list[tuple[int, IngestError]] = []
            notes: list[bytes] = []
            cost = 0
            for text in objects:
                self._number += 1
                try:
                    text.decode()
                    item = read_leniently(text, _read_object, _read_loose_object, decode_headers)
                    record, said = read_record(item, self._intent, self._record_bytes)
                except msgspec.ValidationError as wrong:
                    failures.append((self._number, invalid_object(wrong)))
                except JSON_FAULTS as wrong:
                    error, more = invalid_object(wrong), False
                    break
                except IngestError as wrong:
                    failures.append((self._number, wrong.alone()))
                else:
                    if cost and cost + record.cost() > self._cost_bytes:
                        yield Batch(records, numbers, failures, cost, notes)
                        records, numbers, failures, notes, cost = [], [], [], [], 0
                    cost += record.cost()
                    records.append(record)
                    numbers.append(self._number)
                    notes.append(said)
            if objects or more:
                yield Batch(records, numbers, failures, cost, notes)
            if error is not None:
                raise error
            if not more:
                return

    def _cut(self) -> tuple[list[bytes], IngestError | None, bool]:
        """Some objects, why nothing can be read behind them, and whether to look for more."""
        objects: list[bytes] = []
        try:
            while len(objects) < self._at_once:
                found = self._cutter.next()
                if found is None:
                    return objects, None, False
                if not found:
                    break  # others are to have their turn
                objects.append(found)
        except IngestError as error:
            return objects, error.alone(), False
        return objects, None, True

    def end(self) -> Iterable[Batch]:
        """Raises `BadRequest` where something is not complete, `Unprocessable` where there was nothing."""
        if self._begun:
            self._cutter.end()
        if not self._number:
            raise Unprocessable('the request has no records; a record is an object as in {"value":{…}}')
        return ()

    def results(self, batch: Batch, reports: Sequence[DeliveryReport]) -> bytes:
        """A report for each object, in order."""
        results: dict[int, bytes] = {}
        for number, report, said in zip(batch.numbers, reports, batch.notes or (), strict=True):
            if isinstance(report, Receipt):
                results[number] = report_receipt(self._begin, report, said)
            else:
                results[number] = _encode(error_body(report))
        for number, error in batch.failures:
            results[number] = _encode(error_body(error))
        return b"".join(results[number] + b"\r\n" for number in sorted(results))

    def last(self, error: IngestError) -> bytes:
        """One more report."""
        return _encode(error_body(error)) + b"\r\n"

    def answer(self, tally: Tally, error: IngestError | None) -> Response:
        """The error: without one, the answer has begun."""
        assert error is not None  # noqa: S101
        return error_response(error)
