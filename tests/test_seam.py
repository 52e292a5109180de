"""Formats of somebody else behind the seam: a reader of whole content, one of a stream, their answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ingest.config import Config
from ingest.errors import BadRequest, ConfigError, InvalidRecord, RecordRefused, UnknownTopic
from ingest.formats.seam import BATCH_RECORDS, Batch, Bounds, Format, Head, Intent, Reader, StreamReader
from ingest.formats.table import built_in, check_formats, routes
from ingest.http.messages import Response
from ingest.records import Alike, DeliveryReport, Receipt, Record
from ingest.route import Route
from ingest.sections import Limits
from ingest.tally import Tally
from ingest.testing import FailingProducer, MemoryProducer, StallingProducer
from tests.client import chunk, request
from tests.exchange import open_exchanges

WORDS = "Content-Type: text/words"
CHUNKED = "Transfer-Encoding: chunked"


def said(report: DeliveryReport | None) -> str:
    return "queued" if report is None else "ok" if isinstance(report, Receipt) else str(report.error_code)


class WordsReader(Reader):
    steps = True

    def read(self, content: bytes) -> Batch:
        if content.startswith(b"?"):
            raise BadRequest("words do not begin with a question")
        return self._batch(content.split(), 1)

    def read_in_steps(self, content: bytes) -> Iterator[Batch]:
        words = content.split()
        for first in range(0, len(words), BATCH_RECORDS):
            yield self._batch(words[first : first + BATCH_RECORDS], first + 1)

    def _batch(self, words: list[bytes], first: int) -> Batch:
        records, numbers, failures = [], [], []
        for number, word in enumerate(words, first):
            if word == b"no":
                failures.append((number, InvalidRecord("no word")))
            else:
                records.append(Record(self.intent.match.topic, word))
                numbers.append(number)
        return Batch(records, numbers, failures, sum(record.cost() for record in records))

    def answer(self, reports: Sequence[DeliveryReport | None]) -> Response:
        text = " ".join(map(said, reports))
        return Response(202 if None in reports else 200, ((b"content-type", b"text/words"),), text.encode())


class Words(Format):
    name = "words"
    paths = ("/words/{topic}",)

    def claims(self, head: Head) -> bool:
        return head.media_type == "text/words"

    def answers_each(self, intent: Intent) -> bool:
        return intent.match.topic == "missing"

    def open(self, intent: Intent, bounds: Bounds) -> Reader:
        return WordsReader(intent, bounds)


class BytesReader(StreamReader):
    """A record for each byte, and a result for each as it comes."""

    each = True

    def __init__(self, intent: Intent) -> None:
        self._topic = intent.match.topic
        self._number = 0

    @property
    def held_bytes(self) -> int:
        return 0

    @property
    def record_cost(self) -> int:
        return 100

    def feed(self, data: bytes) -> Iterator[Batch]:
        for first in range(0, len(data), BATCH_RECORDS):
            piece = data[first : first + BATCH_RECORDS]
            if b"!" in piece:
                raise BadRequest("enough")
            records = [Record(self._topic, b"%c" % byte) for byte in piece]
            numbers = range(self._number + 1, self._number + 1 + len(piece))
            self._number += len(piece)
            yield Batch(records, numbers, cost=sum(record.cost() for record in records), notes=len(piece))

    def end(self) -> list[Batch]:
        return []

    def results(self, batch: Batch, reports: Sequence[DeliveryReport]) -> bytes:
        return f"{batch.notes}:{' '.join(map(said, reports))};".encode()

    def last(self, error: Exception) -> bytes:
        return f"{error}".encode()

    def answer(self, tally: Tally, error: Exception | None) -> Response:
        return Response(400, (), f"{error}".encode())


class Bytes(Format):
    name = "bytes"

    def open(self, intent: Intent, bounds: Bounds) -> StreamReader:
        return BytesReader(intent)


ROUTES = Config(routes=[Route("/", "events"), Route("/bytes", "events", format="bytes")])
FORMATS = (Words(), Bytes())


@pytest.mark.parametrize(
    "line", ["POST /", "POST /topics/t/records", "POST /words/t"], ids=["route", "native", "its own"]
)
async def test_format_is_chosen_by_media_type_or_path(line: str) -> None:
    producer = MemoryProducer()
    fields = [] if line.startswith("POST /words") else [WORDS + "; charset=utf-8"]
    async with open_exchanges(producer, formats=FORMATS) as exchanges:
        answer = await exchanges.ask(request(line, *fields, content=b"a no b"))
    assert (answer.status, answer.content) == (200, b"ok 42206 ok")
    assert answer.fields["content-type"] == "text/words"
    assert [record.value for record in producer.records] == [b"a", b"b"]


async def test_another_media_type_is_not_touched() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, formats=FORMATS) as exchanges:
        await exchanges.ask(request("POST /", "Content-Type: text/plain", content=b"a no b"))
    assert [record.value for record in producer.records] == [b"a no b"]


async def test_path_of_a_format_takes_posts_only() -> None:
    async with open_exchanges(MemoryProducer(), formats=FORMATS) as exchanges:
        answer = await exchanges.ask(request("DELETE /words/t?key=k"))
    assert (answer.status, answer.fields["allow"]) == (405, "POST, OPTIONS")


async def test_what_cannot_be_read_writes_nothing() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, formats=FORMATS) as exchanges:
        answer = await exchanges.ask(request("POST /", WORDS, content=b"? a b"))
    assert answer.status == 400
    assert producer.records == []


async def test_queued_records_have_no_report_and_failures_do() -> None:
    producer = StallingProducer()
    async with open_exchanges(producer, formats=FORMATS) as exchanges:
        asked = request("POST /", WORDS, "Prefer: respond-async", content=b"a no b")
        answer = await exchanges.ask(asked)
        assert (answer.status, answer.content) == (202, b"queued 42206 queued")
        assert producer.pending == 2


class TimesReader(BytesReader):
    """A record for each byte, with its number as the timestamp; or all alike, with that of the first."""

    each = False
    alike = False

    def feed(self, data: bytes) -> Iterator[Batch]:
        records = [Record(self._topic, b"%c" % byte, timestamp=int(chr(byte))) for byte in data]
        alike = Alike(records[0], [b"%c" % byte for byte in data], longest=1)
        cost = sum(record.cost() for record in records)
        yield Batch(alike if self.alike else records, range(1, len(data) + 1), cost=cost)

    def answer(self, tally: Tally, error: Exception | None) -> Response:
        return tally.response(queued=True, minimal=False)


class Times(Bytes):
    name = "times"

    def __init__(self, *, alike: bool) -> None:
        self._alike = alike

    def open(self, intent: Intent, bounds: Bounds) -> StreamReader:
        reader = TimesReader(intent)
        reader.alike = self._alike
        return reader


@pytest.mark.parametrize(
    ("content", "alike", "status", "refused"),
    [
        (b"1002", False, 202, [2, 3]),
        (b"00", False, 400, [1, 2]),
        (b"11", True, 202, []),
        (b"01", True, 400, [1, 2]),
    ],
)
async def test_what_can_never_be_written_is_no_queued_record_of_a_stream(
    content: bytes, alike: bool, status: int, refused: list[int]
) -> None:
    producer = StallingProducer()
    config = Config(routes=[Route("/", "events", format="times", promise="queued")])
    async with open_exchanges(producer, config, formats=[Times(alike=alike)]) as exchanges:
        answer = await exchanges.ask(request("POST /", content=content))
    assert answer.status == status
    assert [result["line"] for result in answer.json.get("results", ())] == refused
    assert answer.json["accepted"] == producer.ledger.accepted == len(content) - len(refused)
    assert producer.ledger.lost == 0


async def test_reports_of_failures_have_their_place() -> None:
    async with open_exchanges(FailingProducer(RecordRefused("no")), formats=FORMATS) as exchanges:
        answer = await exchanges.ask(request("POST /", WORDS, content=b"no a no no b"))
    assert answer.content == b"42206 40002 42206 42206 40002"


async def test_missing_topic_can_be_the_answer_of_each_record() -> None:
    producer = MemoryProducer(topics=["events"])
    async with open_exchanges(producer, formats=FORMATS) as exchanges:
        each = await exchanges.ask(request("POST /words/missing", content=b"a no b"))
        whole = await exchanges.ask(request("POST /words/other", content=b"a no b"))
    assert (each.status, each.content) == (200, b"40401 42206 40401")
    assert (whole.status, whole.json["error_code"]) == (404, UnknownTopic.error_code)


@pytest.mark.parametrize(
    ("step_seconds", "status", "answered"), [(0.4, 504, 10.0), (0.9, 503, 10.8)], ids=["to answer", "to read"]
)
async def test_time_to_read_large_content_is_not_added_to_the_deadline(
    autojump_clock: MockClock, step_seconds: float, status: int, answered: float
) -> None:
    class SlowReader(WordsReader):
        def read_in_steps(self, content: bytes) -> Iterator[Batch]:
            for batch in super().read_in_steps(content):
                autojump_clock.jump(step_seconds)
                yield batch

        def answer(self, reports: Sequence[DeliveryReport | None]) -> Response:
            assert status == 504
            return Response(504)

    class SlowWords(Words):
        def open(self, intent: Intent, bounds: Bounds) -> Reader:
            return SlowReader(intent, bounds)

    producer = StallingProducer()
    async with open_exchanges(producer, formats=[SlowWords()]) as exchanges:
        began = trio.current_time()
        answer = await exchanges.ask(request("POST /", WORDS, content=20 * BATCH_RECORDS * b"word "))
        assert answer.status == status
        assert trio.current_time() - began == pytest.approx(answered)
        assert (producer.pending > 0) == (status == 504)


async def test_large_content_is_read_in_steps_and_answered_as_one() -> None:
    producer = StallingProducer()
    words = [b"%d" % number for number in range(20_000)]
    words[7_001] = b"no"
    async with open_exchanges(producer, formats=FORMATS) as exchanges:
        client = exchanges.connect()
        await client.send(request("POST /", WORDS, content=b" ".join(words)))
        await trio.testing.wait_all_tasks_blocked()
        assert producer.pending == 19_999
        assert exchanges.budget.held_bytes >= 19_999 * 512
        producer.release()
        answer = await client.answer()
    assert answer.content.split() == [b"42206" if number == 7_001 else b"ok" for number in range(20_000)]
    assert [record.value for record in producer.records] == [word for word in words if word != b"no"]


SMALL = Config(limits=Limits(request_bytes=100_000, record_bytes=100_000, held_bytes=1_600_000))


@pytest.mark.parametrize("size", [100_000, 200_001])
async def test_content_has_a_limit_and_so_have_its_records(size: int) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, SMALL, formats=FORMATS) as exchanges:
        for fields in ([f"Content-Length: {size}"], [CHUNKED]):
            content = (b"a " * size)[:size]
            sent = content if CHUNKED not in fields else chunk(content) + chunk(b"")
            answer = await exchanges.ask(request("POST /", WORDS, *fields) + sent)
            assert answer.status == 413
            named = "limits.held_bytes" if size == 100_000 else "limits.batch_bytes is 200000"
            assert named in answer.json["message"]
    assert producer.records == []


async def test_client_that_leaves_takes_back_what_was_not_handed_over() -> None:
    producer = StallingProducer(accepts=BATCH_RECORDS)
    async with open_exchanges(producer, formats=FORMATS) as exchanges:
        client = exchanges.connect()
        await client.send(request("POST /", WORDS, content=b"word " * 20_000))
        await trio.testing.wait_all_tasks_blocked()
        exchanges.connections[0].abandon()
        await trio.testing.wait_all_tasks_blocked()
        assert producer.pending == BATCH_RECORDS
        producer.release()
        assert exchanges.budget.held_bytes == 0
    assert len(producer.records) == BATCH_RECORDS


async def test_stream_has_its_results_before_more_is_sent() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, ROUTES, formats=FORMATS) as exchanges:
        client = exchanges.connect()
        await client.send(request("POST /bytes", CHUNKED) + chunk(b"ab"))
        status, _ = await client.head()
        assert status == 200
        assert await client.chunk() == b"2:ok ok;"
        await client.send(chunk(b"c"))
        assert await client.chunk() == b"1:ok;"
        await client.send(chunk(b"!"))
        assert await client.chunk() == b"enough"
        assert await client.chunk() == b""
    assert [record.value for record in producer.records] == [b"a", b"b", b"c"]


async def test_stream_that_fails_before_its_answer_began_is_answered_whole() -> None:
    async with open_exchanges(MemoryProducer(), ROUTES, formats=FORMATS) as exchanges:
        answer = await exchanges.ask(request("POST /bytes", content=b"!"))
    assert (answer.status, answer.content) == (400, b"enough")


def test_route_of_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'routes: "/a": format = "wurds": must be one of .*words'):
        tuple(routes(Config(routes=[Route("/a", "a", format="wurds")]), (*FORMATS, *built_in(Config()))))


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (Route("/a", "a", format="rest_v3", promise="queued"), 'promise = "queued": format rest_v3 always'),
        (
            Route("/kafka/v3/clusters/{cluster}/topics/{topic}/records:batch", promise="queued"),
            "rest_v3_batch",
        ),
        (Route("/a", "a", format="rest_v2", key_field="id"), 'key_field = "id": format rest_v2 has the key'),
        (Route("/topics/{topic}", key_field="id"), 'key_field = "id": format rest_v2'),
        (Route("/a", "a", format="rest_v3", key_field="id"), 'key_field = "id": format rest_v3'),
        (Route("/a", "a", format="rest_v3", v2_dialect="karapace"), 'v2_dialect = "karapace": is for'),
        (Route("/a", "a", format="plain", v2_dialect="karapace"), "and not for plain"),
    ],
)
def test_option_that_means_nothing_to_a_routes_format_is_refused(route: Route, message: str) -> None:
    config = Config(routes=[route])
    with pytest.raises(ConfigError, match=f"^routes: {re.escape(json.dumps(route.path))}: .*{message}"):
        check_formats(config)
    check_formats(Config(routes=[Route("/a", "a", key_field="id", v2_dialect="karapace", promise="queued")]))


def test_route_with_a_formats_path_has_its_format() -> None:
    own = Route("/words/{topic}", promise="queued")
    found = {route.path: route for route in routes(Config(routes=[own]), (*FORMATS, *built_in(Config())))}
    assert (found[own.path].format, found[own.path].promise) == ("words", "queued")
    plain = Route("/words/{topic}", format="plain")
    found = {route.path: route for route in routes(Config(routes=[plain]), (*FORMATS, *built_in(Config())))}
    assert found[plain.path] == plain


def test_formats_have_names_of_their_own() -> None:
    names = [each.name for each in built_in(Config())]
    assert len(set(names)) == len(names)
