"""The seam between HTTP and records: what a format is asked, and what it says.  No I/O on either side.

A `Format` is one way to ask for records.  It claims requests by their heads, says what the head says of each
record, and opens a reader for the content of one request: a `Reader` where the content is read whole before
anything of it is produced, a `StreamReader` where records are produced while content comes.  The reader
writes the answer too.  `ingest.formats.table` lists the formats; an embedding program can bring its own.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from ingest.errors import IngestError, TooLarge
from ingest.http.messages import Fields, Request, Response
from ingest.records import Alike, DeliveryReport, Record, unwritable
from ingest.routing import Match
from ingest.tally import Tally

BATCH_RECORDS = 1_000
"""The most records of one batch, which bounds what it costs of the budget at once."""
MOST_RECORDS = 50_000
"""The most records of a request whose content is read whole, and so is its answer written."""


class Head(NamedTuple):
    """A request before its content is looked at."""

    request: Request
    match: Match
    """Its route and topic, and what its query says."""
    media_type: str
    """Of the content, in lower case, without parameters; "" where none is named."""


class Intent(NamedTuple):
    """Everything a request's head asks for, once it has been found fit."""

    match: Match
    media_type: str
    format: Format
    coding: str | None
    """The content coding that is to be taken off, one of `ingest.http.codings.CODINGS`."""
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
    fields: Fields = ()
    """What every answer has beside its own fields, for pages in browsers."""

    def to_take(self, batch: Batch) -> Batch:
        """`batch`; where no report is waited for, what no producer can write fails before the answer."""
        return batch.promisable() if self.queued else batch


class Bounds(NamedTuple):
    """What one request may have, in bytes."""

    record_bytes: int
    """Value, key and headers of one record, for its topic."""
    request_bytes: int
    """Content of one record: `limits.request_bytes`."""
    batch_bytes: int
    """Content of many records that is read whole: `limits.batch_bytes`."""
    cost_bytes: int
    """What one batch of a stream may cost of the budget; a batch of one record is always made."""


class Batch(NamedTuple):
    """Some records of a request in order, and what could not become records."""

    records: Sequence[Record]
    """A list, or `ingest.records.Alike`; whoever is given it may change it."""
    numbers: Sequence[int]
    """The number, from 1, that each record has in its request: of its line, of its item."""
    failures: Sequence[tuple[int, IngestError]] = ()
    """The same number of each that failed alone, and why."""
    cost: int = 0
    """Bytes that the records take of the budget together."""
    notes: Any = None
    """What the reader wants to find again when it writes results."""

    def promisable(self) -> Batch:
        """The same with the records that no producer can write among the failures, at the same cost."""
        records = self.records
        # Alike ones differ in nothing that is looked at.
        looked_at = [records.like] if isinstance(records, Alike) else records
        if not any(map(unwritable, looked_at)):
            return self
        taken: list[Record] = []
        numbers: list[int] = []
        failures = list(self.failures)
        for number, record in zip(self.numbers, records, strict=True):
            refused = unwritable(record)
            if refused is None:
                taken.append(record)
                numbers.append(number)
            else:
                failures.append((number, refused))
        failures.sort(key=lambda failure: failure[0])
        return self._replace(records=taken, numbers=numbers, failures=failures)


class Reader(abc.ABC):
    """One request whose content is read whole; nothing is produced unless all of it can be read."""

    steps: ClassVar[bool] = False
    """Whether large content is read with `read_in_steps`, and answered with `answer_in_steps`."""
    result_bytes: int = 256
    """About how many bytes the result of one record takes, until the answer is sent, where there are many."""
    places: bool = True
    """Whether the answer says where records are; if not, a receipt may be `ingest.delivery.SOMEWHERE`."""

    def __init__(self, intent: Intent, bounds: Bounds) -> None:
        self.intent = intent
        self.bounds = bounds

    def check_length(self, length: int, *, more: bool = False) -> None:
        """Raises `TooLarge` where content of `length` bytes, or `more`, is too much."""
        if length > self.bounds.batch_bytes:
            or_more = " or more" if more else ""
            raise TooLarge(
                f"the content has {length} bytes{or_more}; limits.batch_bytes is {self.bounds.batch_bytes}"
            )

    def check_coded_length(self, length: int) -> None:
        """The same of content as it comes, before its coding is taken off; it may become less by that."""
        self.check_length(length)

    @abc.abstractmethod
    def read(self, content: bytes) -> Batch:
        """The records of the content.  Raises `IngestError` where the whole request fails.

        Numbers run from 1 without gaps, those of failures among them.
        """

    def read_in_steps(self, content: bytes) -> Iterator[Batch]:
        """The same in batches of at most `BATCH_RECORDS`, about 64 KiB of content a step."""
        yield self.read(content)

    @abc.abstractmethod
    def answer(self, reports: Sequence[DeliveryReport | None]) -> Response:
        """The answer, by the report of each number; None is a record that is in memory, for a 202."""

    def answer_in_steps(self, reports: Sequence[DeliveryReport | None]) -> Iterator[Response | None]:
        """The same, in the end; None after each `BATCH_RECORDS` reports, where others get their turn."""
        yield self.answer(reports)


class ReaderInSteps(Reader):
    """One whose content can be large: between the steps of reading and of answering others get their turn."""

    steps = True

    @abc.abstractmethod
    def read_in_steps(self, content: bytes) -> Iterator[Batch]:
        """`read` in batches of at most `BATCH_RECORDS`, about 64 KiB of content a step."""

    def answer(self, reports: Sequence[DeliveryReport | None]) -> Response:
        """What `answer_in_steps` comes to."""
        *_, response = self.answer_in_steps(reports)
        assert response is not None  # noqa: S101  # it comes last
        return response

    @abc.abstractmethod
    def answer_in_steps(self, reports: Sequence[DeliveryReport | None]) -> Iterator[Response | None]:
        """`answer` in the end; None after each `BATCH_RECORDS` reports, where others get their turn."""


class StreamReader(abc.ABC):
    """One request whose records are produced while its content comes.

    It keeps no more of what it was fed than a record that has begun.
    """

    each: bool = False
    """Whether the answer has a result for each record, sent while the request still comes."""
    idles: ClassVar[bool] = False
    """Whether the client may pause between records, for `timeouts.stream_idle_seconds`, and go on for
    `timeouts.stream_seconds`; else it has to keep to the rate of content, and may go on for ever."""
    head: Response = Response(200, ((b"content-type", b"application/json"),), content=None)
    """How the answer begins, where it has each result."""

    @property
    @abc.abstractmethod
    def held_bytes(self) -> int:
        """Bytes that are kept of a record that has begun."""

    @property
    @abc.abstractmethod
    def record_cost(self) -> int:
        """What making one record takes, as so many bytes of JSON that is passed over (about 4 ns each)."""

    def cost_of(self, batch: Batch) -> int:
        """The same of all of `batch`, once it was handed out, and of what was skipped between its records."""
        return self.record_cost * (len(batch.numbers) + len(batch.failures))

    @abc.abstractmethod
    def feed(self, data: bytes) -> Iterator[Batch]:
        """What `data` completes, in batches of at most `BATCH_RECORDS`, each read when it is asked for.

        Raises `IngestError` where nothing behind this can be read.
        """

    @abc.abstractmethod
    def end(self) -> Iterable[Batch]:
        """What the end of the content completes; raises as `feed` does."""

    def begins(self, data: bytes) -> bool:
        """Whether `data` is a reason to begin the answer, where it has each result, before there is one.

        It begins before content of unknown length is waited for, too.
        """
        return False

    def results(self, batch: Batch, reports: Sequence[DeliveryReport]) -> bytes:
        """The part of the answer for a batch, where it has each result: in order, failures among them.

        `reports` are of the batch's records, and none at all where the promise is "queued".
        """
        raise NotImplementedError

    def last(self, error: IngestError) -> bytes:
        """What ends such an answer where the rest of the request could not be read."""
        raise NotImplementedError

    @abc.abstractmethod
    def answer(self, tally: Tally, error: IngestError | None) -> Response:
        """The answer where it was not sent in pieces; `error` is why the rest could not be read."""


class Format(abc.ABC):
    """One way to ask for records over HTTP.  It is made once and keeps nothing of a request."""

    name: ClassVar[str]
    """What `Route.format` calls it."""
    paths: tuple[str, ...] = ()
    """Paths of its own, written as `Route.path`; a route with one of them has this format."""
    queues: ClassVar[bool] = True
    """Whether there is an answer for records that are only in memory; if not, it waits for Kafka."""

    key_fields: ClassVar[bool] = True
    """Whether the key can come out of the content, by `Route.key_field`."""
    dialects: ClassVar[bool] = False
    """Whether `Route.v2_dialect` means something to it."""

    media_types: ClassVar[Mapping[str, Any]] = {}
    """For the document at `/openapi.json`: the media types of content, each with a JSON Schema."""
    named_media_types: ClassVar[Mapping[str, Any]] = {}
    """The same of those that it takes beside them where its route has this format."""
    also: ClassVar[str] = ""
    """What else of media types it takes, in a sentence for the same document."""
    answers: ClassVar[Mapping[int, Mapping[str, Any]]] = {}
    """The same of answers that are no plain error: status, media type, JSON Schema; none for no content."""
    keeps_codings: ClassVar[bool] = False
    """Whether content can be passed through compressed, where its route says so, since nothing here reads it;
    `like` then has the header `content-encoding`."""

    def claims(self, head: Head) -> bool:
        """Whether this request is of this format, where its route names none; the first to claim has it."""
        return False

    def like(self, head: Head) -> Record:
        """What the head says of every record.

        Raises `BadRequest` for a field that cannot be meant, and `UnsupportedMediaType`.
        """
        match = head.match
        return Record(match.topic, partition=match.partition)

    def asks_for_queued(self, head: Head) -> bool:
        """Whether the head says, beside `Prefer: respond-async`, that the client does not wait for Kafka."""
        return False

    def answers_each(self, intent: Intent) -> bool:
        """Whether a topic that does not exist is the failure of each record, and not of the request."""
        return False

    def options(self, head: Head) -> Response | None:
        """What OPTIONS is answered where this format has something to say; `head.match` is as of a POST."""
        return None

    @abc.abstractmethod
    def open(self, intent: Intent, bounds: Bounds) -> Reader | StreamReader:
        """A reader of one request.  Raises `IngestError` for what is clear from its head."""
