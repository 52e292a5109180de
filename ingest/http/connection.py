"""One socket, from accept to close: deadlines, 100-continue, keep-alive, drain.

It moves bytes between a stream and a parser and gives each request to a handler.  What a request means,
and what an answer says, it does not know.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
from collections.abc import Awaitable, Callable

import msgspec
import trio

from ingest.budget import Budget, Hold
from ingest.config import Timeouts
from ingest.errors import Draining, IngestError, UploadTooSlow
from ingest.faultlog import FaultLog
from ingest.http.arrivals import Arrivals, Parked
from ingest.http.messages import Content, Request, Response
from ingest.http.protocol import Event, HTTPProtocol, Signal
from ingest.http.streams import ByteStream, TCPStream
from ingest.parking import own_task
from ingest.turn import TURN_BYTES, Turn

log = logging.getLogger(__name__)

RECEIVE_BYTES = 65_536
"""The most bytes read at once; so much of later requests can wait in memory while an answer is owed."""
UNPAID_BYTES = 1_024
"""Of a head, of trailers and of what has come behind a request, so much is not on the budget."""
DISCARD_BYTES = 65_536
"""Unread content up to this is read and thrown away to keep the connection; above it, closing is cheaper."""
LINGER_SECONDS = 2.0
"""How long a closed connection goes on reading, so that the client gets the answer before a reset."""
DRAIN_IDLE_SECONDS = 0.5
"""How long a connection without a request stays open in a drain, for a request that is on its way."""

CONTINUE = Response(100)

_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Disconnected(Exception):
    """The client has broken the connection: there is nobody to answer."""


class Phase(enum.Enum):
    """What a connection waits for; each has its deadline."""

    IDLE = enum.auto()
    """The first byte of a request; on a new connection with TLS, the handshake before it too."""
    HEAD = enum.auto()
    """The rest of a request head."""
    CONTENT = enum.auto()
    """More content."""
    ANSWER = enum.auto()
    """The handler, which has deadlines of its own."""
    SEND = enum.auto()
    """The client, to take an answer."""
    LINGER = enum.auto()
    """The client's end of the stream, after the last answer."""


class Connection:
    """A connection and, while its request is handled, the exchange that a handler works with."""

    __slots__ = (
        "_abandoned",
        "_allowance",
        "_arrivals",
        "_budget",
        "_complete",
        "_draining",
        "_faults",
        "_handler",
        "_held",
        "_hurrying",
        "_now",
        "_owes_continue",
        "_place",
        "_protocol",
        "_reading",
        "_refuse_with",
        "_scope",
        "_stream",
        "_tcp",
        "_timeouts",
        "_turn",
        "_unread",
        "content_bytes",
        "deadline",
        "peer",
        "phase",
        "received_at",
        "request",
        "since",
    )

    def __init__(
        self,
        stream: ByteStream,
        peer: str,
        protocol: HTTPProtocol,
        handler: Handler,
        refuse: Callable[[IngestError], Response],
        timeouts: Timeouts,
        faults: FaultLog | None = None,
        budget: Budget | None = None,
        turn: Turn | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        """`peer` names the client for accounting; `refuse` answers what could not be read.

        Bugs are logged through `faults`, and whose content comes in small chunks has it read while it has
        the `turn`; both may be shared.  What was read and has to wait, of heads, trailers and later
        requests, is charged to `budget`, if there is one.  With `arrivals`, which a handler has to be made
        for, the connection is parked there while it waits for a head or for a report.
        """
        self.peer = peer
        self.request: Request
        """The request being handled."""
        self.content_bytes = 0
        """Bytes of its content that have been read."""
        self.received_at = -math.inf
        """On Trio's clock: when content was last waited for and came; what came with a head is not noted."""
        self.deadline = math.inf
        """On Trio's clock; whoever sweeps calls `expire` once it has passed."""
        self.phase = Phase.IDLE
        self.since = math.inf
        """When it began to wait for its client, on Trio's clock; of no meaning in `Phase.ANSWER`."""
        self._stream = stream
        self._protocol = protocol
        self._handler = handler
        self._refuse_with = refuse
        self._timeouts = timeouts
        self._budget = budget
        self._turn = turn or Turn()
        self._tcp = stream if isinstance(stream, TCPStream) else None  # TLS reads in a task of its own
        self._arrivals = arrivals
        self._now = trio.current_time if arrivals is None else arrivals.now
        self._place: Parked | None = None
        self._held: Hold | None = None  # of what was read and has to wait
        self._faults = faults
        self._scope = trio.CancelScope()
        self._reading: trio.CancelScope | None = None
        self._complete = True  # the current request's content has been read to its end
        self._owes_continue = False
        self._allowance = 0.0  # seconds that the content may still make us wait
        self._abandoned = False
        self._draining = False
        self._hurrying = False
        self._unread = False  # the client may be sending what nobody will read

    @property
    def socket(self) -> TCPStream | None:
        """The TCP stream, also the one below TLS, where there is one."""
        stream = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        return stream if isinstance(stream, TCPStream) else None

    @property
    def head_cost(self) -> int:
        """Bytes that the head of the request being handled takes of the budget; none where it is small."""
        size = self.request.head_bytes
        return size if size > UNPAID_BYTES else 0

    # Deadlines and drain, called by the sweep -------------------------------------------------------

    def expire(self) -> None:
        """The deadline has passed: end what is waited for."""
        if self.phase is Phase.CONTENT and self._reading is not None:
            self._reading.cancel()
        elif self.phase in (Phase.IDLE, Phase.HEAD) and self.socket is not None and self.socket.readable():
            pass  # it has come after all: cancelling now would hit the request that is about to be read
        else:
            self._scope.cancel()

    def abandon(self) -> None:
        """End at once: the client has reset the connection, or another has to have its place."""
        self._abandoned = True
        self._scope.cancel()

    def drain(self) -> None:
        """Finish the request in hand and end; without one, end soon."""
        self._draining = True
        if self.phase is Phase.IDLE:
            self.deadline = min(self.deadline, trio.current_time() + DRAIN_IDLE_SECONDS)

    def hurry(self) -> None:
        """A drain comes to its end: content that has not come yet is not waited for any more."""
        self._hurrying = True
        if self._reading is not None:
            self._reading.cancel()

    # The task -----------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Handle requests until either side ends it.  Closes the stream.

        Error handling: what the client does to the connection ends it quietly; a bug ends it with a log
        line and nothing else.  Cancelled: closes at once.
        """
        try:
            if self._arrivals is not None and self._tcp is not None:
                self._place = self._arrivals.join(self._tcp.fileno())
            while await self._serve_until_cancelled():
                self._scope = trio.CancelScope()
        except Disconnected:
            pass  # whoever waited for its request has been told
        except Exception as error:  # noqa: BLE001  # logged, with its traceback
            faults = self._faults or FaultLog(log)
            faults(logging.ERROR, "connection failed", {"peer": self.peer}, error=error)
        finally:
            self._release()
            if self._tcp is not None:
                if self._arrivals is not None and self._place is not None:
                    self._arrivals.leave(self._tcp.fileno())
                self._tcp.close()
            else:
                with trio.move_on_after(LINGER_SECONDS, shield=True), contextlib.suppress(*_GONE):
                    await self._stream.aclose()

    async def _serve_until_cancelled(self) -> bool:
        """Handle requests; whether to go on, for one that came while an idle connection was being ended."""
        with self._scope:
            requests = self._serve_requests()
            await (requests if self._place is None else self._place.run(requests))
        if not self._scope.cancelled_caught or (self._abandoned and self.phase is not Phase.SEND):
            return False
        if self.phase is Phase.IDLE and self.socket is not None and self.socket.readable():
            return True
        await self._after_deadline()
        return False

    async def _serve_requests(self) -> None:
        wait = self._timeouts.head_seconds
        while True:
            if self._draining:
                wait = min(wait, DRAIN_IDLE_SECONDS)
            self._wait_for_client(Phase.IDLE, wait)
            try:
                request = await self._receive_head()
            except IngestError as error:
                self._unread = True
                response = msgspec.structs.replace(self._refuse_with(error), closes=True)
                await self._transmit(self._protocol.send(response))
                break
            if request is None:
                return
            kept = await self._serve_one(request)
            del request  # what a connection keeps while it is idle, it keeps ten thousand times
            if not kept:
                break
            wait = self._timeouts.idle_seconds
        if self._unread or (self.socket is not None and self.socket.readable()):
            await own_task()
            await self._linger()

    async def _receive_head(self) -> Request | None:
        """The next request; None at the end of the stream."""
        if self._held is not None:
            self._release()
        if self._protocol.waiting_bytes:  # behind another request
            self._hold_waiting(self.peer)
            await own_task()
            await trio.lowlevel.checkpoint()
        else:
            self._protocol.receive_data(await self._read_parked())
        while True:
            event = self._protocol.next_event()
            if isinstance(event, Request):
                if self._held is not None:
                    self._release()
                return event
            if event is Signal.END_OF_STREAM:
                return None
            if self._protocol.waiting_bytes:
                if self.phase is Phase.IDLE:  # perhaps it came behind another request
                    self._wait_for_client(Phase.HEAD, self._timeouts.head_seconds)
                self._hold_waiting(self.peer)
            self._protocol.receive_data(await self._read_parked())

    async def _serve_one(self, request: Request) -> bool:
        """Handle one request; whether the connection can take another."""
        self.request = request
        self.content_bytes = 0
        self._complete = False
        self._owes_continue = request.expects_continue
        self._allowance = self._timeouts.body_grace_seconds
        self.phase, self.deadline = Phase.ANSWER, math.inf
        response = await self._handler(self)
        if response is not None:
            if self._draining or not (self._complete or await self._can_keep()):
                response = msgspec.structs.replace(response, closes=True)
            await self._transmit(self._protocol.send(response))
        if not self._complete and not (await self._can_keep() and await self._discard()):
            self._unread = True
            return False
        if not self._protocol.keeps_alive:
            return False
        self._protocol.start_next_cycle()
        del self.request
        return True

    async def _next_event(self) -> Event:
        """The next event, in our turn where it comes behind another of the same read.

        Sixty-four kilobytes can have ten thousand chunks, and fifty clients at once send that.
        """
        if not self._protocol.waiting_bytes:
            return self._protocol.next_event()
        await self._turn.take(TURN_BYTES)
        return self._protocol.next_event()

    async def _can_keep(self) -> bool:
        """Whether content that nobody has read leaves the connection usable: here, or short.

        A client that was owed 100 (Continue) may send its content or not, so nothing can follow it.
        """
        if not self._complete and not self._owes_continue and not self._unread:
            with contextlib.suppress(IngestError):
                self._hold_waiting(None)  # while it waits for its turn; without room it is not read
                while isinstance(event := await self._next_event(), Content):
                    pass
                self._complete = event is Signal.END_OF_MESSAGE
                length = self.request.content_length
                return self._complete or (length is not None and length <= DISCARD_BYTES)
        return self._complete

    async def _discard(self) -> bool:
        """Skip the rest of the content; False where it does not come to an end."""
        try:
            while await self.receive():
                pass
        except IngestError:
            return False  # the request has its answer; this only makes it the last one
        return True

    # The exchange: what a handler may do ---------------------------------------------------------------

    async def receive(self) -> bytes:
        """The next piece of the request's content, b"" at its end.

        Sends 100 (Continue) first where the client waits for it.  Raises `BadFraming` where the stream
        makes no sense, `UploadTooSlow` below the least rate, `Overloaded` where trailers, or what has
        come behind the content, have no room, `Draining` at the end of a drain, and `Disconnected`.
        """
        if self._complete:
            return b""
        if self._owes_continue:
            self._owes_continue = False
            await self._transmit(self._protocol.send_head(CONTINUE))
        # Not after each piece: others go on meanwhile, so what has come is paid for first.
        chunked = self.content_bytes > 0 and self.request.content_length is None
        event = await self._next_event() if chunked else self._protocol.next_event()
        while True:
            if isinstance(event, Content):
                # No more than the grace: who sent fast for a while must not hang for as long after it.
                earned = len(event.data) / self._timeouts.body_bytes_per_second
                self._allowance = min(self._allowance + earned, self._timeouts.body_grace_seconds)
                self.content_bytes += len(event.data)
                return event.data
            if event is Signal.END_OF_MESSAGE:
                self._complete = True
                self._hold_waiting(None)  # of later requests, while this one is answered
                return b""
            self._hold_waiting(None)  # of trailers; its content already counts as its client's
            self._protocol.receive_data(await self._receive_more())
            event = self._protocol.next_event()

    def take_content(self) -> bytes | None:
        """The whole content if it has come with its head, as most does; None: it is to be received."""
        if self._owes_continue:
            return None
        data = self._protocol.take_content()
        if data is not None:
            self._complete = True
            self.content_bytes += len(data)
            if self._protocol.waiting_bytes:
                self._hold_waiting(None)
        return data

    async def _receive_more(self) -> bytes | bytearray:
        await own_task()
        self._wait_for_client(Phase.CONTENT, self._allowance)
        with trio.CancelScope() as reading:
            self._reading = reading
            if self._hurrying:
                reading.cancel()
            data = await self._read_content()
        self._reading = None
        self.received_at = trio.current_time()
        self._allowance -= self.received_at - self.since
        self.phase, self.deadline = Phase.ANSWER, math.inf
        if reading.cancelled_caught:
            self._unread = True
            if self._hurrying:
                raise Draining("the service is ending, and the content was not complete")
            raise UploadTooSlow(
                f"the content came too slowly; at least {self._timeouts.body_bytes_per_second} bytes "
                f"a second are asked for after {self._timeouts.body_grace_seconds:g} seconds"
            )
        return data

    def _wait_for_client(self, phase: Phase, seconds: float) -> None:
        self.since = self._now()
        self.phase, self.deadline = phase, self.since + seconds

    def _hold_waiting(self, peer: str | None) -> None:
        """Charge what was read and has to wait; raises `Overloaded` where there is no room for it."""
        waiting = self._protocol.waiting_bytes
        if waiting <= UNPAID_BYTES:
            self._release()
        elif self._budget is not None:
            if self._held is None:
                self._held = self._budget.hold_nothing(peer)
            if waiting > self._held.size:
                self._held.grow(waiting - self._held.size)
            else:
                self._held.shrink(waiting)

    def _release(self) -> None:
        if self._held is not None:
            self._held.release()
            self._held = None

    async def _read(self) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(RECEIVE_BYTES)
        except _GONE as error:
            raise Disconnected from error

    async def _read_content(self) -> bytes | bytearray:
        """The same, so that content which is here already does not keep the loop: it can go on for ever.

        Others go on before the read and not after it, where being cancelled would lose what was read.
        """
        if self._tcp is None:
            await trio.lowlevel.checkpoint()
            return await self._read()
        try:
            while True:
                await self._tcp.wait_readable()
                async with self._turn.reading:
                    data = self._tcp.receive_now(RECEIVE_BYTES)
                if data is not None:
                    return data
        except _GONE as error:
            raise Disconnected from error

    async def _read_parked(self) -> bytes | bytearray:
        """The same, from where the connection is parked."""
        if self._place is None or self._tcp is None:
            return await self._read()
        try:
            while True:
                if self._tcp.emptied:
                    await self._place.readable()
                data = self._tcp.receive_now(RECEIVE_BYTES)
                if data is not None:
                    return data
        except OSError as error:
            raise Disconnected from error

    async def start(self, response: Response) -> None:
        """Begin an answer whose content follows in pieces: `send`, then `end`."""
        if self._draining and not response.closes:
            response = msgspec.structs.replace(response, closes=True)
        await self._transmit(self._protocol.send_head(response))

    async def send(self, data: bytes) -> None:
        """Send a piece of the answer; waits up to `timeouts.send_seconds` for the client to take it."""
        data = self._protocol.send_content(data)  # what was given is not kept beside it
        await self._transmit(data)

    async def end(self) -> None:
        """End an answer begun with `start`."""
        await self._transmit(self._protocol.end())

    async def _transmit(self, data: bytes) -> None:
        if not data:
            return
        rest: bytes | memoryview = data
        try:
            if self._place is not None and self._tcp is not None:
                sent = self._tcp.send_now(data)
                if sent == len(data):
                    return
                rest = memoryview(data)[sent:]
                await own_task()
            before = self.phase, self.deadline
            self._wait_for_client(Phase.SEND, self._timeouts.send_seconds)
            await self._stream.send_all(rest)
        except _GONE as error:
            raise Disconnected from error
        self.phase, self.deadline = before

    # The end --------------------------------------------------------------------------------------------

    async def _after_deadline(self) -> None:
        """Say what can be said after the sweep has ended the wait."""
        if self.phase is Phase.HEAD:
            seconds = self._timeouts.head_seconds
            error = UploadTooSlow(f"the request head was not complete after {seconds:g} seconds")
            with trio.move_on_after(LINGER_SECONDS) as self._scope:
                await self._transmit(self._protocol.send(self._refuse_with(error)))
                await self._linger()
        elif self.phase is Phase.SEND and self.socket is not None:
            self.socket.reset()

    async def _linger(self) -> None:
        """Close our direction and read on: a close with unread input would reset the answer away."""
        self._wait_for_client(Phase.LINGER, LINGER_SECONDS)
        self._release()
        del self._protocol  # and what it has read; nothing follows that it would be asked for
        if self.socket is not None:
            await self.socket.send_eof()
            with trio.move_on_after(LINGER_SECONDS), contextlib.suppress(*_GONE):
                while await self.socket.receive_some(RECEIVE_BYTES):
                    await trio.lowlevel.checkpoint()


Handler = Callable[[Connection], Awaitable[Response | None]]
"""Handles one request: returns the answer, or None after it has sent one with `start`, `send` and `end`."""
