"""One byte budget over everything held: unfinished content, the channel, librdkafka, unanswered reports.

It counts bytes and knows who waits for them; it knows neither HTTP nor Kafka.  All of it lives in the
Trio thread.
"""

from __future__ import annotations

from collections import deque

import trio

from ingest.errors import Overloaded, TooLarge
from ingest.parking import own_task


class Hold:
    """Bytes taken from a budget, until `release`.

    Whoever has the hold owns the bytes; handing it on (from a request to its delivery) hands on the
    duty to release it.  Releasing twice is the same as once.
    """

    __slots__ = ("_budget", "_peer", "_window", "size")

    def __init__(self, budget: Budget, size: int, peer: str | None, window: bool) -> None:
        self._budget = budget
        self._peer = peer
        self._window = window
        self.size = size

    def grow(self, size: int) -> None:
        """Take `size` bytes more, now or never.

        Growing content never waits for room: two that wait would wait for each other.

        Raises `Overloaded` where there is no room; what was held stays held.
        """
        self._budget._take(size, self._peer, self._window, own=self.size)
        self.size += size

    def shrink(self, size: int) -> None:
        """Give back all but `size` bytes, once the real size of what was announced is known."""
        if size < self.size:
            self._budget._give(self.size - size, self._peer, self._window)
            self.size = size

    def finish(self) -> None:
        """The content is complete: it no longer counts as its peer's unfinished content."""
        if self._peer is not None:
            self._budget._give_share(self.size, self._peer, window=False)
            self._peer = None

    def release(self) -> None:
        """Give everything back."""
        size, self.size = self.size, 0
        if size:
            self._budget._give(size, self._peer, self._window)


class Budget:
    """A limit of bytes, and who holds how many of them.

    Three bounds hold at once: all holds together stay within `limit_bytes`; one peer's unfinished
    content stays within a quarter of it, so that one client cannot keep the others out (a single
    request is always let in); and the windows of streams stay within a half of it, so that what a
    stream has read can always move on.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._window_bytes = 0
        self._peers: dict[str, int] = {}
        self._waiting: deque[tuple[trio.lowlevel.Task, int]] = deque()

    def hold_nothing(self, peer: str | None, *, window: bool = False) -> Hold:
        """A hold of no bytes, to `grow`; `peer` and `window` as for `acquire`."""
        return Hold(self, 0, peer, window)

    def take(self, size: int) -> Hold | None:
        """`acquire` at once, for nothing that is about to be read; None where there is no room just now."""
        if self._waiting or self.held_bytes + size > self.limit_bytes:
            return None
        self.held_bytes += size
        return Hold(self, size, None, window=False)

    async def acquire(
        self, size: int, wait_seconds: float = 0, peer: str | None = None, *, window: bool = False
    ) -> Hold:
        """Take `size` bytes, waiting for room in line for at most `wait_seconds`.

        With a `peer`, they are for content that is about to be read from it; `window` says that it is a
        stream's.  Raises `Overloaded` where there is no room, or none in time, and `TooLarge` where there
        never will be.  Cancelled: nothing was taken.  Does not pass a checkpoint unless it waits.
        """
        if peer is None and not window and (hold := self.take(size)) is not None:
            return hold  # what most requests come to
        if size > self.limit_bytes:
            raise TooLarge(f"{size} bytes at once are more than limits.held_bytes = {self.limit_bytes}")
        self._take_share(size, peer, window)
        try:
            if not self._waiting and self._fits(size):
                self.held_bytes += size
            else:
                if wait_seconds <= 0:
                    raise self._full()
                await own_task()
                with trio.move_on_after(wait_seconds) as scope:
                    await self._wait_in_line(size)
                if scope.cancelled_caught:
                    raise self._full()
        except BaseException:
            self._give_share(size, peer, window)
            raise
        return Hold(self, size, peer, window)

    async def _wait_in_line(self, size: int) -> None:
        entry = (trio.lowlevel.current_task(), size)
        self._waiting.append(entry)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(entry)
            self._serve_line()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _serve_line(self) -> None:
        while self._waiting and self._fits(self._waiting[0][1]):
            task, size = self._waiting.popleft()
            self.held_bytes += size
            trio.lowlevel.reschedule(task)

    def _fits(self, size: int) -> bool:
        return self.held_bytes + size <= self.limit_bytes

    def _full(self) -> Overloaded:
        return Overloaded(f"the service holds {self.held_bytes} of limits.held_bytes = {self.limit_bytes}")

    def _take(self, size: int, peer: str | None, window: bool, own: int) -> None:
        if self._waiting or not self._fits(size):
            raise self._full()
        self._take_share(size, peer, window, own)
        self.held_bytes += size

    def _give(self, size: int, peer: str | None, window: bool) -> None:
        if window or peer is not None:
            self._give_share(size, peer, window)
        self.held_bytes -= size
        if self._waiting:
            self._serve_line()

    def _take_share(self, size: int, peer: str | None, window: bool, own: int = 0) -> None:
        if window:
            if self._window_bytes + size > self.limit_bytes // 2:
                raise Overloaded("open streams already hold half of limits.held_bytes")
            self._window_bytes += size
        if peer is not None:
            unfinished = self._peers.get(peer, 0)
            # What it holds itself (`own`) does not count against a peer's only request.
            if unfinished > own and unfinished + size > self.limit_bytes // 4:
                if window:
                    self._window_bytes -= size
                raise Overloaded(
                    "unfinished requests of this client already hold a quarter of limits.held_bytes"
                )
            self._peers[peer] = unfinished + size

    def _give_share(self, size: int, peer: str | None, window: bool) -> None:
        if window:
            self._window_bytes -= size
        if peer is not None:
            left = self._peers.pop(peer, 0) - size
            if left:
                self._peers[peer] = left
