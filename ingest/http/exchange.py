"""What a handler works with: one request's content in, its answer out; the client's pace on both.

How it is read from the stream and written to it is here too.  Which request follows which, deadlines and
the end of the connection are `ingest.http.connection`'s.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable

import msgspec
import trio

from ingest.budget import Budget, Hold
from ingest.errors import Draining, UploadTooSlow
from ingest.http.arrivals import Parked
from ingest.http.messages import Content, Request, Response
from ingest.http.protocol import Event, HTTPProtocol, Signal
from ingest.http.streams import ByteStream, TCPStream
from ingest.parking import own_task
from ingest.sections import Timeouts
from ingest.turn import TURN_BYTES, Turn

RECEIVE_BYTES = 65_536
"""The most bytes read at once; so much of later requests can wait in memory while an answer is owed."""
UNPAID_BYTES = 1_024
"""Of a head, of trailers and of what has come behind a request, so much is not on the budget."""
CONTINUE = Response(100)

GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


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


class Exchange:
    """The request being handled, and what a handler may do with it.

    `ingest.http.connection.Connection` makes one object serve for all requests of a connection.
    """

    __slots__ = (
        "_allowance",
        "_budget",
        "_complete",
        "_draining",
        "_held",
        "_hurrying",
        "_idles",
        "_kept",
        "_now",
        "_owes_continue",
        "_place",
        "_protocol",
        "_reading",
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
        timeouts: Timeouts,
        budget: Budget | None,
        turn: Turn,
        now: Callable[[], float],
    ) -> None:
        """`now` is Trio's clock; the rest is as for a connection."""
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
        self._timeouts = timeouts
        self._budget = budget
        self._turn = turn
        self._tcp = stream if isinstance(stream, TCPStream) else None  # TLS reads in a task of its own
        self._now = now
        self._place: Parked | None = None
        self._held: Hold | None = None  # of what was read and has to wait
        self._kept: Hold | None = None  # until the answer is sent
        self._reading: trio.CancelScope | None = None
        self._complete = True  # the current request's content has been read to its end
        self._owes_continue = False
        self._allowance = 0.0  # seconds that the content may still make us wait
        self._draining = False
        self._hurrying = False
        self._idles = False  # the client may pause before what comes next
        self._unread = False  # the client may be sending what nobody will read

    @property
    def head_cost(self) -> int:
        """Bytes that the head of the request being handled takes of the budget; none where it is small."""
        size = self.request.head_bytes
        return size if size > UNPAID_BYTES else 0

    async def receive(
        self, most: int = RECEIVE_BYTES, begin: Callable[[], Awaitable[None]] | None = None
    ) -> bytes:
        """The next piece of the request's content, b"" at its end; `most` bytes are read for it at once.

        `begin` is called before content of unknown length is waited for: its client may wait for the answer
        to begin before it sends any.

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
                grace = self._timeouts.body_grace_seconds
                # What begins after a pause has the grace that content has, not what the pause has left.
                self._allowance = grace if self._idles else min(self._allowance + earned, grace)
                self._idles = False
                self.content_bytes += len(event.data)
                return event.data
            if event is Signal.END_OF_MESSAGE:
                self._complete = True
                self._hold_waiting(None)  # of later requests, while this one is answered
                return b""
            self._hold_waiting(None)  # of trailers; its content already counts as its client's
            gives_up = self._hurrying or (self._idles and self._draining)
            if begin is not None and self.request.content_length is None and not gives_up:
                await begin()
            self._protocol.receive_data(await self._receive_more(most))
            event = self._protocol.next_event()

    def let_idle(self, seconds: float) -> None:
        """The client may pause for so long before it sends more; a drain does not wait for that."""
        self._allowance = seconds
        self._idles = True

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

    def keep(self, hold: Hold) -> None:
        """Release `hold` once the answer is sent, or nobody is there any more to take it."""
        self._kept = hold

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

    # Reading and writing ------------------------------------------------------------------------------

    async def _next_event(self) -> Event:
        """The next event, in our turn where it comes behind another of the same read.

        Sixty-four kilobytes can have ten thousand chunks, and fifty clients at once send that.
        """
        if not self._protocol.waiting_bytes:
            return self._protocol.next_event()
        await self._turn.take(TURN_BYTES)
        return self._protocol.next_event()

    async def _receive_more(self, most: int) -> bytes | bytearray:
        await own_task()
        self._wait_for_client(Phase.CONTENT, self._allowance)
        with trio.CancelScope() as reading:
            self._reading = reading
            if self._hurrying or (self._idles and self._draining):
                reading.cancel()
            data = await self._read_content(most)
        self._reading = None
        self.received_at = trio.current_time()
        self._allowance -= self.received_at - self.since
        self.phase, self.deadline = Phase.ANSWER, math.inf
        if reading.cancelled_caught:
            self._unread = True
            if self._hurrying or (self._idles and self._draining):
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
        except GONE as error:
            raise Disconnected from error

    async def _read_content(self, most: int) -> bytes | bytearray:
        """The same, so that content which is here already does not keep the loop: it can go on for ever.

        Others go on before the read and not after it, where being cancelled would lose what was read.
        """
        if self._tcp is None:
            async with self._turn.reading:
                pass
            return await self._read()
        try:
            while True:
                await self._tcp.wait_readable()
                async with self._turn.reading:
                    data = self._tcp.receive_now(most)
                if data is not None:
                    return data
        except GONE as error:
            raise Disconnected from error

    async def _transmit(self, data: bytes | memoryview, flags: int = 0) -> None:
        if not data:
            return
        rest: bytes | memoryview = data
        try:
            if self._place is not None and self._tcp is not None:
                sent = self._tcp.send_now(data, flags)
                if sent == len(data):
                    return
                rest = memoryview(data)[sent:]
                await own_task()
            before = self.phase, self.deadline
            self._wait_for_client(Phase.SEND, self._timeouts.send_seconds)
            await self._stream.send_all(rest)
        except GONE as error:
            raise Disconnected from error
        self.phase, self.deadline = before


Handler = Callable[[Exchange], Awaitable[Response | None]]
"""Handles one request: returns the answer, or None after it has sent one with `start`, `send` and `end`."""
