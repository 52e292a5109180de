"""Calls into librdkafka, each in a thread, that are waited for, but not for ever.

A thread that is stuck inside librdkafka cannot be ended.  It is left behind: whoever waited goes on with
`Stuck`, and the thread with what it holds is not touched any more.  This is the one place where a thread
may outlive its task; who uses it counts those that do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")

STUCK_SECONDS = 3.0
"""How long a call may show no progress before its thread is left behind."""
LOOK_SECONDS = 0.25
"""How often somebody has to `look`."""


class Stuck(Exception):
    """The thread did not come back, and was left behind."""


class Patience:
    """How long something has stood still, counted in looks and not read off a clock.

    A process that was stopped for a while, or a machine that slept, makes a clock jump, and nothing here
    has had its chance since.
    """

    def __init__(self, seconds: float) -> None:
        self._most = max(1, round(seconds / LOOK_SECONDS))
        self._looks = 0
        self._seen: object = None

    def start(self) -> None:
        """Count from here."""
        self._looks = 0

    def ends(self, progress: object) -> bool:
        """To be asked every `LOOK_SECONDS`: whether `progress` has been the same for too many looks."""
        if progress != self._seen:
            self._seen, self._looks = progress, 0
        self._looks += 1
        return self._looks > self._most


class Worker:
    """One thread at a time, for one kind of call."""

    def __init__(self, progress: Callable[[], int] = lambda: 0) -> None:
        """`progress` counts up as long as a call gets somewhere, however long it takes."""
        self.stuck = False
        self._progress = progress
        self._limiter = trio.CapacityLimiter(1)
        self._scope: trio.CancelScope | None = None
        self._calls = 0
        self._patience = Patience(STUCK_SECONDS)
        self._inside = False  # written by the thread

    @property
    def left_behind(self) -> bool:
        """Whether a thread was left behind and is still where it was stuck."""
        return self.stuck and self._inside

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run `call` in the thread.  Not cancellable: what a thread has done is always taken note of.

        Raises what `call` raises, and `Stuck`.
        """
        self._calls += 1
        self._inside = True
        with trio.CancelScope(shield=True) as self._scope:
            return await trio.to_thread.run_sync(
                self._run, call, arguments, limiter=self._limiter, abandon_on_cancel=True
            )
        self.stuck = True
        raise Stuck

    def _run(self, call: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        try:
            return call(*arguments)
        finally:
            self._inside = False

    def look(self) -> None:
        """To be called every `LOOK_SECONDS`: leave a thread behind that is stuck."""
        if self._patience.ends((self._calls, self._progress())) and self._inside and self._scope is not None:
            self._scope.cancel()


class Threads:
    """Those that have a call under way, and are looked at together."""

    def __init__(self) -> None:
        self._workers: set[Worker] = set()

    async def run(self, call: Callable[..., T], *arguments: Any, worker: Worker | None = None) -> T:
        """`Worker.run`, by a `worker` of its own if none is given, which is looked at meanwhile."""
        worker = Worker() if worker is None else worker
        self._workers.add(worker)
        try:
            return await worker.run(call, *arguments)
        finally:
            self._workers.discard(worker)

    def look(self) -> None:
        """See `Worker.look`."""
        for worker in self._workers:
            worker.look()
