"""What arrives on connections that are parked: one edge-triggered epoll instance for all of them (epoll(7)).

Trio's own way to wait for a socket asks the kernel anew each time, and wakes a task for each.
"""

from __future__ import annotations

import functools
import select
import sys
import types
from collections.abc import Callable, Generator

import trio

from ingest import parking
from ingest.turn import Turn

EVENTS_A_TURN = 64
"""How many connections are served before other tasks get their turn."""
FEW = 2
"""With no more than so many, it is likely that there are none in the next pass of the loop."""


_END = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR if sys.platform == "linux" else 0


class Parked(parking.Place):
    """The place of one connection's coroutine, which may wait there for its socket."""

    __slots__ = ("_arrived", "_ended", "_reads", "_watch", "at_once")

    def __init__(self, watch: Callable[[Parked], None]) -> None:
        """`watch` is called before it waits for the first time: many a connection is over by then."""
        super().__init__()
        self._watch: Callable[[Parked], None] | None = watch
        self.at_once: Callable[[], bool] | None = None
        """Called when something arrives while `readable` waits; whether it goes on waiting."""
        self._arrived = False
        self._ended = False  # a read finds something from now on, if only the end
        self._reads = False

    @types.coroutine
    def readable(self) -> Generator[object, None, None]:
        """Wait until something has arrived since this returned the last time."""
        if self._watch is not None:
            self._watch(self)
            self._watch = None
        if not self._arrived and not self._ended:
            self._reads = True
            try:
                yield parking.PARK
            finally:
                self._reads = False
        self._arrived = False

    def arrive(self, *, ended: bool) -> None:
        """Something has arrived; `ended` says that the end or an error has come, behind it or alone.

        Both can be one event, and a read that takes less than was asked for does not show the second.
        """
        self._arrived = True
        if ended:
            self._ended = True
        if not self._reads or self._coroutine is None:  # the latter where it has been cancelled
            return
        waits = self.at_once is not None and self.at_once()
        if not waits or self._ended:  # for the end no further event comes
            self.go_on()


class Arrivals:
    """The sockets of all connections that can be parked."""

    def __init__(self, turn: Turn) -> None:
        """`turn` is told when others have had theirs."""
        self._turn = turn
        self._epoll = select.epoll()
        self._places: dict[int, Parked] = {}
        self.now = trio.lowlevel.current_clock().current_time
        """What `trio.current_time` asks, on a detour that each request would pay for."""

    def join(self, descriptor: int) -> Parked:
        """A place for a connection; to `leave` before its descriptor is closed."""
        return Parked(functools.partial(self._watch_for, descriptor))

    def _watch_for(self, descriptor: int, place: Parked) -> None:
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._places[descriptor] = place

    def leave(self, descriptor: int) -> None:
        """Nothing is to be told of this descriptor any more."""
        if self._places.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    async def watch(self) -> None:
        """Have connections go on, on which something arrives, until cancelled."""
        turn = self._turn
        while True:
            events = self._epoll.poll(0, EVENTS_A_TURN)
            arrived = iter(events)
            for descriptor, event in arrived:
                self._places[descriptor].arrive(ended=bool(event & _END))
                if turn.left <= 0:
                    # By places: when others have had their turn, a descriptor may be that of another one.
                    await self._go_on([(self._places[later], event) for later, event in arrived])
            if len(events) > FEW:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            turn.others_had_theirs()

    async def _go_on(self, arrived: list[tuple[Parked, int]]) -> None:
        """What `watch` does, with what is left of a turn that is used up."""
        for place, event in arrived:
            if self._turn.left <= 0:
                await trio.lowlevel.checkpoint()
                self._turn.others_had_theirs()
            place.arrive(ended=bool(event & _END))

    def close(self) -> None:
        """Close it, after every place has been left."""
        self._epoll.close()


def open_arrivals(turn: Turn) -> Arrivals | None:
    """None where the system has no epoll; each connection then waits in its own task."""
    return Arrivals(turn) if sys.platform == "linux" else None
