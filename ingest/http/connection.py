"""One socket, from accept to close: deadlines, 100-continue, keep-alive, drain.

It moves bytes between a stream and a parser and gives each request to a handler.  What a request means,
and what an answer says, it does not know.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from ingest.budget import Budget
from ingest.errors import IngestError, UploadTooSlow
from ingest.faultlog import FaultLog
from ingest.http.arrivals import Arrivals
from ingest.http.at_once import DRAIN_IDLE_SECONDS, AtOnce, ShortWay
from ingest.http.exchange import GONE, RECEIVE_BYTES, Disconnected, Handler, Phase
from ingest.http.messages import Content, Request, Response
from ingest.http.protocol import HTTPProtocol, Signal
from ingest.http.streams import ByteStream, TCPStream
from ingest.parking import own_task
from ingest.sections import Timeouts
from ingest.turn import Turn

log = logging.getLogger(__name__)

DISCARD_BYTES = 65_536
"""Unread content up to this is read and thrown away to keep the connection; above it, closing is cheaper."""
LINGER_SECONDS = 2.0
"""How long a closed connection goes on reading, so that the client gets the answer before a reset."""


class Connection(AtOnce):
    """A connection and, while its request is handled, the exchange that a handler works with."""

    __slots__ = (
        "_abandoned",
        "_arrivals",
        "_faults",
        "_handler",
        "_refuse_with",
        "_scope",
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
        short_way: ShortWay[Any] | None = None,
    ) -> None:
        """`peer` names the client for accounting; `refuse` answers what could not be read.

        Bugs are logged through `faults`, and whose content comes in small chunks has it read while it has
        the `turn`; both may be shared.  What was read and has to wait, of heads, trailers and later
        requests, is charged to `budget`, if there is one.  With `arrivals`, which a handler has to be made
        for, the connection is parked there while it waits for a head or for a report, and `short_way`
        is asked first.
        """
        now = trio.current_time if arrivals is None else arrivals.now
        super().__init__(stream, peer, protocol, timeouts, budget, turn or Turn(), now, short_way)
        self._handler = handler
        self._refuse_with = refuse
        self._arrivals = arrivals
        self._faults = faults
        self._scope = trio.CancelScope()
        self._abandoned = False

    @property
    def socket(self) -> TCPStream | None:
        """The TCP stream, also the one below TLS, where there is one."""
        stream = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        return stream if isinstance(stream, TCPStream) else None

    # Deadlines and drain, called by the sweep -------------------------------------------------------

    def expire(self) -> None:
        """The deadline has passed: end what is waited for."""
        if self.phase is Phase.CONTENT and self._reading is not None:
            self._reading.cancel()
        elif self.phase in (Phase.IDLE, Phase.HEAD) and self.socket is not None and self.socket.readable():
            self.notice()  # it has come after all: cancelling now would hit what is about to be read
        else:
            self._scope.cancel()

    def notice(self) -> None:
        """There is something to read that no event may tell of: a read ends before urgent data (tcp(7))."""
        if self._place is not None:
            self._place.arrive(ended=False)

    def abandon(self) -> None:
        """End at once: the client has reset the connection, or another has to have its place."""
        self._abandoned = True
        self._scope.cancel()

    def drain(self) -> None:
        """Finish the request in hand and end; without one, end soon."""
        self._draining = True
        if self.phase is Phase.IDLE:
            self.deadline = min(self.deadline, trio.current_time() + DRAIN_IDLE_SECONDS)
        elif self._idles and self._reading is not None:
            self._reading.cancel()

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
                with trio.move_on_after(LINGER_SECONDS, shield=True), contextlib.suppress(*GONE):
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
            self._wait_for_request(wait)
            try:
                request = await self._receive_head()
            except IngestError as error:
                self._unread = True
                response = msgspec.structs.replace(self._refuse_with(error), closes=True)
                await self._transmit(self._protocol.send(response))
                break
            if request is None:
                if self._unread:
                    break
                return
            try:
                kept = await self._serve_one(request)
            finally:
                if self._kept is not None:
                    self._kept.release()
                    self._kept = None
            del request  # what a connection keeps while it is idle, it keeps ten thousand times
            if not kept:
                break
            wait = self._timeouts.idle_seconds
        if self._unread or (self.socket is not None and self.socket.readable()):
            await own_task()
            await self._linger()

    async def _receive_head(self) -> Request | None:
        """The next request for the handler; None at the end of the stream, or after the last answer."""
        if self._held is not None:
            self._release()
        if self._protocol.waiting_bytes:  # behind another request
            self._hold_waiting(self.peer)
            await own_task()
            await trio.lowlevel.checkpoint()
        else:
            data = await self._serve_short()
            if data is None:
                return None
            self._protocol.receive_data(data)
            del data  # what waits of a head is paid for once
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
        self._complete = self._idles = False
        self._owes_continue = request.expects_continue
        self._allowance = self._timeouts.body_grace_seconds
        self.phase, self.deadline = Phase.ANSWER, math.inf
        response = await self._handler(self)
        if response is not None:
            if self._draining or not (self._complete or await self._can_keep()):
                response = msgspec.structs.replace(response, closes=True)
            data = self._protocol.send(response)
            del response  # its content is kept once while the client takes it
            await self._transmit(data)
            del data
        if not self._complete and not (await self._can_keep() and await self._discard()):
            self._unread = True
            return False
        if not self._protocol.keeps_alive:
            return False
        self._protocol.start_next_cycle()
        del self.request
        return True

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
            with trio.move_on_after(LINGER_SECONDS), contextlib.suppress(*GONE):
                while await self.socket.receive_some(RECEIVE_BYTES):
                    await trio.lowlevel.checkpoint()
