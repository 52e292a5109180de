"""Accepting on real sockets: many connections, the cap, no descriptors left, resets, the backlog, TLS."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Set
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ingest.errors import ConfigError, IngestError
from ingest.http.arrivals import open_arrivals
from ingest.http.at_once import Answer, ShortWay
from ingest.http.connection import Connection
from ingest.http.engines import ENGINES
from ingest.http.exchange import Exchange, Handler, Phase
from ingest.http.listeners import WITHOUT_REQUEST, Listeners, open_sockets, open_tls
from ingest.http.messages import Request, Response
from ingest.http.protocol import HTTPProtocol
from ingest.http.streams import ByteStream, TCPStream
from ingest.parking import own_task
from ingest.sections import HTTP, Timeouts
from ingest.turn import Turn
from tests.client import Client, request

LOCALHOST = "127.0.0.1"
CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""A self-signed certificate of localhost and its key; made with openssl, good from 2024 to 2123."""
HANGS = 20.0

GET = request("GET /")
OTHER, ANOTHER = "127.0.0.2", "127.0.0.3"
PATIENT = Timeouts(head_seconds=900, idle_seconds=900, send_seconds=900)

MakeProtocol = Callable[[], HTTPProtocol]


def refuse(error: IngestError) -> Response:
    return Response(error.status, closes=error.closes)


async def echo(exchange: Exchange) -> Response:
    return Response(200, content=exchange.request.target)


class Held:
    """A handler that answers when told."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.answer = trio.Event()
        self.cancelled = trio.Event()

    async def __call__(self, exchange: Exchange) -> Response:
        self.begun.set()
        try:
            await self.answer.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        return Response(200, content=exchange.request.target)


class Place:
    """Listening sockets, and what accepts from them once `accept` is called."""

    def __init__(self, listeners: Listeners, nursery: trio.Nursery, trusted: ssl.SSLContext | None) -> None:
        self.listeners = listeners
        self.nursery = nursery
        self._trusted = trusted
        self.port = listeners.sockets[0].getsockname()[1]

    def accept(self) -> None:
        self.nursery.start_soon(self.listeners.accept, self.nursery)

    @asynccontextmanager
    async def client(self, address: str | None = None) -> AsyncIterator[Client]:
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
        stream = await trio.open_tcp_stream(LOCALHOST, self.port, local_address=address)
        if self._trusted is not None:
            stream = trio.SSLStream(stream, self._trusted, server_hostname="localhost", https_compatible=True)
        async with stream:
            yield Client(stream)


@asynccontextmanager
async def open_place(
    make_protocol: MakeProtocol,
    handler: Handler,
    *,
    most: int = 1000,
    sockets: list[socket.socket] | None = None,
    timeouts: Timeouts = Timeouts(),  # noqa: B008  # frozen
    tls: bool = False,
    evicts: Set[Phase] = WITHOUT_REQUEST,
    short_way: ShortWay[Any] | None = None,
) -> AsyncIterator[Place]:
    # With one engine connections are parked, with the other they wait in their own tasks.
    arrivals = open_arrivals(Turn()) if make_protocol is ENGINES["builtin"] else None

    async def handle(exchange: Exchange) -> Response | None:
        await own_task()  # these handlers wait for what they want
        return await handler(exchange)

    def connect(stream: ByteStream, peer: str) -> Connection:
        return Connection(
            stream, peer, make_protocol(), handle, refuse, timeouts, arrivals=arrivals, short_way=short_way
        )

    sockets = sockets or open_sockets(LOCALHOST, 0)
    served = open_tls(HTTP(tls_certificate_file=str(CERTIFICATE), tls_key_file=str(CERTIFICATE)))
    trusted = ssl.create_default_context(cafile=CERTIFICATE)
    with contextlib.ExitStack() as listening:
        for each in sockets:
            listening.callback(each.close)
        if arrivals is not None:
            listening.callback(arrivals.close)
        listeners = Listeners(sockets, connect, tls=served if tls else None, most=most, evicts=evicts)
        with trio.fail_after(HANGS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listeners.sweep)
                if arrivals is not None:
                    nursery.start_soon(arrivals.watch)
                yield Place(listeners, nursery, trusted if tls else None)
                nursery.cancel_scope.cancel()


async def test_many_connections_at_once_are_all_served(make_protocol: MakeProtocol) -> None:
    answered = 0

    async def ask(place: Place) -> None:
        nonlocal answered
        async with place.client() as client:
            assert (await client.ask(GET)).status == 200
            answered += 1

    async with open_place(make_protocol, echo) as place:
        place.accept()
        async with trio.open_nursery() as clients:
            for _ in range(300):
                clients.start_soon(ask, place)
        assert answered == 300
        await place.listeners.ended()


async def test_connection_beyond_the_cap_waits_in_the_backlog_and_is_served_later(
    make_protocol: MakeProtocol,
) -> None:
    most = 3
    open_now = peak = 0
    full = trio.Event()

    async def count(exchange: Exchange) -> Response:
        nonlocal open_now, peak
        open_now += 1
        peak = max(peak, open_now)
        if open_now == most:
            full.set()
        await full.wait()
        await trio.lowlevel.checkpoint()
        open_now -= 1
        return Response(204, closes=True)

    async def ask(place: Place) -> None:
        async with place.client() as client:
            assert (await client.ask(GET)).status == 204

    async with open_place(make_protocol, count, most=most) as place:
        place.accept()
        async with trio.open_nursery() as clients:
            for _ in range(4 * most):
                clients.start_soon(ask, place)
        assert peak == most


async def test_full_loop_sleeps_until_a_connection_ends(make_protocol: MakeProtocol) -> None:
    held = Held()
    async with open_place(make_protocol, held, most=1) as place:
        place.accept()
        async with place.client() as first, place.client() as second:
            await first.send(GET)
            await held.begun.wait()
            await second.send(GET)
            await trio.testing.wait_all_tasks_blocked()  # a loop that spins never gets here
            assert len(place.listeners.connections) == 1
            held.answer.set()
            assert (await first.answer()).status == 200
            await first.close()
            assert (await second.answer()).status == 200


@pytest.mark.parametrize("waits_for", ["a head", "a request", "its answer to be taken", "the client's end"])
async def test_new_connection_ends_the_one_that_waits_for_its_client_where_that_is_wanted(
    make_protocol: MakeProtocol, waits_for: str
) -> None:
    held = Held()

    async def handle(exchange: Exchange) -> Response:
        if exchange.request.target == b"/held":
            return await held(exchange)
        if exchange.request.target == b"/large":
            return Response(200, content=50_000_000 * b"x")
        return Response(200)

    every = set(Phase) - {Phase.ANSWER}
    async with open_place(make_protocol, handle, most=2, timeouts=PATIENT, evicts=every) as place:
        place.accept()
        async with place.client() as busy, place.client() as waiting:
            await busy.send(request("GET /held"))
            await held.begun.wait()
            if waits_for == "a head":
                await waiting.send(b"G")
            elif waits_for == "a request":
                assert (await waiting.ask(GET)).status == 200
            elif waits_for == "its answer to be taken":
                await waiting.send(request("GET /large"))
            else:
                await waiting.send(b"nonsense\r\n\r\n")
            async with place.client() as new:
                assert (await new.ask(GET)).status == 200
                held.answer.set()
                assert (await busy.answer()).status == 200


@pytest.mark.parametrize("sent", [b"", b"G", GET], ids=["nothing", "a part of a head", "a request before"])
async def test_client_with_every_connection_keeps_nobody_out(
    make_protocol: MakeProtocol, sent: bytes
) -> None:
    async with open_place(make_protocol, echo, most=3, timeouts=PATIENT) as place, AsyncExitStack() as opened:
        place.accept()
        for _ in range(20):  # most of which wait in the kernel's queue themselves
            client = await opened.enter_async_context(place.client(OTHER))
            await client.send(sent)
        async with place.client() as new:
            assert (await new.ask(GET)).status == 200
        assert len(place.listeners.connections) <= 3


async def test_a_full_place_ends_what_waited_longest_of_who_has_most_and_nothing_else(
    make_protocol: MakeProtocol,
) -> None:
    held = Held()

    async def handle(exchange: Exchange) -> Response:
        return await (held if exchange.request.target == b"/held" else echo)(exchange)

    async with (
        open_place(make_protocol, handle, most=5, timeouts=PATIENT) as place,
        AsyncExitStack() as opened,
    ):

        async def client(address: str, asked: bytes) -> Client:
            client = await opened.enter_async_context(place.client(address))
            await client.send(asked)
            if asked is GET:
                assert (await client.answer()).status == 200
            return client

        place.accept()
        few = await client(ANOTHER, GET)
        busy = await client(OTHER, request("GET /held"))
        sending = await client(OTHER, request("POST /held", "Content-Length: 5"))
        longest, later = await client(OTHER, GET), await client(OTHER, GET)
        async with place.client() as new:
            assert (await new.ask(GET)).status == 200
            assert await longest.rest() == b""
            held.answer.set()
            for client_left in (busy, few, later):
                if client_left is not busy:
                    await client_left.send(GET)
                assert (await client_left.answer()).status == 200
            await sending.send(b"hello")
            assert (await sending.answer()).status == 200


async def test_handler_that_raises_does_not_end_the_loop(
    make_protocol: MakeProtocol, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(exchange: Exchange) -> Response:
        if exchange.request.target == b"/bug":
            raise KeyError("a bug")
        return Response(200)

    async with open_place(make_protocol, fail) as place:
        place.accept()
        for _ in range(3):
            async with place.client() as client:
                await client.send(request("GET /bug"))
                assert await client.rest() == b""
            async with place.client() as client:
                assert (await client.ask(GET)).status == 200
    assert [line.message for line in caplog.records] == 3 * ["connection failed"]


# No descriptors left -------------------------------------------------------------------------------------


class Exhausted(socket.socket):
    """A listening socket that cannot accept for a while."""

    failures = 0
    error = errno.EMFILE
    accepted: trio.Event

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(self.error, os.strerror(self.error))
        accepted = super().accept()
        self.accepted.set()
        return accepted


@pytest.fixture
def exhausted() -> Iterator[Exhausted]:
    with Exhausted() as listening:
        listening.accepted = trio.Event()
        listening.bind((LOCALHOST, 0))
        listening.listen()
        listening.setblocking(False)
        yield listening


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_accepting_without_resources_pauses_and_logs_once_a_second(
    make_protocol: MakeProtocol,
    autojump_clock: MockClock,
    exhausted: Exhausted,
    error: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exhausted.failures, exhausted.error = 40, error
    async with open_place(make_protocol, echo, sockets=[exhausted]) as place, place.client() as client:
        began = trio.current_time()
        place.accept()
        await client.send(GET)
        await exhausted.accepted.wait()  # the clock jumps from attempt to attempt
        seconds = trio.current_time() - began
        assert 9 <= seconds <= 12
    assert {line.message for line in caplog.records} == {"accept failed"}
    assert seconds - 2 <= len(caplog.records) <= seconds + 1


async def test_accepting_goes_on_when_descriptors_are_back(
    make_protocol: MakeProtocol, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with open_place(make_protocol, echo) as place, place.client() as client:
        await client.send(GET)
        taken = [os.dup(0) for _ in range(20)]  # no gap is left below the highest
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
            place.accept()
            await trio.testing.wait_all_tasks_blocked()
            assert len(caplog.records) == 1
            assert not place.listeners.connections
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)
        assert (await client.answer()).status == 200
    assert [line.message for line in caplog.records] == ["accept failed"]


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
async def test_connection_that_its_client_took_back_is_passed_over(
    make_protocol: MakeProtocol, exhausted: Exhausted, error: int, caplog: pytest.LogCaptureFixture
) -> None:
    exhausted.failures, exhausted.error = 3, error
    async with open_place(make_protocol, echo, sockets=[exhausted]) as place, place.client() as client:
        place.accept()
        assert (await client.ask(GET)).status == 200
    assert caplog.records == []


# Clients that go away, or take nothing -------------------------------------------------------------------


def reset(client: Client) -> None:
    """Close so that the server gets a reset."""
    stream = client.stream
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def test_connection_that_was_reset_before_it_was_accepted_is_not_begun(
    make_protocol: MakeProtocol,
) -> None:
    begun = 0

    def counted() -> HTTPProtocol:
        nonlocal begun
        begun += 1
        return make_protocol()

    async with open_place(counted, echo) as place:
        for _ in range(100):
            async with place.client() as gone:
                await gone.send(GET)
                reset(gone)
        async with place.client() as client:
            place.accept()
            assert (await client.ask(GET)).status == 200
    assert begun == 1


async def test_place_of_a_connection_that_was_reset_is_given_to_the_next_at_once(
    make_protocol: MakeProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.http.listeners.EVICTED_SECONDS", 60)  # or else in a while
    held = Held()

    async def hold_or_echo(exchange: Exchange) -> Response:
        return await (echo if exchange.request.target == b"/free" else held)(exchange)

    async with open_place(make_protocol, hold_or_echo, most=2) as place, place.client() as holder:
        place.accept()
        await holder.send(GET)
        await held.begun.wait()
        for _ in range(20):  # whether the place is free when it is looked for is a matter of luck
            with socket.create_connection((LOCALHOST, place.port)) as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            async with open_raw(place) as (_, client):
                assert (await client.ask(request("GET /free", "Connection: close"))).content == b"/free"
        held.answer.set()
        assert (await holder.answer()).status == 200


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_reset_while_the_answer_is_owed_cancels_the_request(
    make_protocol: MakeProtocol, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    async with open_place(make_protocol, held, tls=tls) as place, place.client() as client:
        place.accept()
        await client.send(GET)
        await held.begun.wait()
        reset(client)
        await held.cancelled.wait()
        await place.listeners.ended()
    assert caplog.records == []


async def test_client_that_only_shuts_its_side_down_is_not_taken_for_gone(
    make_protocol: MakeProtocol, autojump_clock: MockClock
) -> None:
    held = Held()
    async with open_place(make_protocol, held) as place, place.client() as client:
        place.accept()
        await client.send(GET)
        assert isinstance(client.stream, trio.SocketStream)
        await client.stream.send_eof()
        await held.begun.wait()
        await trio.sleep(2)  # some sweeps, as the clock jumps
        held.answer.set()
        assert (await client.answer()).status == 200
        assert not held.cancelled.is_set()


async def test_client_that_takes_nothing_is_reset(make_protocol: MakeProtocol) -> None:
    async def much(exchange: Exchange) -> Response:
        return Response(200, content=bytes(32 << 20))

    timeouts = Timeouts(send_seconds=0.1)
    async with open_place(make_protocol, much, timeouts=timeouts) as place, place.client() as client:
        place.accept()
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        await place.listeners.ended()
        with pytest.raises(trio.BrokenResourceError):
            await client.rest()


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_refusal_reaches_a_client_that_is_still_sending(make_protocol: MakeProtocol, tls: bool) -> None:
    async def ignore(exchange: Exchange) -> Response:
        return Response(403)

    async with open_place(make_protocol, ignore, tls=tls) as place, place.client() as client:
        place.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, request("POST /", content=bytes(8 << 20)))
            answer = await client.answer()
            assert (answer.status, answer.closes) == (403, True)
        if not tls:  # where an end of the stream is not to be told from an attack
            assert await client.rest() == b""


async def test_request_that_has_come_as_its_deadline_passes_is_answered(make_protocol: MakeProtocol) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    connection = Connection(TCPStream(theirs), "peer", make_protocol(), echo, refuse, Timeouts())
    with ours, trio.fail_after(HANGS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.serve)
            for part in (GET[:10], GET[10:]):
                await trio.testing.wait_all_tasks_blocked()
                ours.sendall(part)
                connection.expire()  # before the connection's task had its turn
            await trio.testing.wait_all_tasks_blocked()
            assert ours.recv(1000).startswith(b"HTTP/1.1 200 ")
            nursery.cancel_scope.cancel()


async def test_request_that_comes_while_an_idle_connection_is_ended_is_answered(
    make_protocol: MakeProtocol,
) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    connection = Connection(TCPStream(theirs), "peer", make_protocol(), echo, refuse, Timeouts())
    with ours, trio.fail_after(HANGS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.serve)
            await trio.testing.wait_all_tasks_blocked()
            connection.expire()
            ours.sendall(GET)  # the connection's task has not had its turn
            await trio.testing.wait_all_tasks_blocked()
            assert ours.recv(1000).startswith(b"HTTP/1.1 200 ")
            nursery.cancel_scope.cancel()


# Stopping ------------------------------------------------------------------------------------------------


async def test_backlog_is_served_when_listening_ends(make_protocol: MakeProtocol) -> None:
    async with open_place(make_protocol, echo) as place, contextlib.AsyncExitStack() as clients:
        waiting = [await clients.enter_async_context(place.client()) for _ in range(20)]
        for client in waiting:
            await client.send(GET)
        place.listeners.drain()
        place.listeners.close(place.nursery)
        for client in waiting:
            answer = await client.answer()
            assert (answer.status, answer.closes) == (200, True)
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(LOCALHOST, place.port)
        await place.listeners.ended()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can let a listening socket take no more")
async def test_no_connection_begins_between_the_last_accept_and_the_close(
    make_protocol: MakeProtocol,
) -> None:
    async with open_place(make_protocol, echo) as place:
        async with place.client() as client:
            await client.send(GET)
            await place.listeners.let_none_begin()
            with socket.socket() as late:
                late.setblocking(False)
                late.connect_ex((LOCALHOST, place.port))
                poll = select.poll()
                poll.register(late, select.POLLOUT)
                assert not poll.poll(0), "it connected, and would have been reset"
            place.listeners.drain()
            place.listeners.close(place.nursery)
            assert (await client.answer()).status == 200
        await place.listeners.ended()


async def test_drain_ends_with_an_answer_and_not_a_reset_where_more_was_pipelined(
    make_protocol: MakeProtocol,
) -> None:
    held = Held()
    async with open_place(make_protocol, held) as place, place.client() as client:
        place.accept()
        await client.send(3_000 * GET)  # more than one read, and less than the kernel holds
        await held.begun.wait()
        place.listeners.drain()
        held.answer.set()
        assert (await client.answer()).closes
        assert await client.rest() == b""


class Large:
    """A short way whose answers do not fit into what the kernel holds."""

    def begin(self, request: Request, content: bytes, now: float) -> Answer:
        return Answer(Response(200, content=b"x" * 20_000_000), b"id")

    def end(self, begun: Any) -> Answer:
        raise AssertionError("nothing was waited for")

    def give_up(self, begun: Any) -> None:
        raise AssertionError("nothing was waited for")


async def test_drain_that_begins_while_an_answer_is_sent_on_the_short_way_ends_the_connection() -> None:
    place_with = open_place(ENGINES["builtin"], echo, short_way=Large())
    async with place_with as place, place.client() as client:
        place.accept()
        await client.ask(GET)  # from now on its head is known
        await client.send(GET)
        status, fields = await client.head()
        assert status == 200
        place.listeners.drain()
        assert len(await client.content(fields)) == 20_000_000
        assert await client.rest() == b""
        await place.listeners.ended()


class Later:
    """The same, each answer once `wake` has been called; it is its own `Begun` too."""

    def __init__(self, size: int = 20_000_000) -> None:
        self.size = size
        self.wake: Callable[[], None] | None = None
        self.begun = trio.Event()

    def begin(self, request: Request, content: bytes, now: float) -> Later:
        return self

    def then(self, wake: Callable[[], None]) -> bool:
        self.wake = wake
        self.begun.set()
        return True

    def end(self, begun: Later) -> Answer:
        return Answer(Response(200, content=b"x" * self.size), b"id")

    def forget(self) -> None:
        raise AssertionError("somebody waits")

    def give_up(self, begun: Later) -> None:
        raise AssertionError("somebody waits")

    async def answer(self) -> None:
        await self.begun.wait()
        self.begun = trio.Event()
        assert self.wake is not None
        self.wake()


async def test_what_arrives_while_an_answer_is_owed_is_served_behind_it() -> None:
    way, asked = Later(), request("GET /owed")  # a head that no other test has made known
    async with open_place(ENGINES["builtin"], echo, short_way=way) as place, place.client() as client:
        place.accept()
        await client.ask(asked)  # from now on its head is known
        await client.send(asked)
        await way.begun.wait()
        await client.send(asked)
        for _ in range(5):  # passes of the loop, after which it has arrived
            await trio.lowlevel.checkpoint()
        for _ in range(2):
            await way.answer()
            assert len((await client.answer()).content) == 20_000_000


@contextlib.asynccontextmanager
async def open_raw(place: Place) -> AsyncIterator[tuple[socket.socket, Client]]:
    """A client, and its socket, which sends before anybody else has a turn."""
    raw = socket.create_connection((LOCALHOST, place.port))
    raw.setblocking(False)
    async with trio.SocketStream(trio.socket.from_stdlib_socket(raw)) as stream:
        yield raw, Client(stream)


async def test_who_ends_its_side_behind_a_request_is_answered_and_let_go() -> None:
    way, asked = Later(10), request("GET /ended")
    async with open_place(ENGINES["builtin"], echo, short_way=way) as place:
        place.accept()
        async with open_raw(place) as (raw, client):
            await client.ask(asked)
            raw.send(asked)
            raw.shutdown(socket.SHUT_WR)  # one event for both
            await way.answer()
            assert (await client.answer()).status == 200
            assert await client.rest() == b""
            await place.listeners.ended()


class Last(Later):
    """The same with answers that end the connection."""

    def end(self, begun: Later) -> Answer:
        return Answer(Response(200, content=b"last", closes=True), b"id")


async def test_what_comes_behind_the_last_answer_takes_nothing_from_it() -> None:
    way, asked = Last(), request("GET /last")
    async with open_place(ENGINES["builtin"], echo, short_way=way) as place:
        place.accept()
        async with open_raw(place) as (raw, client):
            await client.ask(asked)
            raw.send(asked)
            await way.answer()
            raw.send(b"\r\n")  # before the connection's task has had a turn, in which it closes
            answer = await client.answer()
            assert (answer.content, answer.closes) == (b"last", True)
            await place.listeners.ended()


class Known(Later):
    """The same with answers that are there at once."""

    def then(self, wake: Callable[[], None]) -> bool:
        return False

    def end(self, begun: Later) -> Answer:
        return Answer(Response(200, content=b"known"), b"id")


async def test_an_answer_that_is_there_at_once_is_not_waited_for() -> None:
    async with open_place(ENGINES["builtin"], echo, short_way=Known()) as place, place.client() as client:
        place.accept()
        await client.ask(GET)
        for _ in range(3):
            assert (await client.ask(GET)).content == b"known"


async def test_who_ends_its_side_behind_a_request_that_is_answered_at_once_is_let_go() -> None:
    asked = request("GET /ended-too")
    async with open_place(ENGINES["builtin"], echo, short_way=Known()) as place:
        place.accept()
        async with open_raw(place) as (raw, client):
            await client.ask(asked)
            raw.send(asked)
            raw.shutdown(socket.SHUT_WR)
            assert (await client.answer()).content == b"known"
            assert await client.rest() == b""
            await place.listeners.ended()


@pytest.mark.parametrize("known", [True, False], ids=["short way", "long way"])
async def test_request_that_comes_while_a_parked_connection_is_ended_is_answered(known: bool) -> None:
    way = Later(10)
    async with open_place(ENGINES["builtin"], echo, short_way=way) as place:
        place.accept()
        for number in range(20):
            asked = request(f"GET /late-{known}-{number}")
            async with open_raw(place) as (raw, client):
                if known:
                    await client.ask(asked)
                while [each.phase for each in place.listeners.connections] != [Phase.IDLE]:
                    await trio.lowlevel.checkpoint()
                for _ in range(5):  # passes of the loop, after which nothing else is under way
                    await trio.lowlevel.checkpoint()
                (connection,) = place.listeners.connections
                connection.expire()
                raw.send(asked)  # its task has not had its turn
                if known:
                    await way.answer()
                assert (await client.answer()).status == 200
            del connection
            await place.listeners.ended()


async def test_more_of_a_head_behind_urgent_data_is_read() -> None:
    async with open_place(ENGINES["builtin"], echo) as place:
        place.accept()
        async with open_raw(place) as (raw, client):
            await client.ask(GET)
            (connection,) = place.listeners.connections
            raw.send(GET[:8])
            raw.send(b"!", socket.MSG_OOB)
            raw.send(GET[8:])
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            connection.expire()  # as the sweep does in the end
            assert (await client.answer()).status == 200


async def test_a_place_that_was_left_is_taken_by_who_comes_next(make_protocol: MakeProtocol) -> None:
    async with open_place(make_protocol, echo, most=2) as place:
        place.accept()
        async with place.client() as client, place.client() as other:
            await client.ask(GET)
            await other.ask(GET)
        await place.listeners.ended()
        async with place.client() as client:
            assert (await client.ask(GET)).status == 200


async def test_clients_that_leave_while_many_are_ended_end_nothing_else(
    make_protocol: MakeProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = Timeouts(head_seconds=0.5, idle_seconds=0.5)
    async with open_place(make_protocol, echo, timeouts=timeouts) as place:
        place.accept()
        raws = [socket.create_connection((LOCALHOST, place.port)) for _ in range(200)]
        expire = Connection.expire

        def all_leave_at_the_first(connection: Connection) -> None:
            while raws:
                raws.pop().close()
            expire(connection)

        monkeypatch.setattr(Connection, "expire", all_leave_at_the_first)
        while raws and len(place.listeners.connections) < 200:  # a slow machine ends the first ones before
            await trio.lowlevel.checkpoint()
        await place.listeners.ended()
        async with place.client() as client:
            assert (await client.ask(GET)).status == 200


# Addresses -----------------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_ipv6_is_served(make_protocol: MakeProtocol) -> None:
    peers = []

    def connect(stream: ByteStream, peer: str) -> Connection:
        peers.append(peer)
        return Connection(stream, peer, make_protocol(), echo, refuse, Timeouts())

    (listening,) = open_sockets("::1", 0)
    with listening, trio.fail_after(HANGS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Listeners([listening], connect, most=1).accept, nursery)
            async with await trio.open_tcp_stream("::1", listening.getsockname()[1]) as stream:
                assert (await Client(stream).ask(GET)).status == 200
            nursery.cancel_scope.cancel()
    assert peers == ["::1"]


def test_port_in_use_is_a_wrong_configuration() -> None:
    (listening,) = open_sockets(LOCALHOST, 0)
    with listening:
        port = listening.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"
        ):
            open_sockets(LOCALHOST, port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a..b", "x" * 300])
def test_address_that_is_not_ours_is_a_wrong_configuration(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        open_sockets(host, 0)


# TLS -----------------------------------------------------------------------------------------------------


async def test_tls_is_served(make_protocol: MakeProtocol) -> None:
    async with open_place(make_protocol, echo, tls=True) as place, place.client() as client:
        place.accept()
        for target in ("/1", "/2"):
            assert (await client.ask(request(f"GET {target}"))).content == target.encode()


@pytest.mark.parametrize("sent", [GET, b"\x16\x03\x01", bytes(1000)], ids=["http", "cut short", "noise"])
async def test_client_that_does_not_speak_tls_is_no_event(
    make_protocol: MakeProtocol, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_place(make_protocol, echo, tls=True) as place:
        place.accept()
        async with await trio.open_tcp_stream(LOCALHOST, place.port) as stream:
            await stream.send_all(sent)
            await stream.send_eof()
            with contextlib.suppress(trio.BrokenResourceError):
                assert b"HTTP" not in await Client(stream).rest()
        await place.listeners.ended()
        async with place.client() as client:
            assert (await client.ask(GET)).status == 200
    assert caplog.records == []


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
async def test_tls_handshake_has_the_deadline_of_the_first_byte(
    make_protocol: MakeProtocol, autojump_clock: MockClock, sent: bytes
) -> None:
    context = open_tls(HTTP(tls_certificate_file=str(CERTIFICATE), tls_key_file=str(CERTIFICATE)))
    assert context is not None
    client, server = trio.testing.memory_stream_pair()
    stream = trio.SSLStream(server, context, server_side=True, https_compatible=True)
    connection = Connection(stream, "peer", make_protocol(), echo, refuse, Timeouts())

    def connect(stream: ByteStream, peer: str) -> Connection:
        raise AssertionError("nothing is accepted here")

    listeners = Listeners([], connect, most=1)
    listeners.connections.add(connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listeners.sweep)
        nursery.start_soon(connection.serve)
        await client.send_all(sent)
        began = trio.current_time()
        await Client(client).rest()
        assert Timeouts().head_seconds <= trio.current_time() - began <= Timeouts().head_seconds + 1
        nursery.cancel_scope.cancel()


def test_certificate_that_cannot_be_used_is_a_wrong_configuration(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for file in (nonsense, tmp_path / "none.pem"):
        with pytest.raises(ConfigError, match=file.name):
            open_tls(HTTP(tls_certificate_file=str(file), tls_key_file=str(file)))
