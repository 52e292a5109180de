"""The content of a request without its content coding, for whoever would read it without one.

It is inflated while it is read, no further ahead than it is asked for: in our turn, or in a thread where
there is more of it.  What a coding is, is `ingest.http.codings`'s.
"""

from __future__ import annotations

import math
import types
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from ingest.budget import Budget
from ingest.http.codings import Inflater
from ingest.http.exchange import RECEIVE_BYTES, Exchange
from ingest.parking import own_task
from ingest.turn import TURN_BYTES, Turn

HERE_BYTES = 16_384
"""Content that came with its head and has no more than this is inflated at once, as it would be read."""
STEP_BYTES = 65_536
"""How much is made at a time in the loop; it takes about as long as handing it to a thread and back."""
ASIDE_BYTES = 262_144
"""How much is made at a time in a thread: half a millisecond's work, for a hop of a fourth of it."""


class Inflated:
    """An `Exchange` whose content has its coding taken off; what is not said here is the exchange's own.

    To be left as a context manager, which gives back what it holds of the budget.
    """

    def __init__(self, exchange: Exchange, coding: str, budget: Budget, turn: Turn) -> None:
        """`coding` is one of `ingest.http.codings.CODINGS`; what inflating takes is on the `budget`."""
        self._exchange = exchange
        self._inflater = Inflater(coding)
        self._turn = turn
        # As a stream's window, so that what has been read can always move on; and apart from its client's
        # content, which would count against it where it is that client's only request.
        self._hold = budget.hold_nothing(f"inflating for {exchange.peer}", window=True)
        self._check: Callable[[int], None] | None = None
        self._ready = b""  # was made and not asked for yet
        self._ended = False  # nothing more will come
        self._aside = False  # there is more than a little of what has come
        self._inflated_at = -math.inf
        self.request = exchange.request._replace(content_length=None)
        """The request; how long its content will be, nobody knows."""
        self.peer = exchange.peer
        self.head_cost = exchange.head_cost
        self.start = exchange.start
        self.send = exchange.send
        self.end = exchange.end
        self.let_idle = exchange.let_idle
        self.keep = exchange.keep

    def __enter__(self) -> Inflated:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._hold.release()

    @property
    def received_at(self) -> float:
        """On Trio's clock: when content was last waited for and came, or was made of what had come."""
        return max(self._exchange.received_at, self._inflated_at)

    def check_as_it_comes(self, check: Callable[[int], None]) -> None:
        """Have `check` refuse content by its length before it is inflated: now if it is known, else later."""
        self._check = check
        length = self._exchange.request.content_length
        if length is not None:
            check(length)

    def take_content(self) -> bytes | None:
        """The whole content if it has come with its head and is small; None: it is to be received."""
        data = self._exchange.take_content()
        if data is None:
            return None
        self._ended = True
        inflater = self._inflater
        inflater.feed(data)
        made = b""
        while len(made) < HERE_BYTES and (more := inflater.inflate(HERE_BYTES - len(made))):
            made += more
        if len(made) == HERE_BYTES or inflater.paused:
            self._ready = made
            return None
        inflater.end()
        return made

    async def receive(
        self, most: int = ASIDE_BYTES, begin: Callable[[], Awaitable[None]] | None = None
    ) -> bytes:
        """The next piece of the content, of at most so many bytes; b"" at its end.  `begin` is as there.

        Raises as `Exchange.receive` does, `BadRequest` for content that is not what its coding says,
        `TooLarge`, and `Overloaded` where there is no room for what inflating takes.
        """
        while True:
            if self._ready:
                made, self._ready = self._ready, b""
            else:
                made = await self._inflate(most)
            if made:
                return made
            if self._inflater.paused:
                await self._turn.take(TURN_BYTES)
                continue
            if self._ended:
                self._inflater.end()
                self._hold.release()
                return b""
            data = await self._exchange.receive(RECEIVE_BYTES, begin)
            if self._check is not None:
                self._check(self._exchange.content_bytes)
            self._ended = not data
            self._aside = False
            self._inflater.feed(data)
            self._charge()

    async def _inflate(self, most: int) -> bytes:
        """What comes next of what is here: a little in the loop, and where there is more, in a thread."""
        inflater = self._inflater
        if inflater.needs_data:
            return b""
        if self._aside and most > STEP_BYTES:
            await own_task()
            made: bytes = await trio.to_thread.run_sync(
                inflater.inflate, min(most, ASIDE_BYTES), limiter=self._turn.aside
            )
        else:
            made = inflater.inflate(min(most, STEP_BYTES))
            self._aside = len(made) == STEP_BYTES
            await self._turn.take(len(made))
        self._inflated_at = trio.current_time()
        self._charge()
        return made

    def _charge(self) -> None:
        more = self._inflater.held_bytes - self._hold.size
        if more > 0:
            self._hold.grow(more)


AnyExchange: TypeAlias = Exchange | Inflated
"""What a request is read from and answered through."""
