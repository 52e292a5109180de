"""Confluent's REST Proxy v3: a stream of objects, each with its report, or a batch of entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Raw, Struct

from ingest.answers import error_body, error_response
from ingest.errors import (
    BadRequest,
    IngestError,
    TooLarge,
    UnknownPartition,
    Unprocessable,
    UnsupportedMediaType,
    shown,
)
from ingest.formats.cutting import STANDS_FOR_ARRAY, ArrayInSteps, Cutter, find_array, most_bytes
from ingest.formats.keys import json_fault
from ingest.formats.plain import MOST_HEADERS, check_headers, check_size
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
ID_CHARACTERS = 80
CLUSTER_CHARACTERS = 255

_JSON = (b"content-type", b"application/json")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_NULL = b"null"


class _Header(Struct, forbid_unknown_fields=True, gc=False):
    name: str
    value: bytes | None = None


class _Data(Struct, forbid_unknown_fields=True, gc=False):
    """A key or a value."""

    type: str | None = None
    data: Raw = Raw(_NULL)
    # What names a schema, and is not read.
    schema: Raw = Raw(_NULL)
    schema_id: Raw = Raw(_NULL)
    schema_version: Raw = Raw(_NULL)
    subject: Raw = Raw(_NULL)
    subject_name_strategy: Raw = Raw(_NULL)

    def names_schema(self) -> bool:
        """Whether its type is that of a schema."""
        named = self.schema, self.schema_id, self.schema_version, self.subject, self.subject_name_strategy
        return any(bytes(each) != _NULL for each in named)


class _Object(Struct, forbid_unknown_fields=True, gc=False):
    """One record as it is written."""

    partition_id: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] | None = None
    headers: list[_Header] = []
    key: _Data | None = None
    value: _Data | None = None
    timestamp: Annotated[datetime, Meta(tz=True)] | None = None


class _Entry(_Object, forbid_unknown_fields=True, gc=False):
    id: Raw = Raw(_NULL)


class _Entries(Struct, forbid_unknown_fields=True):
    entries: list[_Entry] | None = None


class _Frame(Struct, forbid_unknown_fields=True):
    entries: Raw = Raw()


_encode = msgspec.json.Encoder().encode
_read_object = msgspec.json.Decoder(_Object).decode
_read_entries = msgspec.json.Decoder(_Entries).decode
_read_list = msgspec.json.Decoder(list[_Entry]).decode
_read_frame = msgspec.json.Decoder(_Frame).decode
_read_base64 = msgspec.json.Decoder(bytes | None).decode
_read_string = msgspec.json.Decoder(str | None).decode


_DATA_SCHEMA = {
    "type": ["object", "null"],
    "properties": {"type": {"enum": ["BINARY", "JSON", "STRING"]}, "data": {}},
}
_RECORD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "partition_id": {"type": ["integer", "null"], "maximum": (1 << 31) - 1},
        "headers": {
            "type": "array",
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


_ID_SCHEMA = {"type": "string", "minLength": 1, "maxLength": ID_CHARACTERS}
_ENTRY_SCHEMA = {
    "type": "object",
    "properties": {"id": _ID_SCHEMA, **_RECORD_SCHEMA["properties"]},
    "required": ["id"],
}


class _V3(Format):
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


class RestV3(_V3):
    """Objects one after another, or in one array; each is answered before the next has to be sent."""

    name = "rest_v3"
    media_types: ClassVar[Mapping[str, Any]] = {"application/json": _RECORD_SCHEMA}
    # A stream of reports, one after another, is no one JSON value.
    answers: ClassVar[Mapping[int, Mapping[str, Any]]] = {200: {"application/json": {}}}

    def __init__(self, *, paths: bool) -> None:
        """`paths` says whether its own are served."""
        self.paths = PATHS if paths else ()

    def open(self, intent: Intent, bounds: Bounds) -> StreamReader:
        """A reader of one stream."""
        return ObjectReader(intent, bounds)


class RestV3Batch(_V3):
    """`{"entries":[{"id":"1",…}]}`, answered as a whole."""

    name = "rest_v3_batch"
    media_types: ClassVar[Mapping[str, Any]] = {
        "application/json": {
            "type": "object",
            "properties": {
                "entries": {
                    "type": "array",
                    "items": _ENTRY_SCHEMA,
                    "minItems": 1,
                    "maxItems": MOST_RECORDS,
                }
            },
            "required": ["entries"],
        }
    }
    answers: ClassVar[Mapping[int, Mapping[str, Any]]] = {
        207: {
            "application/json": {
                "type": "object",
                "properties": {"successes": {"type": "array"}, "failures": {"type": "array"}},
                "required": ["successes", "failures"],
            }
        }
    }

    def __init__(self, *, paths: bool) -> None:
        """`paths` says whether its own are served."""
        self.paths = tuple(f"{path}:batch" for path in PATHS) if paths else ()

    def open(self, intent: Intent, bounds: Bounds) -> Reader:
        """A reader of one batch."""
        return EntriesReader(intent, bounds)


def _record(item: _Object, intent: Intent, record_bytes: int) -> tuple[Record, bytes]:
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
    check_headers(len(item.headers))
    headers = tuple((header.name, header.value) for header in item.headers)
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
    kind = written.type
    if kind is None:
        if written.names_schema():
            raise BadRequest(
                f"{name} names a schema; there are the types BINARY, JSON and STRING, without one"
            )
        kind = "BINARY"
    data = bytes(written.data)
    found: bytes | None
    try:
        if kind == "JSON":
            found = None if data == _NULL else data  # byte for byte
        elif kind == "BINARY":
            found = _read_base64(data)
        elif kind == "STRING":
            text = _read_string(data)
            found = None if text is None else text.encode()
        else:
            raise BadRequest(f"{name}.type is {kind[:60]!a}; there are BINARY, JSON and STRING")
    except msgspec.DecodeError as error:
        raise BadRequest(f"{name}.data of type {kind}: {error}") from None
    size = 0 if found is None else len(found)
    return found, b',"%b":{"type":"%b","size":%d}' % (name.encode(), kind.encode(), size)


def _receipt(begin: bytes, receipt: Receipt, said: bytes) -> bytes:
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


def _begin(intent: Intent) -> bytes:
    """What each report says of cluster and topic."""
    cluster = (intent.match.cluster or "")[:CLUSTER_CHARACTERS]
    return b'"cluster_id":%b,"topic_name":%b' % (_encode(cluster), _encode(intent.like.topic))


def _invalid(error: Exception) -> BadRequest:
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
        self._begin = b'"error_code":200,' + _begin(intent)
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
                    record, said = _record(_read_object(text), self._intent, self._record_bytes)
                except msgspec.ValidationError as wrong:
                    failures.append((self._number, _invalid(wrong)))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
                    error, more = _invalid(wrong), False
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
                results[number] = _receipt(self._begin, report, said)
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


class EntriesReader(ReaderInSteps):
    """The entries of one batch.  An entry whose key or value is wrong fails alone."""

    def __init__(self, intent: Intent, bounds: Bounds) -> None:
        super().__init__(intent, bounds)
        self._ids: dict[str, bytes] = {}  # and the end of each one's report
        self.result_bytes = 384 + len(_begin(intent))

    def read(self, content: bytes) -> Batch:
        """Their records."""
        try:
            content.decode()
            entries = _read_entries(content).entries
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _invalid(error) from None
        if not entries:
            raise _no_entries()
        return self._batch(entries)

    def read_in_steps(self, content: bytes) -> Iterator[Batch]:
        """The same in batches."""
        begin = find_array(content, "entries")
        if begin is None:
            raise _no_entries()
        steps = ArrayInSteps(content, most_bytes(self.bounds.record_bytes), begin)
        try:
            for objects in steps:
                text = b"[" + b",".join(objects) + b"]"
                text.decode()
                yield self._batch(_read_list(text))
            if not self._ids:
                raise _no_entries()
            frame = steps.frame()
            frame.decode()
            if bytes(_read_frame(frame).entries) != STANDS_FOR_ARRAY:
                raise BadRequest('a batch is {"entries":[…]}, with entries once and nowhere else')
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _invalid(error) from None

    def _batch(self, entries: Sequence[_Entry]) -> Batch:
        if len(self._ids) + len(entries) > MOST_RECORDS:
            raise TooLarge(f"more than {MOST_RECORDS} entries in one batch; send several")
        records: list[Record] = []
        numbers: list[int] = []
        failures: list[tuple[int, IngestError]] = []
        cost = 0
        for entry in entries:
            name = _string(bytes(entry.id))
            if name is None or not 1 <= len(name) <= ID_CHARACTERS:
                raise _wrong_batch(f"the id of each entry is a string of 1 to {ID_CHARACTERS} characters")
            if name in self._ids:
                raise _wrong_batch(f"the id {name!a} is there twice")
            number = len(self._ids) + 1
            self._ids[name] = b""
            try:
                record, said = _record(entry, self.intent, self.bounds.record_bytes)
            except IngestError as error:
                failures.append((number, error.alone()))
                continue
            self._ids[name] = said
            records.append(record)
            numbers.append(number)
            cost += record.cost()
        return Batch(records, numbers, failures, cost)

    def answer_in_steps(self, reports: Sequence[DeliveryReport | None]) -> Iterator[Response | None]:
        """Two lists, by the entries' ids."""
        begin = _begin(self.intent)
        successes: list[bytes] = []
        failures: list[bytes] = []
        for number, ((name, said), report) in enumerate(zip(self._ids.items(), reports, strict=True), 1):
            if isinstance(report, Receipt):
                successes.append(_receipt(b'"id":%b,%b' % (_encode(name), begin), report, said))
            elif isinstance(report, IngestError):
                failures.append(_encode({"id": name} | error_body(report)))
            if not number % BATCH_RECORDS:
                yield None
        lists = b",".join(successes), b",".join(failures)
        yield Response(207, (_JSON,), b'{"successes":[%b],"failures":[%b]}\n' % lists)


def _string(text: bytes) -> str | None:
    """The string that is written so, if it is one."""
    try:
        return _read_string(text) if text.startswith(b'"') else None
    except msgspec.DecodeError:  # half of a surrogate pair
        return None


def _wrong_batch(message: str) -> IngestError:
    return Unprocessable(message, error_code=42208)


def _no_entries() -> IngestError:
    return _wrong_batch('there are no entries; a batch is {"entries":[{"id":"1","value":{…}},…]}')
