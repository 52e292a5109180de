"""The native way, over HTTP and into producers without Kafka: one record a request, and every refusal."""

from __future__ import annotations

import json
import logging
import tracemalloc
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ingest.config import Config
from ingest.errors import (
    DeliveryFailed,
    DeliveryUnknown,
    Draining,
    IngestError,
    InvalidRecord,
    KafkaUnavailable,
    Overloaded,
    RecordRefused,
    TooLarge,
    TopicDenied,
    UnknownPartition,
    UnknownTopic,
)
from ingest.records import Record
from ingest.route import Route
from ingest.sections import Limits, Timeouts
from ingest.testing import FailingProducer, MemoryProducer, StallingProducer
from tests.client import Answer, chunk, request
from tests.exchange import PEER, open_exchanges

ORDERS = "/topics/orders/records"
CHUNKED = "Transfer-Encoding: chunked"
EXPECT = "Expect: 100-continue"

SMALL = Config(limits=Limits(request_bytes=200_000, record_bytes=200_000, held_bytes=1_000_000))
WAITS = Config(routes=[Route("/", "events", when_full="wait", wait_seconds=5)])


# What becomes of a request -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "record"),
    [
        pytest.param(request("POST /", content=b'{"a": 1}'), Record("events", b'{"a": 1}'), id="route"),
        pytest.param(request(f"POST {ORDERS}", content=b"x"), Record("orders", b"x"), id="topic in the path"),
        pytest.param(request("POST /"), Record("events", b""), id="empty"),
        pytest.param(
            request("POST /", content=bytes(range(256))), Record("events", bytes(range(256))), id="any bytes"
        ),
        pytest.param(
            request("POST /", CHUNKED) + chunk(b"ab") + chunk(b"c") + chunk(b""),
            Record("events", b"abc"),
            id="chunked",
        ),
        pytest.param(request("POST /", content=b"x", version="1.0"), Record("events", b"x"), id="HTTP/1.0"),
        pytest.param(
            request("POST http://elsewhere/", content=b"x"), Record("events", b"x"), id="absolute form"
        ),
        pytest.param(
            request(f"POST {ORDERS}?key=a%20b%FF", content=b"x"),
            Record("orders", b"x", b"a b\xff"),
            id="key in the query",
        ),
        pytest.param(
            request(f"POST {ORDERS}?key_field=user.id", content=b'{"user":{"id":"ann"}}'),
            Record("orders", b'{"user":{"id":"ann"}}', b"ann"),
            id="key in the content",
        ),
        pytest.param(
            request(
                f"POST {ORDERS}",
                "Content-Type: text/plain; charset=utf-8",
                "Kafka-Header-Trace: abc",
                "Traceparent: 00-1-2-01",
                "Idempotency-Key: once",
                "Kafka-Partition: 3",
                "Kafka-Timestamp: 1591897790000",
                content=b"x",
            ),
            Record(
                "orders",
                b"x",
                None,
                (
                    ("content-type", b"text/plain; charset=utf-8"),
                    ("trace", b"abc"),
                    ("traceparent", b"00-1-2-01"),
                    ("idempotency-key", b"once"),
                ),
                3,
                1591897790000,
            ),
            id="fields",
        ),
        pytest.param(request(f"DELETE {ORDERS}?key=k"), Record("orders", None, b"k"), id="tombstone"),
    ],
)
async def test_request_becomes_a_record_and_is_answered_with_its_receipt(
    asked: bytes, record: Record
) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(asked)
    assert answer.status == 200
    assert answer.fields["content-type"] == "application/json"
    assert answer.json == {
        "topic": record.topic,
        "partition": record.partition or 0,
        "offset": 0,
        "timestamp": record.timestamp,
    }
    assert producer.records == [record]


async def test_route_makes_the_key_from_its_own_field() -> None:
    producer = MemoryProducer()
    config = Config(routes=[Route("/clicks", "clicks", key_field="user")])
    async with open_exchanges(producer, config) as exchanges:
        await exchanges.ask(request("POST /clicks", content=b'{"user":7}'))
        await exchanges.ask(request("POST /clicks?key=mine", content=b'{"user":7}'))
    assert [record.key for record in producer.records] == [b"7", b"mine"]


async def test_minimal_success_has_no_content() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(request("POST /", "Prefer: return=minimal", content=b"x"))
    assert (answer.status, answer.content) == (204, b"")
    assert "content-type" not in answer.fields


@pytest.mark.parametrize(
    ("route", "prefer"),
    [(Route("/", "events"), "Prefer: respond-async"), (Route("/", "events", promise="queued"), "X: y")],
    ids=["asked for", "the route's"],
)
async def test_queued_is_answered_202_before_there_is_a_report(route: Route, prefer: str) -> None:
    producer = StallingProducer()
    async with open_exchanges(producer, Config(routes=[route])) as exchanges:
        answer = await exchanges.ask(request("POST /", prefer, content=b"x"))
        assert (answer.status, answer.json) == (202, {"topic": "events", "promise": "queued"})
        assert (producer.pending, producer.records) == (1, [])
        assert exchanges.budget.held_bytes > 0  # what is promised is still paid for
    assert producer.ledger.delivered == 1


async def test_queued_can_be_forbidden(autojump_clock: MockClock) -> None:
    config = Config(routes=[Route("/", "events", respond_async=False)])
    async with open_exchanges(StallingProducer(), config) as exchanges:
        answer = await exchanges.ask(request("POST /", "Prefer: respond-async", content=b"x"))
    assert answer.status == 504


async def test_record_that_fails_after_its_202_is_counted_as_lost() -> None:
    producer = FailingProducer(RecordRefused("not today"))
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(request("POST /", "Prefer: respond-async", content=b"x"))
    assert answer.status == 202
    assert (producer.ledger.failed, producer.ledger.lost) == (1, 1)


async def test_answer_comes_after_the_report_and_not_before() -> None:
    producer = StallingProducer()
    async with open_exchanges(producer) as exchanges, trio.open_nursery() as nursery:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await exchanges.ask(request("POST /", content=b"x")))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert (producer.pending, answers) == (1, [])
        producer.release()
        await trio.testing.wait_all_tasks_blocked()
        assert answers[0].status == 200


async def test_requests_of_one_connection_keep_their_order() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect()
        await client.send(b"".join(request("POST /", content=b"%d" % n) for n in range(200)))
        assert [(await client.answer()).json["offset"] for n in range(200)] == list(range(200))
    assert [record.value for record in producer.records] == [b"%d" % n for n in range(200)]


async def test_every_answer_names_its_request() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        named = await client.ask(request("POST /", "X-Request-Id: given-1", content=b"x"))
        assert named.fields["x-request-id"] == "given-1"
        made = [
            (await client.ask(asked)).fields["x-request-id"]
            for asked in (
                request("POST /", content=b"x"),
                request("POST /", "X-Request-Id: with blanks", content=b"x"),
                request("GET /nowhere"),
                b"nonsense\r\n\r\n",
            )
        ]
        assert len(set(made)) == 4


# Errors ----------------------------------------------------------------------------------------------------


def told(answer: Answer) -> tuple[int, int, str, bool]:
    """What an error answer says, without its words."""
    body = answer.json
    assert set(body) == {"error_code", "message", "outcome", "retriable"}
    assert len(body["message"]) > 15
    assert answer.fields["content-type"] == "application/json"
    assert ("retry-after" in answer.fields) == (answer.status == 503)
    return answer.status, body["error_code"], body["outcome"], body["retriable"]


def large(size: int) -> bytes:
    return request("POST /", f"Content-Length: {size}")


@pytest.mark.parametrize(
    ("asked", "status", "error_code"),
    [
        pytest.param(b"nonsense\r\n\r\n", 400, 400, id="framing"),
        pytest.param(request("POST /?key=a&key_field=b", content=b"{}"), 400, 400, id="two keys"),
        pytest.param(request(f"POST {ORDERS}?kee=a"), 400, 400, id="unknown parameter"),
        pytest.param(request("POST /", "Kafka-Partition: -1"), 400, 400, id="partition"),
        pytest.param(request("POST /", "Kafka-Timestamp: now"), 400, 400, id="timestamp"),
        pytest.param(request("POST /", "Kafka-Header-: x"), 400, 400, id="header without a name"),
        pytest.param(request("POST /topics/a%20b/records"), 400, 400, id="topic's name"),
        pytest.param(request(f"DELETE {ORDERS}"), 400, 400, id="tombstone without a key"),
        pytest.param(request(f"DELETE {ORDERS}?key=k", content=b"x"), 400, 400, id="tombstone with content"),
        pytest.param(request("POST /?key_field=a", content=b"{"), 400, 42206, id="not JSON"),
        pytest.param(request("POST /?key_field=a", content=b"{}"), 400, 42206, id="no such field"),
        pytest.param(request("POST /topics/__consumer_offsets/records"), 403, 40301, id="internal topic"),
        pytest.param(request("POST /nowhere"), 404, 404, id="path"),
        pytest.param(request("POST /topics/unknown/records"), 404, 40401, id="unknown topic"),
        pytest.param(request("PUT /"), 405, 405, id="method"),
        pytest.param(request("PUT /", content=b"x"), 405, 405, id="method with content"),
        pytest.param(request("POST /", version="1.0"), 411, 411, id="length required"),
        pytest.param(large(1 << 21), 413, 413, id="too large"),
        pytest.param(request("POST /", "Content-Encoding: br", content=b"x"), 415, 415, id="coding"),
        pytest.param(
            request("POST /", "Content-Type: application/vnd.kafka.avro.v2+json", content=b"{}"),
            415,
            415,
            id="REST Proxy v2 with a schema",
        ),
        pytest.param(
            request("POST /", "Content-Type: Application/CloudEvents+Avro; charset=utf-8", content=b"{}"),
            415,
            415,
            id="CloudEvents, in another form",
        ),
        pytest.param(
            request("POST /", "ce-specversion: 1.0", content=b"{}"), 400, 400, id="CloudEvents, binary"
        ),
        pytest.param(request("POST /", "Expect: more", content=b"x"), 417, 417, id="expectation"),
        pytest.param(request("POST /", "x: " + 40_000 * "x"), 431, 431, id="head"),
        pytest.param(request("POST /", "Transfer-Encoding: gzip, chunked"), 501, 501, id="transfer coding"),
        pytest.param(request("POST /", version="2.0"), 505, 505, id="version"),
    ],
)
async def test_request_that_is_wrong_is_told_so_and_nothing_is_written(
    asked: bytes, status: int, error_code: int
) -> None:
    producer = MemoryProducer(topics=["events", "orders"])
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(asked)
    assert told(answer) == (status, error_code, "not_written", False)
    assert producer.records == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidRecord("it is not what it should be"), (400, 42206, "not_written", False)),
        (RecordRefused("a broker refused the record"), (400, 40002, "not_written", False)),
        (TopicDenied("the topic cannot be written"), (403, 40301, "not_written", False)),
        (UnknownTopic("there is no such topic"), (404, 40401, "not_written", False)),
        (UnknownPartition("there is no such partition"), (404, 40402, "not_written", False)),
        (TooLarge("the record is over the limit"), (413, 413, "not_written", False)),
        (DeliveryFailed("Kafka says something else"), (500, 50002, "unknown", False)),
        (Overloaded("there is no room just now"), (503, 50301, "not_written", True)),
        (Draining("the producer takes nothing new"), (503, 50301, "not_written", True)),
        (KafkaUnavailable("all brokers are down"), (503, 50302, "not_written", True)),
        (DeliveryUnknown("no report came in time"), (504, 50003, "unknown", True)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, IngestError) else "",
)
async def test_report_of_a_failure_becomes_the_answer(
    error: IngestError, expected: tuple[int, int, str, bool]
) -> None:
    async with open_exchanges(FailingProducer(error)) as exchanges:
        client = exchanges.connect()
        for _ in range(3):  # and the connection goes on
            answer = await client.ask(request("POST /", content=b"x"))
            assert told(answer) == expected
            assert not answer.closes
    assert error.__traceback__ is None  # a report that many requests share must not collect their frames


async def test_method_that_is_not_served_is_told_those_that_are() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        for method in ("PUT", "TRACE", "post"):
            answer = await client.ask(request(f"{method} /"))
            assert (answer.status, answer.fields["allow"]) == (405, "POST, DELETE, GET, HEAD, OPTIONS")
        for method in ("GET", "HEAD"):
            answer = await client.ask(request(f"{method} {ORDERS}"))
            assert (answer.status, answer.fields["allow"]) == (405, "POST, DELETE, OPTIONS")


async def test_content_that_comes_too_slowly_is_answered_408(autojump_clock: MockClock) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(large(1000))
    assert told(answer) == (408, 408, "not_written", True)
    assert answer.closes
    assert producer.records == []


async def test_record_without_a_report_in_time_is_unknown_and_stays_held(autojump_clock: MockClock) -> None:
    producer = StallingProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(request("POST /", content=b"x"))
        assert told(answer) == (504, 50003, "unknown", True)
        assert trio.current_time() >= Timeouts().answer_seconds
        assert exchanges.budget.held_bytes > 0
        producer.release()
        assert exchanges.budget.held_bytes == 0


async def test_retry_after_has_jitter() -> None:
    async with open_exchanges(FailingProducer(Overloaded("there is no room just now"))) as exchanges:
        client = exchanges.connect()
        seconds = {
            int((await client.ask(request("POST /", content=b"x"))).fields["retry-after"]) for _ in range(200)
        }
    assert len(seconds) > 1
    assert min(seconds) >= 1
    assert max(seconds) <= 10


class Broken(MemoryProducer):
    """A producer with a bug."""

    def __init__(self, bug: Exception) -> None:
        super().__init__()
        self._bug = bug

    async def require_topic(self, name: str) -> int:
        raise self._bug


@pytest.mark.parametrize("bug", [KeyError("a bug"), OSError("not the client's"), trio.BrokenResourceError()])
async def test_bug_is_answered_500_and_logged_with_the_requests_id(
    bug: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_exchanges(Broken(bug)) as exchanges:
        client = exchanges.connect()
        for _ in range(2):
            answer = await client.ask(request("POST /", "X-Request-Id: mine", content=b"x"))
            assert told(answer) == (500, 50002, "unknown", False)
    # The same bug once more is not worth another traceback.
    assert [(line.levelno, line.message) for line in caplog.records] == [(logging.ERROR, "request failed")]
    assert vars(caplog.records[0])["request_id"] == "mine"


@pytest.mark.parametrize("sent", [request("POST /", "Content-Length: 9") + b"some", large(900)])
async def test_client_that_breaks_off_is_not_logged(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        await client.send(sent)
        await client.close()
        await trio.testing.wait_all_tasks_blocked()
        assert exchanges.budget.held_bytes == 0
    assert caplog.records == []


# Limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "size", "named"),
    [
        (Limits(request_bytes=3000), 3001, "limits.request_bytes is 3000"),
        (Limits(record_bytes=2000), 2001, "2000 is the most for this topic by limits.record_bytes"),
    ],
)
@pytest.mark.parametrize("expect", [True, False])
async def test_content_too_large_is_refused_before_it_is_read(
    limits: Limits, size: int, named: str, expect: bool
) -> None:
    producer = MemoryProducer(record_bytes=limits.record_bytes)
    fields = [EXPECT] if expect else []
    async with open_exchanges(producer, Config(limits=limits)) as exchanges:
        answer = await exchanges.ask(request("POST /", *fields, f"Content-Length: {size}"))
        assert answer.status == 413  # and not 100
        assert named in answer.json["message"]
        assert answer.closes == expect
        fits = await exchanges.ask(request("POST /", content=bytes(size - 1)))
        assert fits.status == 200


async def test_chunked_content_is_refused_where_it_passes_the_limit() -> None:
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        client = exchanges.connect()
        await client.send(request("POST /", CHUNKED))
        for _ in range(3):
            await client.send(chunk(bytes(60_000)))
        await trio.testing.wait_all_tasks_blocked()
        answer = await client.ask(chunk(bytes(30_000)))
        assert (answer.status, answer.closes) == (413, True)
        assert "limits.request_bytes is 200000" in answer.json["message"]


async def test_key_and_headers_count_as_the_record() -> None:
    limits = Config(limits=Limits(record_bytes=100))
    async with open_exchanges(MemoryProducer(record_bytes=100), limits) as exchanges:
        for target, field, room in [
            ("/?key=0123456789", "X: y", 90),
            ("/", "Kafka-Header-Name: 012345", 90),
            ("/?key_field=k", "X: y", 95),  # the key is "abcde"
        ]:
            content = json.dumps({"k": "abcde"}).encode().ljust(room)
            assert (await exchanges.ask(request(f"POST {target}", field, content=content))).status == 200
            over = await exchanges.ask(request(f"POST {target}", field, content=content + b" "))
            assert over.status == 413
            assert "100 is the most for this topic by limits.record_bytes" in over.json["message"]


async def test_head_alone_can_be_too_large_for_a_record() -> None:
    async with open_exchanges(MemoryProducer(record_bytes=100)) as exchanges:
        answer = await exchanges.ask(request(f"DELETE {ORDERS}?key={101 * 'k'}"))
    assert answer.status == 413


# No room -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [["Content-Length: 5"], [CHUNKED], ["Content-Length: 5", EXPECT]])
@pytest.mark.parametrize("full", ["budget", "producer"])
async def test_full_is_answered_before_content_is_read(full: str, fields: list[str]) -> None:
    producer = StallingProducer(accepts=0) if full == "producer" else MemoryProducer()
    async with open_exchanges(producer, SMALL) as exchanges:
        taken = SMALL.limits.held_bytes - 100 if full == "budget" else 0
        hold = await exchanges.budget.acquire(taken)
        answer = await exchanges.ask(request("POST /", *fields))
        assert told(answer) == (503, 50301, "not_written", True)
        hold.release()
    assert producer.ledger.accepted == 0


@pytest.mark.parametrize("asked", [request("POST /", content=b"x"), request("POST /", CHUNKED)])
async def test_route_that_waits_gets_its_turn_when_there_is_room(
    autojump_clock: MockClock, asked: bytes
) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, WAITS) as exchanges:
        hold = await exchanges.budget.acquire(WAITS.limits.held_bytes)
        client = exchanges.connect()
        await client.send(asked)
        await trio.sleep(4)
        assert producer.ledger.accepted == 0
        hold.release()
        if asked.endswith(b"\r\n\r\n"):
            await client.send(chunk(b"x") + chunk(b""))
        assert (await client.answer()).status == 200


async def test_route_that_waits_is_told_to_continue_only_when_there_is_room(
    autojump_clock: MockClock,
) -> None:
    async with open_exchanges(MemoryProducer(), WAITS) as exchanges:
        hold = await exchanges.budget.acquire(WAITS.limits.held_bytes)
        client = exchanges.connect()
        await client.send(request("POST /", EXPECT, "Content-Length: 1"))
        with trio.move_on_after(4) as waiting:
            await client.answer()
        assert waiting.cancelled_caught
        hold.release()
        assert (await client.answer()).status == 100
        assert (await client.ask(b"x")).status == 200


@pytest.mark.parametrize("full", ["budget", "producer"])
async def test_wait_for_room_is_bounded(autojump_clock: MockClock, full: str) -> None:
    producer = StallingProducer(accepts=0) if full == "producer" else MemoryProducer()
    async with open_exchanges(producer, WAITS) as exchanges:
        hold = await exchanges.budget.acquire(WAITS.limits.held_bytes if full == "budget" else 0)
        answer = await exchanges.ask(request("POST /", content=b"x"))
        assert told(answer) == (503, 50301, "not_written", True)
        assert 5 <= trio.current_time() <= 6
        hold.release()


async def test_wait_for_room_and_for_the_report_have_one_deadline(autojump_clock: MockClock) -> None:
    async with open_exchanges(StallingProducer(), WAITS) as exchanges:
        hold = await exchanges.budget.acquire(WAITS.limits.held_bytes)
        client = exchanges.connect()
        await client.send(request("POST /", content=b"x"))
        await trio.sleep(4)
        hold.release()
        assert told(await client.answer()) == (504, 50003, "unknown", True)
        assert trio.current_time() <= Timeouts().answer_seconds + 1


async def test_wait_for_room_is_one_wait_wherever_room_is_missing(autojump_clock: MockClock) -> None:
    async with open_exchanges(StallingProducer(accepts=0), WAITS) as exchanges:
        hold = await exchanges.budget.acquire(WAITS.limits.held_bytes)
        client = exchanges.connect()
        await client.send(request("POST /", content=b"x"))
        await trio.sleep(4)
        hold.release()
        assert told(await client.answer()) == (503, 50301, "not_written", True)
        assert 5 <= trio.current_time() <= 6


async def test_waiting_request_is_served_when_a_full_producer_has_room() -> None:
    producer = StallingProducer(accepts=0)
    async with open_exchanges(producer, WAITS) as exchanges:
        client = exchanges.connect()
        await client.send(request("POST /", content=b"x"))
        await trio.testing.wait_all_tasks_blocked()
        producer.release()
        assert (await client.answer()).status == 200


async def test_headers_are_paid_for() -> None:
    held = []
    for headers in (0, 40):
        async with open_exchanges(StallingProducer()) as exchanges:
            fields = [f"Kafka-Header-{number}:" for number in range(headers)]
            await exchanges.connect().send(request("POST /", *fields, content=b"x"))
            await trio.testing.wait_all_tasks_blocked()
            held.append(exchanges.budget.held_bytes)
    assert held[1] - held[0] >= 40 * 250


UNFINISHED = [
    pytest.param(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nX: {30_000 * 'x'}".encode(), id="head"),
    pytest.param(request("POST /", CHUNKED) + f"0\r\nX: {30_000 * 'x'}".encode(), id="trailers"),
]


@pytest.mark.parametrize("unfinished", UNFINISHED)
async def test_what_has_come_of_a_head_or_of_trailers_is_paid_for_until_its_end(unfinished: bytes) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        await client.send(unfinished[:20_000])
        await trio.testing.wait_all_tasks_blocked()
        assert 19_000 <= exchanges.budget.held_bytes <= 21_000
        await client.send(unfinished[20_000:])
        await trio.testing.wait_all_tasks_blocked()
        assert 30_000 <= exchanges.budget.held_bytes <= 32_000
        assert (await client.ask(b"\r\n\r\n")).status == 200
        assert exchanges.budget.held_bytes == 0


@pytest.mark.parametrize("unfinished", UNFINISHED)
async def test_a_head_or_trailers_without_room_are_refused_and_let_go(unfinished: bytes) -> None:
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        hold = await exchanges.budget.acquire(SMALL.limits.held_bytes - 31_000)
        first, second = exchanges.connect(), exchanges.connect(peer="192.0.2.2")
        await first.send(unfinished)
        await trio.testing.wait_all_tasks_blocked()
        answer = await second.ask(unfinished)
        assert told(answer) == (503, 50301, "not_written", True)
        assert answer.closes
        hold.release()
        assert (await first.ask(b"\r\n\r\n")).status == 200


async def test_a_large_head_is_paid_for_until_the_answer() -> None:
    producer = StallingProducer()
    for fields, asynchronous in ((f"X: {20_000 * 'x'}", False), (f"X: {20_000 * 'x'}", True)):
        async with open_exchanges(producer) as exchanges:
            prefer = ("Prefer: respond-async",) if asynchronous else ()
            await exchanges.connect().send(request("POST /", fields, *prefer, content=b"x"))
            await trio.testing.wait_all_tasks_blocked()
            assert (exchanges.budget.held_bytes >= 20_000) is not asynchronous


async def test_what_waits_behind_a_request_is_paid_for_until_its_turn() -> None:
    producer = StallingProducer()
    second = request("POST /", f"X: {20_000 * 'x'}", content=b"2")
    async with open_exchanges(producer, SMALL) as exchanges:
        client = exchanges.connect()
        await client.send(request("POST /", content=b"1") + second)
        await trio.testing.wait_all_tasks_blocked()
        assert exchanges.budget.held_bytes >= len(second)
        hold = await exchanges.budget.acquire(SMALL.limits.held_bytes - exchanges.budget.held_bytes - 2000)
        other = exchanges.connect()
        refused = await other.ask(request("POST /", content=b"1") + second)
        assert told(refused) == (503, 50301, "not_written", True)
        assert not refused.closes
        hold.release()
        producer.release()
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
    assert sorted(record.value or b"" for record in producer.records)[:2] == [b"1", b"2"]


async def test_an_idle_connection_keeps_nothing_of_its_last_request() -> None:
    asked = request("POST /", f"X: {30_000 * 'x'}", content=b"x")
    async with open_exchanges(MemoryProducer()) as exchanges:
        clients = [exchanges.connect() for _ in range(20)]
        tracemalloc.start()
        for client in clients:
            assert (await client.ask(asked)).status == 200
        await trio.testing.wait_all_tasks_blocked()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept <= 10 * len(asked)


async def test_unfinished_heads_of_one_client_leave_room_for_others() -> None:
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        for _ in range(20):
            await exchanges.connect().send(b"POST / HTTP/1.1\r\nX: " + 30_000 * b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert exchanges.budget.held_bytes <= SMALL.limits.held_bytes // 4
        other = exchanges.connect(peer="192.0.2.2")
        assert (await other.ask(request("POST /", content=bytes(100_000)))).status == 200


async def test_growing_content_is_refused_where_the_next_piece_has_no_room() -> None:
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        hold = await exchanges.budget.acquire(SMALL.limits.held_bytes - 100_000)
        client = exchanges.connect()
        await client.send(request("POST /", CHUNKED) + chunk(bytes(60_000)))
        await trio.testing.wait_all_tasks_blocked()
        answer = await client.ask(chunk(bytes(60_000)))
        assert told(answer) == (503, 50301, "not_written", True)
        assert exchanges.budget.held_bytes == hold.size
        hold.release()


async def test_one_peer_holds_at_most_a_quarter_in_unfinished_content() -> None:
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        first = exchanges.connect(peer=PEER)
        await first.send(large(200_000))
        await trio.testing.wait_all_tasks_blocked()
        second = exchanges.connect(peer=PEER)
        answer = await second.ask(large(100_000))
        assert told(answer) == (503, 50301, "not_written", True)
        assert "quarter" in answer.json["message"]
        other = exchanges.connect(peer="192.0.2.2")
        assert (await other.ask(request("POST /", content=bytes(100_000)))).status == 200
        assert (await first.ask(bytes(200_000))).status == 200
        assert (await exchanges.ask(request("POST /", content=bytes(100_000)))).status == 200


async def test_content_that_is_complete_no_longer_counts_for_its_peer() -> None:
    producer = StallingProducer()
    async with open_exchanges(producer, SMALL) as exchanges:
        for _ in range(4):
            await exchanges.connect(peer=PEER).send(request("POST /", content=bytes(200_000)))
            await trio.testing.wait_all_tasks_blocked()
        assert producer.pending == 4


# Whatever happens, nothing stays held ----------------------------------------------------------------------


LINES = "Content-Type: application/x-ndjson"
WHOLE = [
    request("POST /", content=b"x" * 5000),
    request("POST /", CHUNKED) + chunk(b"x" * 100_000) + chunk(b""),
    request("POST /", CHUNKED) + chunk(b"x") + b"broken\r\n",
    request("POST /", EXPECT, content=b"x"),
    request("POST /", "Prefer: respond-async", content=b"x"),
    request("POST /?key_field=k", content=b"{}"),
    request("POST /", LINES, content=b'{"a":1}\n' * 3000),
    request("POST /?offsets=true", LINES, CHUNKED) + chunk(b'{"a":1}\n{' * 3000) + chunk(b""),
    request("POST /", LINES, CHUNKED) + chunk(b'"' + b"x" * 150_000),
    large(150_000),
    large(1 << 21),
]
ENDS = ["closes", "half-closes", "resets", "stays", "cancelled"]


def producer_of(kind: str) -> MemoryProducer:
    producers: dict[str, Any] = {
        "memory": MemoryProducer,
        "stalling": StallingProducer,
        "stalling soon": lambda: StallingProducer(accepts=3),
        "failing": lambda: FailingProducer(RecordRefused("no")),
        "draining": lambda: FailingProducer(Draining("no")),
        "broken": lambda: Broken(KeyError("a bug")),
    }
    producer: MemoryProducer = producers[kind]()
    return producer


clients = st.lists(
    st.tuples(st.integers(0, len(WHOLE) - 1), st.floats(0, 1), st.sampled_from(ENDS), st.booleans()),
    min_size=1,
    max_size=8,
)
kinds = st.sampled_from(["memory", "stalling", "stalling soon", "failing", "draining", "broken"])


@settings(max_examples=150, deadline=None)
@given(clients, kinds, st.booleans())
def test_nothing_stays_held_whatever_clients_do(
    clients: list[tuple[int, float, str, bool]], kind: str, waits: bool
) -> None:
    config = Config(
        limits=SMALL.limits,
        routes=[Route("/", "events", when_full="wait" if waits else "reject")],
    )

    async def run() -> None:
        producer = producer_of(kind)
        async with open_exchanges(producer, config) as exchanges:
            for index, part, end, pauses in clients:
                pair = trio.testing.memory_stream_pair()
                client = exchanges.connect(pair=lambda pair=pair: pair)  # type: ignore[misc]
                whole = WHOLE[index]
                await client.send(whole[: max(1, round(part * len(whole)))])
                if pauses:
                    await trio.testing.wait_all_tasks_blocked()
                if end == "closes":
                    await client.close()
                elif end == "half-closes":
                    await pair[0].send_eof()
                elif end == "resets":
                    exchanges.connections[-1].abandon()
                elif end == "cancelled":
                    break
            else:
                await trio.sleep(200)  # past every deadline
                if isinstance(producer, StallingProducer):
                    producer.release()
                assert exchanges.budget.held_bytes == 0
        if kind != "broken":
            assert producer.ledger.pending == 0

    logging.disable()  # the bugs of the broken producer
    try:
        trio.run(run, clock=MockClock(autojump_threshold=0))
    finally:
        logging.disable(logging.NOTSET)
