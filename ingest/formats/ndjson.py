"""One record a line: NDJSON and JSON Lines, read as the content arrives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from ingest.answers import error_body
from ingest.errors import BadRequest, IngestError, TooLarge
from ingest.formats.fields import read_fields
from ingest.formats.keys import are_json, check_json, key_at, keys_at
from ingest.formats.seam import BATCH_RECORDS, Batch, Bounds, Format, Head, Intent, StreamReader
from ingest.http.messages import Response
from ingest.records import Alike, DeliveryReport, Receipt, Record
from ingest.tally import Tally
from ingest.turn import LINE_COST, PLAIN_LINE_COST

NDJSON_TYPES = frozenset(
    f"application/{name}" for name in ("ndjson", "x-ndjson", "jsonl", "x-jsonl", "jsonlines", "x-jsonlines")
)
"""None is registered; senders of lines use all of them."""

COMMON_BYTES = 4_096
"""The most bytes of key and headers that every line gets: a short line must not become a long record."""

# Lines that are skipped, as many as there are in a row; what is not read may be white space.
_BLANK, _EMPTY = re.compile(rb"\s*\n"), re.compile(rb"\n+")

_encode = msgspec.json.Encoder().encode


_COUNTED = {"$ref": "#/components/schemas/Counted"}


class NDJSON(Format):
    """One record a line."""

    name = "ndjson"
    media_types: ClassVar[Mapping[str, Any]] = {name: {"type": "string"} for name in sorted(NDJSON_TYPES)}
    answers: ClassVar[Mapping[int, Mapping[str, Any]]] = {
        200: {"application/json": _COUNTED, "application/x-ndjson": {}},
        202: {"application/json": _COUNTED},
        204: {},
        207: {"application/json": _COUNTED},
    }

    def claims(self, head: Head) -> bool:
        """By media type; a tombstone has no lines."""
        return head.media_type in NDJSON_TYPES and not head.match.tombstone

    def like(self, head: Head) -> Record:
        """The fields; the type of lines is not the type of a record."""
        return read_fields(head, content_type=False)

    def open(self, intent: Intent, bounds: Bounds) -> StreamReader:
        """A reader of lines.  Raises `TooLarge`, and `BadRequest` for what cannot be answered."""
        if intent.like_bytes > COMMON_BYTES:
            raise TooLarge(
                f"key and headers, which every line gets, have {intent.like_bytes} bytes; "
                f"{COMMON_BYTES} is the most for NDJSON"
            )
        if intent.queued and intent.match.offsets:
            raise BadRequest("offsets=true asks for what is not known yet when the answer is 202")
        return LineReader(intent, bounds)


class LineDecoder:
    """Cuts content into lines and makes a record of each.

    Blank lines are skipped; CRLF and a missing last newline are fine.  A line that is not JSON, has no
    key or is too long fails alone, and is never held whole when it is too long.
    """

    def __init__(
        self,
        like: Record,
        *,
        record_bytes: int,
        key_field: tuple[str, ...] | None = None,
        validate: bool = True,
        batch_bytes: int | None = None,
    ) -> None:
        """Each record is `like` but for its value (and its key, with `key_field`).

        `record_bytes` bounds value, key and headers of one record, and `batch_bytes` what the records of a
        batch cost of the budget beside their lines; a batch of one line is always made.
        """
        self._like = like
        self.record_bytes = record_bytes
        """As it was given."""
        self._key_field = key_field if validate else None  # lines that are not read have none
        self._validate = validate
        self._skipped = _BLANK if validate else _EMPTY
        self._like_cost = like.cost(shares_headers=True)
        self._batch_lines = BATCH_RECORDS
        if batch_bytes is not None:
            self._batch_lines = max(1, min(BATCH_RECORDS, batch_bytes // self._like_cost))
        self._line_bytes = record_bytes - like.size()
        self._number = 0
        self.plain = True
        """Whether nothing was special about the last lines: they were read in a fraction of the time."""
        self.blank = 0
        """How many of the last lines were skipped, of those that were looked at one by one."""
        self._begun = bytearray()  # the line whose end has not come; empty once it is too long
        self._begun_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the line whose end has not come."""
        return min(self._begun_bytes, self._line_bytes + 1)

    def feed(self, data: bytes) -> Iterator[Batch]:
        """The lines that `data` completes, in batches of at most `BATCH_RECORDS`.

        Each batch is decoded when it is asked for: a read of short lines makes many times its own size.
        """
        while b"\n" in data:
            if not self._begun_bytes and (skipped := self._skipped.match(data)):
                self._number += data.count(b"\n", 0, skipped.end())
                data = data[skipped.end() :]
                continue
            lines: list[bytes | None]
            *lines, data = data.split(b"\n", self._batch_lines)  # type: ignore[assignment]
            if self._begun_bytes:
                self._keep(lines[0] or b"")
                lines[0] = self._take()
            yield self._decode(lines)
        self._keep(data)

    def whole(self, text: bytes) -> tuple[Alike, int] | None:
        """The lines of content that is here to its end, if they are one batch and none is special.

        And what they cost of the budget.  In place of `feed` and `end`, as often as there is such content.
        """
        text = text.removesuffix(b"\n")
        return self._plain(text.split(b"\n", self._batch_lines), text)

    def end(self) -> list[Batch]:
        """The last line, if it has no newline."""
        return [self._decode([self._take()])] if self._begun_bytes else []

    def _keep(self, data: bytes) -> None:
        self._begun_bytes += len(data)
        # One byte over the limit is enough to know; CR may be one of them.
        if self._begun_bytes <= self._line_bytes + 1:
            self._begun += data
        else:
            self._begun.clear()

    def _take(self) -> bytes | None:
        """The begun line; None if it was too long to be kept."""
        kept = bytes(self._begun) if self._begun_bytes <= self._line_bytes + 1 else None
        self._begun.clear()
        self._begun_bytes = 0
        return kept

    def _decode(self, lines: Sequence[bytes | None]) -> Batch:
        quick = self._decode_plain(lines)
        self.plain = quick is not None
        if quick is not None:
            self._number += len(lines)
            self.blank = 0
            return quick
        most = self._line_bytes
        values: list[bytes] = []
        keys: list[bytes] = []
        numbers: list[int] = []
        failures: list[tuple[int, IngestError]] = []
        errors: dict[str, IngestError] = {}  # lines that fail for the same reason share it
        cost = 0
        for number, line in enumerate(lines, self._number + 1):
            if line == b"":
                continue
            try:
                if line is None:
                    raise self._too_long()
                if line.endswith(b"\r"):
                    line = line[:-1]
                if len(line) > most:
                    raise self._too_long()
                if self._validate:
                    if not line or line.isspace():
                        continue
                    if self._key_field is None:
                        check_json(line)
                    else:
                        key = key_at(line, self._key_field)
                        if len(line) + len(key) > most:
                            raise self._too_long()
                        keys.append(key)
                        cost += len(key)
                elif not line:
                    continue
                values.append(line)
                numbers.append(number)
                cost += len(line)
            except IngestError as error:
                failures.append((number, errors.setdefault(error.message, error.alone())))
        self._number += len(lines)
        self.blank = len(lines) - len(values) - len(failures)
        longest = max(map(len, values), default=0)
        records = Alike(self._like, values, None if self._key_field is None else keys, longest=longest)
        return Batch(records, numbers, failures, cost + len(values) * self._like_cost)

    def _decode_plain(self, lines: Sequence[bytes | None]) -> Batch | None:
        """The same in a fraction of the time, where nothing about any line is special; None otherwise."""
        if None in lines:
            return None
        values: list[bytes] = lines  # type: ignore[assignment]  # there is no None
        plain = self._plain(values, b"\n".join(values))
        if plain is None:
            return None
        records, cost = plain
        return Batch(records, range(self._number + 1, self._number + 1 + len(values)), (), cost)

    def _plain(self, values: list[bytes], text: bytes) -> tuple[Alike, int] | None:
        """The records of the lines `values` of `text`, and what they cost, where none is special."""
        count = len(values)
        longest = max(map(len, values))
        if b"\r" in text or not all(values) or longest > self._line_bytes or count > self._batch_lines:
            return None
        cost = len(text) - (count - 1) + count * self._like_cost
        keys = None
        if self._key_field is None:
            if self._validate and not are_json(text, count):
                return None
        else:
            keys = keys_at(text, self._key_field, count)
            if keys is None or longest + max(map(len, keys)) > self._line_bytes:
                return None
            cost += sum(map(len, keys))
        return Alike(self._like, values, keys, longest=longest), cost

    def _too_long(self) -> TooLarge:
        return TooLarge(
            f"the line makes a record of more than {self.record_bytes} bytes with key and headers, "
            "the most for this topic by limits.record_bytes or its own max.message.bytes"
        )


class LineReader(LineDecoder, StreamReader):
    """The lines of one request, and the answer to them."""

    head = Response(200, ((b"content-type", b"application/x-ndjson"),), content=None)

    def __init__(self, intent: Intent, bounds: Bounds) -> None:
        super().__init__(
            intent.like,
            record_bytes=bounds.record_bytes,
            key_field=intent.key_path,
            validate=intent.match.validate,
            batch_bytes=bounds.cost_bytes,
        )
        self._intent = intent
        self.each = intent.match.offsets

    @property
    def record_cost(self) -> int:
        """What a line like the last ones takes."""
        return PLAIN_LINE_COST if self.plain else LINE_COST

    def cost_of(self, batch: Batch) -> int:
        """Blank lines among others cost something too."""
        return super().cost_of(batch) + PLAIN_LINE_COST * self.blank

    def results(self, batch: Batch, reports: Sequence[DeliveryReport]) -> bytes:
        """A line for each line."""
        results: list[tuple[int, dict[str, Any]]] = [
            (number, error_body(error)) for number, error in batch.failures
        ]
        for number, report in zip(batch.numbers, reports, strict=True):
            if isinstance(report, Receipt):
                results.append((number, {"partition": report.partition, "offset": report.offset}))
            else:
                results.append((number, error_body(report)))
        results.sort(key=lambda result: result[0])
        return b"".join(_encode({"line": number} | body) + b"\n" for number, body in results)

    def last(self, error: IngestError) -> bytes:
        """An error without a line."""
        return _encode(error_body(error)) + b"\n"

    def answer(self, tally: Tally, error: IngestError | None) -> Response:
        """The counts."""
        return tally.response(error, queued=self._intent.queued, minimal=self._intent.minimal)
