"""The short way: what goes it, and that nobody can tell it from the long one but by the time it takes."""

from __future__ import annotations

import re
import socket
import struct
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio
from confluent_kafka.admin import AdminClient, ConfigResource
from prometheus_client import CollectorRegistry

import ingest
from ingest.delivery import Delivery
from ingest.direct import Direct
from ingest.http.at_once import Answer as Begun
from ingest.http.messages import Request
from tests.client import Answer, Client, request
from tests.mock_kafka import PRODUCE, MockKafka, open_mock_kafka
from tests.serving import OFF, connect, serving

JSON = "Content-Type: application/json"
ASYNC = "Prefer: respond-async"
MINIMAL = "Prefer: return=minimal"
NAMED = "X-Request-Id: mine"
LINES = "Content-Type: application/x-ndjson"
PAGE = "https://page.example.org"

taken: list[bool] = []
"""Of each request that the short way was asked for, whether it was taken."""


@pytest.fixture(autouse=True)
def spied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Direct.begin
    taken.clear()

    def spy(self: Direct, asked: Request, content: bytes, now: float) -> Delivery | Begun | None:
        begun = begin(self, asked, content, now)
        taken.append(begun is not None)
        return begun

    monkeypatch.setattr(Direct, "begin", spy)


class Place(NamedTuple):
    server: ingest.Server

    def connect(self) -> AbstractAsyncContextManager[Client]:
        return connect(self.server)

    def metric(self, name: str, **labels: str) -> float | None:
        registry = CollectorRegistry()
        registry.register(self.server.metrics)
        return registry.get_sample_value(name, labels)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockKafka]:
    """A cluster with a topic that has no limit of its own."""

    def describe(_: AdminClient, asked: Sequence[ConfigResource], **__: float) -> dict[ConfigResource, Any]:
        """An answer at once, as real clusters give it; this one leaves the question until it times out."""
        answers = {resource: Future[Any]() for resource in asked}
        for answer in answers.values():
            answer.set_result({})
        return answers

    monkeypatch.setattr(AdminClient, "describe_configs", describe)
    with open_mock_kafka() as kafka:
        kafka.create("events")
        yield kafka


@asynccontextmanager
async def open_place(
    kafka: MockKafka,
    *,
    access: bool = False,
    limits: ingest.Limits = ingest.Limits(),  # noqa: B008  # frozen
    answer_seconds: float = 10.0,
    engine: str = "auto",
    queue_records: int = 100_000,
) -> AsyncIterator[Place]:
    config = ingest.Config(
        management=OFF,
        http=ingest.HTTP(port=0, engine=engine),  # type: ignore[arg-type]  # one of its literals
        routes=[ingest.Route("/", topic="events")],
        limits=limits,
        timeouts=ingest.Timeouts(answer_seconds=answer_seconds),
        cors=ingest.CORS(allow_origins=[PAGE]),
        log=ingest.Log(access=access),
        kafka={
            "bootstrap.servers": kafka.address,
            "log_level": 0,
            "queue.buffering.max.messages": queue_records,
            "message.timeout.ms": int(answer_seconds * 500),
        },
    )
    async with serving(config=config) as server:
        yield Place(server)


def seen(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """The answer without what differs between any two."""
    fields = {name: value for name, value in answer.fields.items() if name not in ("date", "content-length")}
    fields["x-request-id"] = re.sub(r"^[0-9a-f]{12}-[0-9a-f]+$", "(ours)", fields["x-request-id"])
    return answer.status, fields, re.sub(rb'"(offset|timestamp)":\d+', rb'"\1":0', answer.content)


USUAL = {
    "delivered": request("POST /", JSON, content=b'{"id":1}'),
    "no content": request("POST /", content=b""),
    "queued": request("POST /", JSON, ASYNC, content=b'{"id":1}'),
    "minimal": request("POST /", MINIMAL, content=b"x"),
    "queued and minimal": request("POST /", "Prefer: respond-async, return=minimal", content=b"x"),
    "named by its client": request("POST /", NAMED, content=b"x"),
    "from a page": request("POST /", f"Origin: {PAGE}", content=b"x"),
    "a line from a page": request("POST /", f"Origin: {PAGE}", LINES, content=b"1\n"),
    "a line from a page, queued": request("POST /", f"Origin: {PAGE}", LINES, ASYNC, content=b"1\n"),
    "from a page, queued": request("POST /", f"Origin: {PAGE}", ASYNC, content=b"x"),
    "key": request("POST /?key=k", content=b"x"),
    "key out of the content": request("POST /?key_field=id", JSON, content=b'{"id":"k"}'),
    "fields": request(
        "POST /", "Kafka-Header-Trace: abc", "Kafka-Timestamp: 5", "Kafka-Partition: 0", content=b"x"
    ),
    "a line": request("POST /", LINES, content=b'{"id":1}\n'),
    "a line without its end": request("POST /", LINES, content=b'{"id":1}'),
    "a line that is not read": request("POST /?validate=false", LINES, content=b"x\n"),
    "a line, queued": request("POST /", LINES, ASYNC, content=b'{"id":1}\n'),
    "a line, minimal": request("POST /", LINES, MINIMAL, content=b'{"id":1}\n'),
    "a line, queued and minimal": request(
        "POST /", LINES, "Prefer: respond-async, return=minimal", content=b"1\n"
    ),
    "a line with its key": request("POST /?key_field=id", LINES, content=b'{"id":"k"}\n'),
    "a line with fields": request(
        "POST /?key=k", LINES, "Kafka-Header-Trace: abc", "Kafka-Timestamp: 5", content=b"1\n"
    ),
}


@pytest.mark.parametrize("engine", ["builtin", "h11"])
@pytest.mark.parametrize("asked", USUAL.values(), ids=USUAL.keys())
async def test_answer_and_record_are_those_of_the_long_way(
    cluster: MockKafka, asked: bytes, engine: str
) -> None:
    answers: list[Answer] = []
    async with open_place(cluster, engine=engine) as place:
        async with place.connect() as client:
            answers += [await client.ask(asked) for _ in range(3)]
        await place.server.shutdown()
        assert place.server.ledger.delivered == 3
        counts = [place.metric("ingest_http_requests_total", route="/", code=str(answers[0].status))]
    assert taken[-2:] == [True, True]  # a head known from another test was asked for at the first, too
    count = len(taken)
    async with open_place(cluster, access=True, engine=engine) as place, place.connect() as client:
        answers.append(await client.ask(asked))  # the access log is written on the long way alone
        await place.server.shutdown()
    assert len(taken) == count
    assert len({str(seen(answer)) for answer in answers}) == 1
    assert counts == [3]
    names = [answer.fields["x-request-id"] for answer in answers]
    assert len(set(names)) == (1 if NAMED.encode() in asked else 4)
    records = [(record.value, record.key, record.headers) for record in cluster.read("events")]
    assert records == records[:1] * 4


LAST = {
    "delivered": request("POST /", "Connection: close", content=b"x"),
    "queued": request("POST /", "Connection: close", ASYNC, content=b"x"),
    "minimal": request("POST /", "Connection: close", MINIMAL, content=b"x"),
    "from a page": request("POST /", "Connection: close", f"Origin: {PAGE}", content=b"x"),
    "a line": request("POST /", "Connection: close", LINES, content=b"1\n"),
    "a line, queued": request("POST /", "Connection: close", LINES, ASYNC, content=b"1\n"),
    "HTTP/1.0": request("POST /", content=b"x", version="1.0"),
}


@pytest.mark.parametrize("engine", ["builtin", "h11"])
@pytest.mark.parametrize("asked", LAST.values(), ids=LAST.keys())
async def test_the_only_request_of_a_connection_goes_the_short_way_too(
    cluster: MockKafka, asked: bytes, engine: str
) -> None:
    answers: list[Answer] = []
    for access in (False, True):  # the log is written on the long way alone
        async with open_place(cluster, access=access, engine=engine) as place:
            for _ in range(3):
                async with place.connect() as client:
                    answers.append(await client.ask(asked))
                    assert await client.rest() == b""
            while place.metric("ingest_connections"):  # noqa: ASYNC110  # it closes just after that
                await trio.sleep(0.01)
            await place.server.shutdown()
            assert place.server.ledger.delivered == 3
    assert taken[-2:] == [True, True]
    assert len({str(seen(answer)) for answer in answers}) == 1
    assert answers[0].closes


async def test_what_follows_the_last_request_takes_nothing_from_its_answer(cluster: MockKafka) -> None:
    asked = request("POST /", "Connection: close", content=b"x")
    async with open_place(cluster) as place:
        async with place.connect() as client:
            assert (await client.ask(asked)).status == 200
        cluster.set_latency(0.3)
        taken.clear()
        async with place.connect() as client:
            await client.send(asked)
            while not taken:  # noqa: ASYNC110  # it is seen when it has been read
                await trio.sleep(0.01)
            await client.send(b"more that nobody reads")
            assert (await client.answer()).status == 200
            assert await client.rest() == b""  # and no reset
        assert taken == [True]
        cluster.set_latency(0)


UNUSUAL = {
    "lines with their results": request("POST /?offsets=true", LINES, content=b'{"id":1}\n'),
    "no lines": request("POST /", LINES, content=b""),
    "a blank line": request("POST /", LINES, content=b'{"id":1}\n\n{"id":2}\n'),
    "a line that ends with CRLF": request("POST /", LINES, content=b'{"id":1}\r\n'),
    "a line that is no JSON": request("POST /", LINES, content=b'{"id":1}\n{\n'),
    "a line without its key": request("POST /?key_field=id", LINES, content=b"{}\n"),
    "a line that is too long": request("POST /", LINES, content=b'"%b"\n1\n' % (b"x" * 1500)),
    "many lines": request("POST /", LINES, content=b"1\n" * 1001),
    "chunks": request("POST /", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n",
    "asked whether to continue": request("POST /", "Expect: 100-continue", content=b"x"),
    "a tombstone": request("DELETE /topics/events/records?key=k"),
    "two at once": request("POST /", content=b"x") * 2,
    "another topic that is not there": request("POST /topics/none/records", content=b"x"),
    "more than a record may have": request("POST /", content=b"x" * 2000),
    "no JSON to take the key of": request("POST /?key_field=id", content=b"x"),
}


@pytest.mark.parametrize("asked", UNUSUAL.values(), ids=UNUSUAL.keys())
async def test_what_is_not_usual_goes_the_long_way(cluster: MockKafka, asked: bytes) -> None:
    limits = ingest.Limits(record_bytes=1500)
    async with open_place(cluster, limits=limits) as place, place.connect() as client:
        for _ in range(3):
            await client.send(asked)
            while (await client.answer()).status == 100:
                pass
            if asked == UNUSUAL["two at once"]:
                await client.answer()
    assert not any(taken)


async def test_requests_on_both_ways_keep_their_order(cluster: MockKafka) -> None:
    async with open_place(cluster) as place, place.connect() as client:
        for number in range(60):
            content = b"%d" % number
            kind = number % 4
            if kind == 0:
                await client.send(request("POST /", ASYNC, content=content))
            elif kind == 1:
                await client.send(request("POST /", ASYNC, NAMED, content=content))
            elif kind == 2:
                await client.send(request("POST /", ASYNC, LINES, content=content))
            else:
                size = b"%x" % len(content)
                chunks = size + b"\r\n" + content + b"\r\n0\r\n\r\n"
                await client.send(request("POST /", ASYNC, "Transfer-Encoding: chunked") + chunks)
            assert (await client.answer()).status == 202
        await place.server.shutdown()
    assert any(taken)
    assert cluster.values("events") == [b"%d" % number for number in range(60)]


async def test_a_failed_report_is_answered_as_on_the_long_way(cluster: MockKafka) -> None:
    asked = request("POST /", content=b"x")
    async with open_place(cluster) as place, place.connect() as client:
        assert (await client.ask(asked)).status == 200
        cluster.fail(PRODUCE, "TOPIC_AUTHORIZATION_FAILED")
        answer = await client.ask(asked)
        assert (answer.status, answer.json["outcome"]) == (503, "not_written")
        assert place.server.ledger.failed == 1
        assert place.metric("ingest_http_requests_total", route="/", code="503") == 1
    assert taken[-1] is True


async def test_failed_lines_are_named_as_on_the_long_way(cluster: MockKafka) -> None:
    cluster.create("spread", partitions=4)
    contents = [b'{"id":"%d"}' % number for number in range(100)]
    asked = request("POST /topics/spread/records?key_field=id", LINES, content=b"\n".join(contents))
    answers = []
    for access in (False, True):
        async with open_place(cluster, access=access) as place, place.connect() as client:
            assert (await client.ask(asked)).json == {"accepted": 100, "failed": 0}
            before = Counter(cluster.values("spread"))
            # An error of the topic would have librdkafka fail all that it still holds for it.
            cluster.fail(PRODUCE, "CLUSTER_AUTHORIZATION_FAILED")
            answer = await client.ask(asked)
            results = answer.json["results"]
            failed = {result.pop("line") for result in results}
            there = Counter(cluster.values("spread")) - before
            assert set(there) == {line for number, line in enumerate(contents, 1) if number not in failed}
            assert (answer.json["accepted"], answer.json["failed"]) == (100 - len(failed), len(failed))
            answers.append((answer.status, results[0]))
    assert taken[-1] is True
    assert answers[0] == answers[1]
    assert answers[0][0] == 207


@pytest.mark.parametrize("queue_records", [100_000, 100], ids=["of a turn", "of librdkafka's queue"])
async def test_lines_beyond_the_most_follow_before_what_came_later(
    cluster: MockKafka, queue_records: int
) -> None:
    lines = [b"%d" % number for number in range(900)]
    many = request("POST /", LINES, ASYNC, content=b"\n".join(lines))
    async with open_place(cluster, queue_records=queue_records) as place, place.connect() as client:
        assert (await client.ask(many)).json == {"accepted": 900, "failed": 0}
        assert (await client.ask(request("POST /", content=b"between"))).status == 200
        cluster.set_latency(0.2)
        assert (await client.ask(many)).json == {"accepted": 900, "failed": 0}
        assert taken[-1] is True
        assert (await client.ask(request("POST /", ASYNC, content=b"last"))).status == 202
        await place.server.shutdown()
        assert place.server.ledger.delivered == 1802
    assert cluster.values("events") == [*lines, b"between", *lines, b"last"]


async def test_clients_with_many_lines_at_once_all_have_their_turn(cluster: MockKafka) -> None:
    line = b'"%b"\n' % (b"x" * 100)
    asked = request("POST /", LINES, content=line * 500)
    async with open_place(cluster) as place, AsyncExitStack() as connected, trio.open_nursery() as nursery:
        clients = [await connected.enter_async_context(place.connect()) for _ in range(30)]
        assert (await clients[0].ask(asked)).status == 200

        async def ask(client: Client) -> None:
            for _ in range(3):
                assert (await client.ask(asked)).json == {"accepted": 500, "failed": 0}

        for client in clients:
            nursery.start_soon(ask, client)
    assert place.server.ledger.delivered == 500 * (1 + 90)


async def test_a_deadline_ends_the_wait_with_unknown(cluster: MockKafka) -> None:
    asked = request("POST /", content=b"x")
    async with open_place(cluster, answer_seconds=3) as place, place.connect() as client:
        assert (await client.ask(asked)).status == 200
        cluster.set_latency(5)
        answer = await client.ask(asked)
        assert (answer.status, answer.json["outcome"]) == (504, "unknown")
        assert place.metric("ingest_http_requests_total", route="/", code="504") == 1
        assert taken[-1] is True
        cluster.set_latency(0)


async def test_a_drain_answers_who_waits_and_closes(cluster: MockKafka) -> None:
    asked = request("POST /", content=b"x")
    async with open_place(cluster) as place, place.connect() as client, trio.open_nursery() as nursery:
        assert (await client.ask(asked)).status == 200
        cluster.set_latency(0.5)
        taken.clear()
        await client.send(asked)
        while not taken:  # noqa: ASYNC110  # it is seen when it has been read
            await trio.sleep(0.01)
        assert taken == [True]
        nursery.start_soon(place.server.shutdown)
        answer = await client.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert await client.rest() == b""


async def test_a_client_that_leaves_is_counted_as_without_an_answer(cluster: MockKafka) -> None:
    asked = request("POST /", content=b"x")
    async with open_place(cluster) as place:
        async with place.connect() as client:
            assert (await client.ask(asked)).status == 200
            cluster.set_latency(3)
            taken.clear()
            await client.send(asked)
            while not taken:  # noqa: ASYNC110  # the same
                await trio.sleep(0.01)
            assert taken == [True]
            assert isinstance(client.stream, trio.SocketStream)
            reset = struct.pack("ii", 1, 0)
            client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        while place.metric("ingest_http_requests_total", route="/", code="0") is None:  # noqa: ASYNC110
            await trio.sleep(0.01)
        cluster.set_latency(0)
        await place.server.shutdown()
        assert place.server.ledger.delivered == 2
        assert place.metric("ingest_held_bytes") == 0


async def test_without_room_the_long_way_says_so(cluster: MockKafka) -> None:
    asked = request("POST /", content=b"x" * 600)
    limits = ingest.Limits(held_bytes=530_000, record_bytes=1000, request_bytes=1000)
    async with open_place(cluster, limits=limits) as place, place.connect() as client:
        assert (await client.ask(asked)).status == 200
        cluster.set_latency(5)
        queued = request("POST /", ASYNC, content=b"x" * 600)
        while (answer := await client.ask(queued)).status == 202:
            pass
        assert (answer.status, answer.json["outcome"]) == (503, "not_written")
        assert taken.count(True) > 100
        assert taken[-1] is False
        cluster.set_latency(0)


async def test_kafka_that_is_known_to_be_down_is_said_to_be(cluster: MockKafka) -> None:
    asked = request("POST /", content=b"x")
    async with open_place(cluster, answer_seconds=3) as place, place.connect() as client:
        assert (await client.ask(asked)).status == 200
        cluster.down()
        while (answer := await client.ask(asked)).status != 503:
            assert answer.status == 504
        assert answer.json["outcome"] == "not_written"
        assert taken[-1] is False
        cluster.up()
        while (answer := await client.ask(asked)).status != 200:
            pass
        assert (await client.ask(asked)).status == 200
        assert taken[-1] is True


async def test_a_record_is_not_too_large_for_one_way_only(cluster: MockKafka) -> None:
    limits = ingest.Limits(record_bytes=1000)
    async with open_place(cluster, limits=limits) as place, place.connect() as client:
        for size, status in ((1000, 200), (1000, 200), (1001, 413), (1000, 200)):
            assert (await client.ask(request("POST /", content=b"x" * size))).status == status
        keyed = [request("POST /?key_field=k", content=b'{"k":"%b"}' % (b"x" * size)) for size in (496, 497)]
        assert [(await client.ask(each)).status for each in (keyed[0], keyed[0], keyed[1])] == [200, 200, 413]


async def test_a_connection_keeps_no_content_that_librdkafka_has_or_kafka(cluster: MockKafka) -> None:
    asked = request("POST /", content=b"x" * 30_000)
    async with open_place(cluster) as place, AsyncExitStack() as connected:
        clients = [await connected.enter_async_context(place.connect()) for _ in range(20)]
        assert (await clients[0].ask(asked)).status == 200
        taken.clear()
        tracemalloc.start()
        connected.callback(tracemalloc.stop)
        for client in clients:
            assert (await client.ask(asked)).status == 200
        idle, _ = tracemalloc.get_traced_memory()
        cluster.set_latency(2)
        for client in clients:
            await client.send(asked)
        while len(taken) < 40:  # noqa: ASYNC110  # they are seen when they have been read
            await trio.sleep(0.01)
        waiting, _ = tracemalloc.get_traced_memory()
        assert taken == [True] * 40
        assert max(idle, waiting) <= 10 * len(asked)
        cluster.set_latency(0)
