"""The envelope of Confluent's REST Proxy v2, which Karapace and Strimzi's bridge take too.

The three answer differently, so the answer's shape is a setting, for the service and for each route:
`compat.v2_dialect` and `v2_dialect`.  docs/reference/compatibility.md has the differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from ingest.answers import error_response
from ingest.errors import (
    BadRequest,
    IngestError,
    TooLarge,
    UnknownPartition,
    Unprocessable,
    UnsupportedMediaType,
    shown,
)
from ingest.formats.base64 import REFUSED
from ingest.formats.cutting import FRAME_BYTES, ArrayInSteps, begins_object, find_array, most_bytes
from ingest.formats.dialects import WRITERS, spokesman
from ingest.formats.keys import JSON_FAULTS, json_fault
from ingest.formats.plain import ENVELOPES, MOST_HEADERS, check_headers, check_size, not_read
from ingest.formats.rest_v2_kinds import KINDS, Item, Kind, read_frame
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
from ingest.records import Alike, DeliveryReport, Record
from ingest.route import NATIVE_PATH, Dialect, Route
from ingest.sections import Compat

PATHS = ("/topics/{topic}", "/topics/{topic}/partitions/{partition}")
ANSWER_TYPE = "application/vnd.kafka.v2+json"
KARAPACE_TYPE = "application/vnd.kafka.json.v2+json"
"""What all of Karapace's answers have, whatever the request has."""

_MEDIA_TYPE = re.compile(r"application/vnd\.kafka(?:\.(json|binary|text))?(?:\.v[12])?\+json")
_BINARY = frozenset({"", "application/json", "application/octet-stream"})
"""What the other servers take for the binary kind, beside its own media types."""

_ENVELOPE = '{"records":[{"value":…},…]}'
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_ANSWER_SCHEMA = {
    "type": "object",
    "properties": {"offsets": {"type": "array", "items": {"type": "object"}}},
    "required": ["offsets"],
}


def _envelope_schema(value: Any) -> Any:
    header = {
        "type": "object",
        "properties": {"key": {"type": "string"}, "value": {"type": "string", "pattern": _BASE64}},
        "required": ["key"],
        "additionalProperties": False,
    }
    item = {
        "type": "object",
        "properties": {
            "key": value,
            "value": value,
            "partition": {"type": ["integer", "null"], "minimum": 0, "maximum": (1 << 31) - 1},
            "timestamp": {"type": ["integer", "null"], "minimum": 1, "maximum": (1 << 63) - 1},
            "headers": {"type": ["array", "null"], "items": header, "maxItems": MOST_HEADERS},
        },
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"records": {"type": "array", "items": item, "minItems": 1, "maxItems": MOST_RECORDS}},
        "required": ["records"],
    }


_MEDIA_TYPES = {
    f"application/vnd.kafka.{kind}.v2+json": _envelope_schema(schema)
    for kind, schema in (
        ("json", {}),
        ("binary", {"type": ["string", "null"], "contentEncoding": "base64", "pattern": _BASE64}),
        ("text", {"type": ["string", "null"]}),
    )
}


_NAMED_MEDIA_TYPES = {
    f"application/vnd.kafka{kind}{version}+json": _MEDIA_TYPES[f"application/vnd.kafka{of}.v2+json"]
    for kind, of in ((".json", ".json"), (".binary", ".binary"), ("", ".binary"), (".text", ".text"))
    for version in (".v2", ".v1", "")
} | dict.fromkeys(sorted(_BINARY - {""}), _MEDIA_TYPES["application/vnd.kafka.binary.v2+json"])


class RestV2(Format):
    """`{"records":[…]}`, on its own paths, and on any route by its media type."""

    name = "rest_v2"
    key_fields = False
    dialects = True
    media_types: ClassVar[Mapping[str, Any]] = _MEDIA_TYPES
    named_media_types: ClassVar[Mapping[str, Any]] = _NAMED_MEDIA_TYPES
    also = (
        "The media types of REST Proxy v2 with .v1 or without a version, too, and the binary one as "
        "application/vnd.kafka.v2+json; on its own paths as application/json or application/octet-stream."
    )
    # If every record failed, the status is a failure's own, with the same content.
    answers: ClassVar[Mapping[int, Mapping[str, Any]]] = {
        **dict.fromkeys(
            (200, 202, 400, 403, 404, 413, 422, 500, 503, 504),
            dict.fromkeys((ANSWER_TYPE, KARAPACE_TYPE), _ANSWER_SCHEMA),  # nobody changes it
        ),
        204: {},
    }

    def __init__(self, compat: Compat, *, paths: bool, native: bool = True) -> None:
        """`paths` says whether its own are served, and `native` whether `NATIVE_PATH` takes what is none."""
        self.paths = PATHS if paths else ()
        self._compat = compat
        self._native = native

    def claims(self, head: Head) -> bool:
        """By media type."""
        media_type = head.media_type
        if head.match.tombstone or not media_type.startswith("application/vnd.kafka"):
            return False
        return _MEDIA_TYPE.fullmatch(media_type) is not None

    def like(self, head: Head) -> Record:
        """The topic, and the partition where the path names one; fields say nothing of a record."""
        self._kind(head.media_type, head.match.route)
        return Record(head.match.topic, partition=head.match.partition)

    def asks_for_queued(self, head: Head) -> bool:
        """Strimzi's `?async=true`."""
        return self._dialect(
            head.match.route.v2_dialect
        ) == "strimzi" and "async=true" in head.match.query.split("&")

    def answers_each(self, intent: Intent) -> bool:
        """Karapace alone refuses the request for its topic."""
        return self._dialect(intent.match.route.v2_dialect) != "karapace"

    def open(self, intent: Intent, bounds: Bounds) -> Reader:
        """A reader of one envelope."""
        route = intent.match.route
        kind = self._kind(intent.media_type, route)
        # What says by its media type that it is an envelope is no other content.
        hint = self._elsewhere(route) if intent.media_type in _BINARY else ""
        return EnvelopeReader(
            intent,
            bounds,
            kind,
            self._dialect(route.v2_dialect),
            strict_200=self._compat.v2_strict_200,
            hint=hint,
        )

    def _dialect(self, own: Dialect | None) -> Dialect:
        return own or self._compat.v2_dialect

    def _elsewhere(self, route: Route) -> str:
        """Where content that is no envelope is written, to end a refusal with; "" where that is nowhere."""
        if not self._native or route.path not in PATHS:
            return ""
        return f"; what is no envelope, such as NDJSON or a CloudEvent, is for {NATIVE_PATH}"

    def _kind(self, media_type: str, route: Route) -> Kind:
        match = _MEDIA_TYPE.fullmatch(media_type)
        if match is not None:
            return KINDS[match[1] or "binary"]
        if media_type in _BINARY:
            return KINDS["binary"]
        message = f"{not_read(media_type)}there are {ENVELOPES}{self._elsewhere(route)}"
        if self._dialect(route.v2_dialect) == "strimzi":
            raise BadRequest(message)
        raise UnsupportedMediaType(message)


class EnvelopeReader(ReaderInSteps):
    """One envelope.  It is all read before any of it is produced, so what is wrong in it writes nothing."""

    def __init__(
        self,
        intent: Intent,
        bounds: Bounds,
        kind: Kind,
        dialect: Dialect,
        *,
        strict_200: bool,
        hint: str = "",
    ) -> None:
        """`hint` is what a refusal of all of the content ends with."""
        super().__init__(intent, bounds)
        self._hint = hint
        self._kind = kind
        self._dialect = dialect
        self._strict_200 = strict_200
        # A failure names its topic.
        self.result_bytes = 256 + len(intent.like.topic)

    def read(self, content: bytes) -> Batch:
        """Its records."""
        if not content or content.isspace():
            raise BadRequest(f"the content is empty; an envelope is {_ENVELOPE}{self._hint}")
        try:
            content.decode()  # values are passed over, and not looked at
            items = self._kind.whole(content).records
        except JSON_FAULTS as error:
            raise self._invalid(error) from None
        if not items:
            raise self._no_records()
        return self._batch(items, 1)

    def read_in_steps(self, content: bytes) -> Iterator[Batch]:
        """The same in batches: the array is cut into its objects, which are read some at a time."""
        begin = find_array(content, "records")
        if not begins_object(content):
            raise BadRequest(f"the content is no JSON object; an envelope is {_ENVELOPE}{self._hint}")
        if begin is None:
            raise self._no_records(f" within the first {FRAME_BYTES} bytes")
        steps = ArrayInSteps(content, most_bytes(self.bounds.record_bytes), "record", begin)
        for objects in steps:
            yield self._cut_batch(objects, steps) if objects else Batch((), ())
        if not steps.before:
            raise self._no_records()
        rule = 'the envelope is {"records":[…]}, with records once and nowhere else'
        try:
            steps.check_frame(read_frame, rule, self._no_records())
        except JSON_FAULTS as error:
            raise self._invalid(error) from None

    def _cut_batch(self, objects: list[bytes], steps: ArrayInSteps) -> Batch:
        _check_count(steps.before + len(objects))
        text = b"[" + b",".join(objects) + b"]"
        try:
            text.decode()
            items = self._kind.items(text)
        except JSON_FAULTS as error:
            raise self._invalid(error, steps.fault(error, objects, "records")) from None
        return self._batch(items, steps.before + 1)

    def _invalid(self, error: Exception, message: str | None = None) -> IngestError:
        """What is wrong with the envelope; `message` says it where the error means another place."""
        if not isinstance(error, msgspec.ValidationError):
            return BadRequest((message or f"invalid JSON: {json_fault(error)}") + self._hint)
        message = (message or shown(str(error))) + self._hint
        if "unknown field" in message:
            return BadRequest(message) if self._dialect == "strimzi" else Unprocessable(message)
        if REFUSED in message and self._dialect == "strimzi":
            return Unprocessable(message)
        return BadRequest(message)

    def _no_records(self, where: str = "") -> IngestError:
        return Unprocessable(f"there are no records{where}; an envelope is {_ENVELOPE}{self._hint}")

    def _batch(self, items: Sequence[Item[Any, bytes]], first: int) -> Batch:
        _check_count(len(items))
        return self._plain_batch(items, first) or self._special_batch(items, first)

    def _plain_batch(self, items: Sequence[Item[Any, bytes]], first: int) -> Batch | None:
        """Records of which nothing but the value is given, in less time; None where there are others."""
        for item in items:
            if (
                item.key is not None
                or item.value is None
                or item.partition is not None
                or item.headers
                or item.timestamp is not None
            ):
                return None
        values = self._kind.values(items)
        if values is None:
            return None
        intent = self.intent
        longest = max(map(len, values))
        if longest + intent.like_bytes > self.bounds.record_bytes:
            return None
        numbers = range(first, first + len(values))
        cost = sum(map(len, values)) + len(values) * intent.like_cost
        return Batch(Alike(intent.like, values, longest=longest), numbers, (), cost)

    def _special_batch(self, items: Sequence[Item[Any, bytes]], first: int) -> Batch:
        topic, fixed, write = self.intent.like.topic, self.intent.like.partition, self._kind.write
        most = self.bounds.record_bytes
        records: list[Record] = []
        numbers: list[int] = []
        failures: list[tuple[int, IngestError]] = []
        cost = 0
        for number, item in enumerate(items, first):
            partition = item.partition
            if partition is None:
                partition = fixed
            elif fixed is not None:
                raise Unprocessable(f"record {number} names a partition, and so does the path; leave one out")
            elif partition < 0:
                raise Unprocessable(f"record {number} has partition {partition}; there is none below 0")
            given = item.headers or ()
            try:
                check_headers(len(given))
                headers = tuple((header.key, header.value) for header in given)
                record = Record(topic, write(item.value), write(item.key), headers, partition, item.timestamp)
                check_size(record.size(), most)
            except (BadRequest, TooLarge) as error:
                failures.append((number, error.alone()))
                continue
            cost += record.cost()
            records.append(record)
            numbers.append(number)
        return Batch(records, numbers, failures, cost)

    # The answer ------------------------------------------------------------------------------------------

    def answer_in_steps(self, reports: Sequence[DeliveryReport | None]) -> Iterator[Response | None]:
        """An item for each record, in the dialect's words."""
        dialect = self._dialect
        write = WRITERS[dialect]
        items: list[bytes] = []
        failures: list[IngestError] = []
        queued = False
        for at in range(0, len(reports), BATCH_RECORDS):
            some = reports[at : at + BATCH_RECORDS]
            items.append(b",".join(map(write, some)))
            failures += [report for report in some if isinstance(report, IngestError)]
            queued = queued or None in some
            yield None
        if dialect == "strimzi" and queued and not failures:
            yield Response(204)
            return
        schemas = b"" if dialect == "strimzi" else b',"key_schema_id":null,"value_schema_id":null'
        content = b'{"offsets":[%b]%b}\n' % (b",".join(items), schemas)
        type_ = KARAPACE_TYPE if dialect == "karapace" else ANSWER_TYPE
        fields = ((b"content-type", type_.encode()),)
        none = len(failures) == len(reports)
        # Karapace refuses it before anything else; Confluent's later versions have it in the items of a 200.
        lacks = not self._strict_200 if dialect == "confluent" else dialect == "karapace"
        if none and lacks and self._lacks_partition(failures):
            yield error_response(failures[0])
            return
        if none and not self._strict_200:
            speaks = spokesman(failures)
            # With the fields of an error, such as Retry-After, but for its type.
            others = tuple(field for field in error_response(speaks).fields if field[0] != b"content-type")
            yield Response(speaks.status, fields + others, content)
            return
        status = 202 if queued else 200
        if failures and dialect == "karapace":
            status = 422
        yield Response(status, fields, content)

    def _lacks_partition(self, failures: Sequence[IngestError]) -> bool:
        """Whether the topic lacks the partition that the path names, which refuses the whole request."""
        named = self.intent.like.partition is not None
        return named and all(isinstance(failure, UnknownPartition) for failure in failures)


def _check_count(count: int) -> None:
    if count > MOST_RECORDS:
        raise TooLarge(f"more than {MOST_RECORDS} records in one request; send several requests")
