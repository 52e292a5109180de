"""The short way through a connection: requests that are read, begun and answered without its coroutine.

To have the coroutine go on for each request, twice, takes longer than all that is done there.  So while it
waits for a request it is left where it is: who has news for it (something has arrived, a report has come)
calls what serves the request, and has the coroutine go on only where that is not all about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import trio

from ingest.budget import Budget
from ingest.http.exchange import RECEIVE_BYTES, Disconnected, Exchange, Phase
from ingest.http.messages import Request, Response
from ingest.http.protocol import HTTPProtocol
from ingest.http.streams import WITH_THE_END, ByteStream
from ingest.http.writing import write_usual
from ingest.parking import own_task, park
from ingest.sections import Timeouts
from ingest.turn import Turn

DRAIN_IDLE_SECONDS = 0.5
"""How long a connection without a request stays open in a drain, for a request that is on its way."""


class Answer(NamedTuple):
    """A response, which others may get too, and the name of its request."""

    response: Response
    request_id: bytes


class Begun(Protocol):
    """A request on the short way whose answer may not be there yet."""

    def then(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called once it is; False, and never, where it is there already."""

    def forget(self) -> None:
        """There is nobody to wake any more."""


B = TypeVar("B", bound=Begun)


class ShortWay(Protocol[B]):
    """A second handler, for requests of which nothing is special and everything is here."""

    def begin(self, request: Request, content: bytes, now: float) -> B | Answer | None:
        """Handle a request that came `now`; None where it is for the long way, and nothing has been done."""

    def end(self, begun: B) -> Answer:
        """The answer, which is there."""

    def give_up(self, begun: B) -> None:
        """There will be nobody to answer: the connection has been ended."""


class _Rest(NamedTuple):
    """What the kernel did not take of an answer."""

    data: bytes | memoryview
    is_last: bool
    """Whether the connection ends with it."""


class AtOnce(Exchange):
    """What `ingest.http.connection.Connection` does with requests that are for the short way.

    One request at a time.  It repeats what is done elsewhere for any request, since here each call would
    cost as much as what it does.
    """

    __slots__ = ("_begun", "_has_more", "_is_awaited", "_left", "_short_way")

    def __init__(
        self,
        stream: ByteStream,
        peer: str,
        protocol: HTTPProtocol,
        timeouts: Timeouts,
        budget: Budget | None,
        turn: Turn,
        now: Callable[[], float],
        short_way: ShortWay[Any] | None,
    ) -> None:
        """`short_way` is asked where there is one; the rest is as for an exchange."""
        super().__init__(stream, peer, protocol, timeouts, budget, turn, now)
        self._short_way = short_way
        self._begun: Begun | None = None  # until it is answered
        self._is_awaited = False  # by the coroutine itself
        self._has_more = False  # something has arrived since, and was not read
        # What the coroutine has to see to: data for the long way, what is left of an answer, what went wrong.
        self._left: bytes | _Rest | Exception | None = None

    async def _serve_short(self) -> bytes | bytearray | None:
        """Have requests served while they are for the short way, and return the first data that is not.

        None where the last answer has been sent.
        """
        way, place, tcp = self._short_way, self._place, self._tcp
        if way is None or place is None or tcp is None:
            return await self._read_parked()
        place.at_once = self._serve_at_once
        try:
            while True:
                if self._left is None:
                    if self._begun is not None:
                        self._is_awaited = True
                        try:
                            await park()
                        finally:
                            self._is_awaited = False
                    elif tcp.emptied and not self._has_more:
                        await place.readable()
                    if self._left is None:
                        self._serve_at_once()
                left, self._left = self._left, None
                if isinstance(left, bytes):
                    return left
                if isinstance(left, OSError):
                    raise Disconnected from left
                if isinstance(left, Exception):
                    raise left
                if left is not None:
                    await self._transmit(left.data, WITH_THE_END if left.is_last else 0)
                    if left.is_last:
                        self._unread = tcp.readable()
                        # In this very step, and not by the close, which would reset away what it still
                        # holds if the client sent something before it.
                        await tcp.send_eof()
                        return None
                    del left  # what a connection keeps while it is idle, it keeps ten thousand times
                    self._wait_for_request(self._timeouts.idle_seconds)
                elif not tcp.emptied:  # there may be no end to what it sends
                    await own_task()
                    await trio.lowlevel.checkpoint()
        except BaseException:
            begun, self._begun = self._begun, None
            if begun is not None:
                begun.forget()
                way.give_up(begun)
            raise
        finally:
            place.at_once = None

    def _wait_for_request(self, seconds: float) -> None:
        self._wait_for_client(Phase.IDLE, min(seconds, DRAIN_IDLE_SECONDS) if self._draining else seconds)

    def _serve_at_once(self) -> bool:
        """Serve what has arrived, if anything has; False where the coroutine has to go on."""
        way, tcp = self._short_way, self._tcp
        if way is None or tcp is None:
            return False
        if self._begun is not None:
            self._has_more = True
            return True
        self._has_more = False
        try:
            data = tcp.receive_now(RECEIVE_BYTES)
            if data is None:
                return True
            whole = None if self._draining else self._protocol.whole(data)
            if whole is None:
                self._left = data
                return False
            now = self._now()
            begun = way.begin(*whole, now)
            if begun is None:
                self._left = data
                return False
            if not isinstance(begun, Answer):
                if begun.then(self._answer_begun):
                    self._begun = begun
                    self.phase, self.deadline = Phase.ANSWER, math.inf
                    return True
                begun = way.end(begun)
            return self._answer(begun, now) and tcp.emptied
        except Exception as error:  # noqa: BLE001  # raised again in the coroutine
            self._left = error
        return False

    def _answer_begun(self) -> None:
        """The report has come: answer, and go on with what has arrived meanwhile."""
        way, place, tcp, begun = self._short_way, self._place, self._tcp, self._begun
        if way is None or place is None or tcp is None or begun is None:
            return
        self._begun = None
        try:
            goes_on = self._answer(way.end(begun), self._now()) and tcp.emptied
        except Exception as error:  # noqa: BLE001  # raised again in the coroutine
            self._left, goes_on = error, False
        if goes_on and not self._is_awaited:
            goes_on = not self._has_more or self._serve_at_once()
        if not goes_on or self._is_awaited:
            place.go_on()

    def _answer(self, answer: Answer, now: float) -> bool:
        """Send an answer; False where it is the last one, or the kernel did not take all of it."""
        assert self._tcp is not None  # noqa: S101  # the short way has one
        if self._draining or answer.response.closes:
            response = msgspec.structs.replace(answer.response, closes=True, request_id=answer.request_id)
            self._left = _Rest(self._protocol.send(response), is_last=True)
            return False
        written = write_usual(*answer)
        sent = self._tcp.send_now(written)
        if sent < len(written):
            self.phase, self.deadline = Phase.ANSWER, math.inf
            self._left = _Rest(memoryview(written)[sent:], is_last=False)
            return False
        self.since, self.phase = now, Phase.IDLE
        self.deadline = now + self._timeouts.idle_seconds
        return True

    async def _read_parked(self) -> bytes | bytearray:
        """`_read`, from where the connection is parked."""
        if self._place is None or self._tcp is None:
            return await self._read()
        while True:
            if self._tcp.emptied:
                await self._place.readable()
            try:
                data = self._tcp.receive_now(RECEIVE_BYTES)
            except OSError as error:
                raise Disconnected from error
            if data is not None:
                return data
