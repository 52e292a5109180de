"""One connection on memory streams and the autojump clock: deadlines, 100-continue, keep-alive, drain."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ingest.errors import IngestError, TooLarge
from ingest.http.connection import DISCARD_BYTES, Connection
from ingest.http.exchange import RECEIVE_BYTES, Exchange, Handler
from ingest.http.listeners import Listeners
from ingest.http.messages import Response
from ingest.http.protocol import HTTPProtocol
from ingest.http.streams import ByteStream
from ingest.sections import Timeouts
from tests.client import Answer, Client, chunk, request

TIMEOUTS = Timeouts()
LATE = 1.0
"""Seconds by which a deadline may be noticed late."""
HANGS = 7200.0
"""Seconds after which a test is given up."""

POST = request("POST /", content=b"content")
CHUNKED = request("POST /", "Transfer-Encoding: chunked")
EXPECTS = request("POST /", "Expect: 100-continue", "Content-Length: 7")


def refuse(error: IngestError) -> Response:
    return Response(error.status, content=error.message.encode(), closes=error.closes)


async def read_all(exchange: Exchange) -> bytes:
    content = b""
    while data := await exchange.receive():
        content += data
    return content


async def echo(exchange: Exchange) -> Response:
    """Answers with the request target and the content."""
    try:
        return Response(200, content=exchange.request.target + b" " + await read_all(exchange))
    except IngestError as error:
        return refuse(error)


async def ignore(exchange: Exchange) -> Response:
    """Answers without a look at the content."""
    return Response(403)


class Held:
    """A handler that answers when told."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.cancelled = 0
        self.answer = trio.Event()

    async def __call__(self, exchange: Exchange) -> Response:
        self.begun.append(exchange.request.target)
        try:
            await self.answer.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return Response(200, content=exchange.request.target)


class Wire:
    """A connection in its task, under the sweep, and the client at its other end."""

    def __init__(self, client: ByteStream, connection: Connection, listeners: Listeners) -> None:
        self.client = Client(client)
        self.connection = connection
        self.drain = listeners.drain
        self.begun = trio.current_time()
        self.ended = trio.Event()

    @property
    def seconds(self) -> float:
        return trio.current_time() - self.begun

    async def closed_after(self, seconds: float) -> bytes:
        """What still came before the server closed, which has to be after `seconds`."""
        rest = await self.client.rest()
        assert seconds <= self.seconds <= seconds + LATE
        return rest


Pair = tuple[ByteStream, ByteStream]


class Opener:
    """Opens connections on the engine of the test."""

    def __init__(self, make_protocol: Callable[[], HTTPProtocol]) -> None:
        self._make_protocol = make_protocol

    @asynccontextmanager
    async def __call__(
        self,
        handler: Handler,
        *,
        refuse: Callable[[IngestError], Response] = refuse,
        timeouts: Timeouts = TIMEOUTS,
        pair: Callable[[], Pair] = trio.testing.memory_stream_pair,
    ) -> AsyncIterator[Wire]:
        client, server = pair()
        connection = Connection(server, "peer", self._make_protocol(), handler, refuse, timeouts)
        listeners = Listeners([], never, most=1)
        listeners.connections.add(connection)
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + HANGS
            wire = Wire(client, connection, listeners)

            async def serve() -> None:
                await connection.serve()
                listeners.connections.discard(connection)
                wire.ended.set()

            nursery.start_soon(listeners.sweep)
            nursery.start_soon(serve)
            yield wire
            nursery.cancel_scope.cancel()
        assert trio.current_time() < wire.begun + HANGS


@pytest.fixture
def open_wire(make_protocol: Callable[[], HTTPProtocol]) -> Opener:
    return Opener(make_protocol)


def never(stream: ByteStream, peer: str) -> Connection:
    raise AssertionError("nothing is accepted here")


# Deadlines ------------------------------------------------------------------------------------------


async def test_connection_without_a_first_byte_is_closed_without_an_answer(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        assert await wire.closed_after(TIMEOUTS.head_seconds) == b""


async def test_head_that_does_not_end_is_answered_408_and_closed(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        await trio.sleep(TIMEOUTS.head_seconds - LATE)
        wire.begun = trio.current_time()
        await wire.client.send(POST[:20])
        answer = await wire.client.answer()
        assert (answer.status, answer.closes) == (408, True)
        assert b"head" in answer.content
        assert await wire.closed_after(TIMEOUTS.head_seconds) == b""


async def test_head_that_began_behind_a_request_has_the_same_time(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        await wire.client.send(POST + POST[:20])
        assert (await wire.client.answer()).status == 200
        assert (await wire.client.answer()).status == 408
        assert await wire.closed_after(TIMEOUTS.head_seconds) == b""


async def test_a_byte_now_and_then_does_not_lengthen_the_time_for_a_head(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire, trio.open_nursery() as nursery:

        async def drip() -> None:
            for byte in POST:
                await wire.client.send(bytes([byte]))
                await trio.sleep(3)

        nursery.start_soon(drip)
        assert (await wire.client.answer()).status == 408
        assert wire.seconds <= TIMEOUTS.head_seconds + LATE
        nursery.cancel_scope.cancel()


async def test_content_that_stops_is_answered_408_and_closed(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        await wire.client.send(POST[:-1])
        answer = await wire.client.answer()
        assert (answer.status, answer.closes) == (408, True)
        assert b"16384 bytes a second" in answer.content
        await wire.closed_after(TIMEOUTS.body_grace_seconds)


@pytest.mark.parametrize(("bytes_per_second", "status"), [(12_000, 408), (20_000, 200)])
async def test_content_has_to_come_at_a_least_rate(
    open_wire: Opener, autojump_clock: MockClock, bytes_per_second: int, status: int
) -> None:
    seconds = 120
    async with open_wire(echo) as wire, trio.open_nursery() as nursery:

        async def upload() -> None:
            await wire.client.send(CHUNKED)
            for _ in range(seconds):
                await wire.client.send(chunk(bytes(bytes_per_second)))
                await trio.sleep(1)
            await wire.client.send(chunk(b""))

        nursery.start_soon(upload)
        assert (await wire.client.answer()).status == status
        nursery.cancel_scope.cancel()


async def test_content_that_came_fast_does_not_earn_a_long_pause(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        await wire.client.send(CHUNKED + chunk(bytes(4 << 20)))
        assert (await wire.client.answer()).status == 408
        await wire.closed_after(TIMEOUTS.body_grace_seconds)


async def test_time_that_the_handler_takes_is_not_charged_to_the_client(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async def slow(exchange: Exchange) -> Response:
        first = await exchange.receive()
        await trio.sleep(10 * TIMEOUTS.body_grace_seconds)
        return Response(200, content=first + await exchange.receive())

    async with open_wire(slow) as wire:
        await wire.client.send(CHUNKED + chunk(b"a"))
        await trio.sleep(10 * TIMEOUTS.body_grace_seconds - 1)
        await wire.client.send(chunk(b"b") + chunk(b""))
        assert (await wire.client.answer()).content == b"ab"


async def test_kept_connection_is_closed_when_it_has_been_idle(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        for _ in range(3):
            await trio.sleep(TIMEOUTS.head_seconds - LATE)
            assert (await wire.client.ask(POST)).status == 200
        wire.begun = trio.current_time()
        assert await wire.closed_after(TIMEOUTS.idle_seconds) == b""


async def test_client_that_does_not_take_its_answer_is_cut_off(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo, pair=trio.testing.lockstep_stream_pair) as wire:
        await wire.client.send(POST)
        await wire.ended.wait()
        assert TIMEOUTS.send_seconds <= wire.seconds <= TIMEOUTS.send_seconds + LATE


async def test_send_deadline_is_for_each_piece_of_a_streamed_answer(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async def pieces(exchange: Exchange) -> None:
        await exchange.start(Response(200, content=None))
        for _ in range(10):
            await trio.sleep(TIMEOUTS.send_seconds)
            await exchange.send(b"piece ")
        await exchange.end()

    async with open_wire(pieces) as wire:
        assert (await wire.client.ask(POST)).content == 10 * b"piece "
        assert wire.seconds >= 10 * TIMEOUTS.send_seconds


async def test_handler_has_no_deadline_here(open_wire: Opener, autojump_clock: MockClock) -> None:
    async def slow(exchange: Exchange) -> Response:
        await trio.sleep(3600)
        return Response(204)

    async with open_wire(slow) as wire:
        assert (await wire.client.ask(POST)).status == 204


# 100-continue ---------------------------------------------------------------------------------------


async def test_100_is_sent_when_the_handler_asks_for_content(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    admitted = trio.Event()

    async def admit(exchange: Exchange) -> Response:
        await admitted.wait()
        return await echo(exchange)

    async with open_wire(admit) as wire:
        await wire.client.send(EXPECTS)
        with pytest.raises(trio.TooSlowError), trio.fail_after(60):
            await wire.client.answer()
        admitted.set()
        assert (await wire.client.answer()).status == 100
        assert (await wire.client.ask(b"content")).content == b"/ content"
        assert (await wire.client.ask(POST)).content == b"/ content"


async def test_100_is_not_sent_before_a_refusal_and_the_connection_ends(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(ignore) as wire:
        answer = await wire.client.ask(EXPECTS)
        assert (answer.status, answer.closes) == (403, True)
        assert await wire.client.rest() == b""


async def test_content_is_not_awaited_after_a_refusal_that_the_client_expected(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(ignore) as wire:
        await wire.client.ask(EXPECTS)
        assert await wire.closed_after(0) == b""


async def test_client_that_was_told_to_continue_and_does_not_is_answered_408(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        assert (await wire.client.ask(EXPECTS)).status == 100
        assert (await wire.client.answer()).status == 408
        await wire.closed_after(TIMEOUTS.body_grace_seconds)


async def test_unknown_expectation_is_refused(open_wire: Opener, autojump_clock: MockClock) -> None:
    async with open_wire(echo) as wire:
        assert (await wire.client.ask(request("POST /", "Expect: a-miracle", content=b"x"))).status == 417


# Keep-alive and pipelining -----------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(open_wire: Opener, autojump_clock: MockClock) -> None:
    async with open_wire(echo) as wire:
        await wire.client.send(b"".join(request(f"POST /{n}", content=b"x") for n in range(500)))
        for n in range(500):
            assert (await wire.client.answer()).content == b"/%d x" % n


async def test_pipelined_request_waits_for_the_answer_before_it(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    held = Held()
    async with open_wire(held) as wire:
        await wire.client.send(request("GET /1") + request("GET /2"))
        await trio.testing.wait_all_tasks_blocked()
        assert held.begun == [b"/1"]
        held.answer.set()
        assert [(await wire.client.answer()).content for _ in range(2)] == [b"/1", b"/2"]


async def test_nothing_is_read_while_an_answer_is_owed(open_wire: Opener, autojump_clock: MockClock) -> None:
    held = Held()
    client, server = trio.testing.lockstep_stream_pair()
    received = 0

    async with open_wire(held, pair=lambda: (client, server)) as wire, trio.open_nursery() as nursery:

        async def pipeline() -> None:
            nonlocal received
            while True:
                await wire.client.send(request("GET /"))
                received += 1

        nursery.start_soon(pipeline)
        await trio.sleep(60)
        assert received == 1
        nursery.cancel_scope.cancel()


async def test_client_that_pipelines_and_never_reads_is_held_to_one_read(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    answers = 0

    async def count(exchange: Exchange) -> Response:
        nonlocal answers
        answers += 1
        return Response(204)

    client, server = trio.testing.lockstep_stream_pair()
    flood = 10_000 * request("GET /")
    async with open_wire(count, pair=lambda: (client, server)) as wire:
        with pytest.raises(trio.BrokenResourceError):
            await wire.client.send(flood)  # in lockstep this ends when all was read, or at the end
        assert answers == 1
        assert len(flood) > RECEIVE_BYTES


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_connection_closes_after_its_answer_where_the_client_says_so(
    open_wire: Opener, autojump_clock: MockClock, version: str
) -> None:
    async with open_wire(echo) as wire:
        fields = ["Connection: close"] if version == "1.1" else []
        answer = await wire.client.ask(request("POST /", *fields, content=b"x", version=version))
        assert (answer.status, answer.closes) == (200, True)
        assert await wire.closed_after(0) == b""


async def test_http_1_0_client_can_keep_its_connection(open_wire: Opener, autojump_clock: MockClock) -> None:
    async with open_wire(echo) as wire:
        for _ in range(2):
            asked = request("POST /", "Connection: keep-alive", content=b"x", version="1.0")
            answer = await wire.client.ask(asked)
            assert answer.fields["connection"] == "keep-alive"


async def test_answer_to_head_has_a_length_and_no_content(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        answer = await wire.client.ask(request("HEAD /a"))
        assert answer.fields["content-length"] == "3"
        assert (await wire.client.ask(request("GET /b"))).content == b"/b "


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_streamed_answer_ends_where_its_client_can_see_it(
    open_wire: Opener, autojump_clock: MockClock, version: str
) -> None:
    async def pieces(exchange: Exchange) -> None:
        await exchange.start(Response(200, content=None))
        for piece in (b"a", b"", b"b"):
            await exchange.send(piece)
        await exchange.end()

    async with open_wire(pieces) as wire:
        answer = await wire.client.ask(request("GET /", version=version))
        assert answer.content == b"ab"
        assert answer.closes == (version == "1.0")


async def test_client_that_only_shuts_its_side_down_gets_its_answer(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    client, server = trio.testing.memory_stream_pair()
    async with open_wire(echo, pair=lambda: (client, server)) as wire:
        await client.send_all(POST)
        await client.send_eof()
        assert (await wire.client.answer()).content == b"/ content"
        assert await wire.closed_after(0) == b""


# Content that nobody reads -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3_000, DISCARD_BYTES])
async def test_short_content_that_nobody_read_is_skipped(
    open_wire: Opener, autojump_clock: MockClock, size: int
) -> None:
    async with open_wire(ignore) as wire:
        content = request("POST /", content=bytes(size))
        for _ in range(2):
            await wire.client.send(content[: -size // 2])
            answer = await wire.client.answer()
            assert (answer.status, answer.closes) == (403, False)
            await wire.client.send(content[-size // 2 :])


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(request("POST /", f"Content-Length: {DISCARD_BYTES + 1}"), id="long"),
        pytest.param(CHUNKED + chunk(b"x"), id="of unknown length"),
        pytest.param(CHUNKED + b"x\r\n", id="broken"),
    ],
)
async def test_other_content_that_nobody_read_ends_the_connection(
    open_wire: Opener, autojump_clock: MockClock, head: bytes
) -> None:
    async with open_wire(ignore) as wire:
        answer = await wire.client.ask(head)
        assert (answer.status, answer.closes) == (403, True)
        assert await wire.closed_after(0) == b""


async def test_content_that_is_here_already_is_skipped_whatever_its_coding(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(ignore) as wire:
        for _ in range(2):
            assert not (await wire.client.ask(CHUNKED + chunk(b"x") + chunk(b""))).closes


async def test_skipped_content_that_stops_ends_the_connection(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(ignore) as wire:
        answer = await wire.client.ask(POST[:-1])
        assert (answer.status, answer.closes) == (403, False)
        await wire.closed_after(TIMEOUTS.body_grace_seconds)


async def test_refusal_in_the_middle_of_long_content_closes(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async def enough(exchange: Exchange) -> Response:
        await exchange.receive()
        return refuse(TooLarge("enough"))

    async with open_wire(enough) as wire:
        answer = await wire.client.ask(CHUNKED + chunk(b"x"))
        assert (answer.status, answer.closes) == (413, True)


# What goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (request("POST /", "Transfer-Encoding: gzip, chunked"), 501),
        (request("POST /", "Transfer-Encoding: chunked", content=b"x"), 400),
        (request("POST /", version="1.0"), 411),
        (request("GET /", "x: " + 40_000 * "x"), 431),
    ],
)
async def test_request_that_cannot_be_read_is_refused_and_closed(
    open_wire: Opener, autojump_clock: MockClock, raw: bytes, status: int
) -> None:
    async with open_wire(echo) as wire:
        assert (await wire.client.ask(POST)).status == 200
        answer = await wire.client.ask(raw)
        assert (answer.status, answer.closes) == (status, True)
        assert await wire.closed_after(0) == b""


@pytest.mark.parametrize("cut", [20, -1])
async def test_stream_that_ends_inside_a_request_is_answered_400(
    open_wire: Opener, autojump_clock: MockClock, cut: int
) -> None:
    client, server = trio.testing.memory_stream_pair()
    async with open_wire(echo, pair=lambda: (client, server)) as wire:
        await client.send_all(POST[:cut])
        await client.send_eof()
        answer = await wire.client.answer()
        assert (answer.status, answer.closes) == (400, True)


async def test_error_in_chunked_content_reaches_the_handler_and_closes(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        answer = await wire.client.ask(CHUNKED + chunk(b"x") + b"nonsense\r\n")
        assert (answer.status, answer.closes) == (400, True)
        assert await wire.closed_after(0) == b""


async def fail(exchange: Exchange) -> Response:
    raise KeyError("a bug")


async def fail_midway(exchange: Exchange) -> Response:
    await exchange.start(Response(200, content=None))
    await exchange.send(b"begun")
    raise KeyError("a bug")


async def answer_twice(exchange: Exchange) -> Response:
    await exchange.start(Response(200, content=None))
    return Response(200)


async def answer_with_a_bad_field(exchange: Exchange) -> Response:
    return Response(200, fields=((b"a", b"b\r\nc: d"),))


@pytest.mark.parametrize("handler", [fail, fail_midway, answer_twice, answer_with_a_bad_field])
async def test_bug_in_a_handler_ends_its_connection_with_one_log_line(
    open_wire: Opener,
    autojump_clock: MockClock,
    handler: Callable[[Exchange], Awaitable[Response]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_wire(handler) as wire:
        await wire.client.send(POST)
        assert b"0\r\n\r\n" not in await wire.client.rest()
        await wire.ended.wait()
        assert wire.seconds == 0
    assert [(line.levelno, line.message) for line in caplog.records] == [(logging.ERROR, "connection failed")]


async def test_bug_in_refuse_ends_the_connection_with_one_log_line(
    open_wire: Opener, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(error: IngestError) -> Response:
        raise KeyError("a bug")

    for raw in (b"nonsense\r\n\r\n", b"POST"):  # at once, and from the sweep
        caplog.clear()
        async with open_wire(echo, refuse=wrong) as wire:
            await wire.client.send(raw)
            assert await wire.client.rest() == b""
        assert [line.message for line in caplog.records] == ["connection failed"]


@pytest.mark.parametrize("sent", [b"", POST[:10], POST[:-1], POST, CHUNKED, 3 * POST])
async def test_client_that_goes_away_is_no_event(
    open_wire: Opener, autojump_clock: MockClock, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_wire(echo) as wire:
        await wire.client.send(sent)
        await wire.client.close()
        await trio.testing.wait_all_tasks_blocked()
        await wire.ended.wait()
        assert wire.seconds == 0
    assert caplog.records == []


async def test_client_that_goes_away_while_its_answer_is_owed_is_no_event(
    open_wire: Opener, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    async with open_wire(held) as wire:
        await wire.client.send(POST)
        await trio.testing.wait_all_tasks_blocked()
        await wire.client.close()
        held.answer.set()
        await trio.testing.wait_all_tasks_blocked()
        await wire.ended.wait()
        assert wire.seconds == 0
    assert caplog.records == []


async def test_reset_cancels_the_handler(open_wire: Opener, autojump_clock: MockClock) -> None:
    held = Held()
    async with open_wire(held) as wire:
        await wire.client.send(POST)
        await trio.testing.wait_all_tasks_blocked()
        wire.connection.abandon()
        assert await wire.client.rest() == b""
        assert held.cancelled == 1


@pytest.mark.parametrize("sent", [b"", POST[:10], POST[:-1], POST], ids=["idle", "head", "content", "answer"])
async def test_cancelled_connection_closes_at_once_and_says_nothing(
    open_wire: Opener, autojump_clock: MockClock, sent: bytes
) -> None:
    client, server = trio.testing.memory_stream_pair()
    async with open_wire(Held() if sent == POST else echo, pair=lambda: (client, server)) as wire:
        await wire.client.send(sent)
        await trio.testing.wait_all_tasks_blocked()
    assert await wire.closed_after(0) == b""


# Drain ----------------------------------------------------------------------------------------------------


async def test_drain_ends_an_idle_connection_soon(open_wire: Opener, autojump_clock: MockClock) -> None:
    async with open_wire(echo) as wire:
        await wire.client.ask(POST)
        await trio.sleep(30)
        wire.drain()
        wire.begun = trio.current_time()
        assert await wire.closed_after(0.5) == b""


async def test_drain_finishes_the_request_in_hand_and_closes(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    held = Held()
    async with open_wire(held) as wire:
        await wire.client.send(POST)
        await trio.testing.wait_all_tasks_blocked()
        wire.drain()
        await trio.sleep(60)
        held.answer.set()
        answer = await wire.client.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert await wire.closed_after(60) == b""


@pytest.mark.parametrize("cut", [10, -3], ids=["head", "content"])
async def test_drain_lets_a_begun_request_come_in(
    open_wire: Opener, autojump_clock: MockClock, cut: int
) -> None:
    async with open_wire(echo) as wire:
        await wire.client.send(POST[:cut])
        await trio.testing.wait_all_tasks_blocked()
        wire.drain()
        await trio.sleep(5)
        answer = await wire.client.ask(POST[cut:])
        assert (answer.content, answer.closes) == (b"/ content", True)


async def test_request_on_its_way_when_the_drain_begins_is_answered(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    async with open_wire(echo) as wire:
        await wire.client.ask(POST)
        wire.drain()
        await trio.sleep(0.4)
        answer = await wire.client.ask(POST)
        assert (answer.status, answer.closes) == (200, True)


async def test_drain_closes_a_streamed_answer(open_wire: Opener, autojump_clock: MockClock) -> None:
    async def pieces(exchange: Exchange) -> None:
        await read_all(exchange)
        await exchange.start(Response(200, content=None))
        await exchange.end()

    async with open_wire(pieces) as wire:
        await wire.client.send(POST[:-1])
        await trio.testing.wait_all_tasks_blocked()
        wire.drain()
        answer: Answer = await wire.client.ask(POST[-1:])
        assert answer.closes
        assert await wire.closed_after(0) == b""


async def test_drain_answers_the_first_of_pipelined_requests_and_drops_the_rest(
    open_wire: Opener, autojump_clock: MockClock
) -> None:
    held = Held()
    async with open_wire(held) as wire:
        await wire.client.send(3 * POST)
        await trio.testing.wait_all_tasks_blocked()
        wire.drain()
        held.answer.set()
        assert (await wire.client.answer()).closes
        assert await wire.client.rest() == b""
        assert len(held.begun) == 1
