"""Confluent's REST Proxy v3, `records:batch`: a batch of entries, each with an id, answered as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic

import msgspec
from msgspec import Raw, Struct

from ingest.answers import error_body
from ingest.errors import BadRequest, IngestError, TooLarge, Unprocessable
from ingest.formats.base64 import B, read_leniently
from ingest.formats.cutting import FRAME_BYTES, ArrayInSteps, begins_object, find_array, most_bytes
from ingest.formats.keys import JSON_FAULTS
from ingest.formats.rest_v3 import (
    PATHS,
    RECORD_SCHEMA,
    V3,
    WrittenRecord,
    decode_headers,
    invalid_object,
    read_record,
    report_begin,
    report_receipt,
)
from ingest.formats.seam import BATCH_RECORDS, MOST_RECORDS, Batch, Bounds, Intent, Reader, ReaderInSteps
from ingest.http.messages import Response
from ingest.records import DeliveryReport, Receipt, Record

ID_CHARACTERS = 80

_JSON = (b"content-type", b"application/json")


class _Entries(Struct, Generic[B], forbid_unknown_fields=True):
    entries: list[WrittenRecord[B]] | None = None


class _Frame(Struct, forbid_unknown_fields=True):
    entries: Raw = Raw()


_encode = msgspec.json.Encoder().encode
_read_entries = msgspec.json.Decoder(_Entries[bytes]).decode
_read_loose_entries = msgspec.json.Decoder(_Entries[str]).decode
_read_list = msgspec.json.Decoder(list[WrittenRecord[bytes]]).decode
_read_loose_list = msgspec.json.Decoder(list[WrittenRecord[str]]).decode
_read_frame = msgspec.json.Decoder(_Frame).decode
_read_string = msgspec.json.Decoder(str | None).decode


_ID_SCHEMA = {"type": "string", "minLength": 1, "maxLength": ID_CHARACTERS}
_ENTRY_SCHEMA = {
    "type": "object",
    "properties": {"id": _ID_SCHEMA, **RECORD_SCHEMA["properties"]},
    "required": ["id"],
}


class RestV3Batch(V3):
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


class EntriesReader(ReaderInSteps):
    """The entries of one batch.  An entry whose key or value is wrong fails alone."""

    def __init__(self, intent: Intent, bounds: Bounds) -> None:
        super().__init__(intent, bounds)
        self._ids: dict[str, bytes] = {}  # and the end of each one's report
        self.result_bytes = 384 + len(report_begin(intent))

    def read(self, content: bytes) -> Batch:
        """Their records."""
        try:
            content.decode()
            entries = read_leniently(content, _read_entries, _read_loose_entries, _decode_entries).entries
        except JSON_FAULTS as error:
            raise invalid_object(error) from None
        if not entries:
            raise _no_entries()
        return self._batch(entries)

    def read_in_steps(self, content: bytes) -> Iterator[Batch]:
        """The same in batches."""
        begin = find_array(content, "entries")
        if not begins_object(content):
            raise BadRequest("the content is no JSON object")
        if begin is None:
            raise _no_entries(f" within the first {FRAME_BYTES} bytes")
        steps = ArrayInSteps(content, most_bytes(self.bounds.record_bytes), "entry", begin)
        for objects in steps:
            text = b"[" + b",".join(objects) + b"]"
            try:
                text.decode()
                entries = read_leniently(text, _read_list, _read_loose_list, _decode_list)
            except JSON_FAULTS as error:
                raise BadRequest(steps.fault(error, objects, "entries")) from None
            yield self._batch(entries)
        if not self._ids:
            raise _no_entries()
        rule = 'a batch is {"entries":[…]}, with entries once and nowhere else'
        try:
            steps.check_frame(lambda frame: bytes(_read_frame(frame).entries), rule, _no_entries())
        except JSON_FAULTS as error:
            raise invalid_object(error) from None

    def _batch(self, entries: Sequence[WrittenRecord[bytes]]) -> Batch:
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
                record, said = read_record(entry, self.intent, self.bounds.record_bytes)
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
        begin = report_begin(self.intent)
        successes: list[bytes] = []
        failures: list[bytes] = []
        for number, ((name, said), report) in enumerate(zip(self._ids.items(), reports, strict=True), 1):
            if isinstance(report, Receipt):
                successes.append(report_receipt(b'"id":%b,%b' % (_encode(name), begin), report, said))
            elif isinstance(report, IngestError):
                failures.append(_encode({"id": name} | error_body(report)))
            if not number % BATCH_RECORDS:
                yield None
        lists = b",".join(successes), b",".join(failures)
        yield Response(207, (_JSON,), b'{"successes":[%b],"failures":[%b]}\n' % lists)


def _decode_entries(entries: Any) -> Any:
    _decode_list(entries.entries, "$.entries")
    return entries


def _decode_list(entries: Any, where: str = "$") -> Any:
    for number, entry in enumerate(entries or ()):
        decode_headers(entry, f"{where}[{number}]")
    return entries


def _string(text: bytes) -> str | None:
    """The string that is written so, if it is one."""
    try:
        return _read_string(text) if text.startswith(b'"') else None
    except msgspec.DecodeError:  # half of a surrogate pair
        return None


def _wrong_batch(message: str) -> IngestError:
    return Unprocessable(message, error_code=42208)


def _no_entries(where: str = "") -> IngestError:
    return _wrong_batch(
        f'there are no entries{where}; a batch is {{"entries":[{{"id":"1","value":{{…}}}},…]}}'
    )
