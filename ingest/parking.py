"""A coroutine that goes on where it is woken, in whatever task that is, as long as it needs none of its own.

A task that is woken costs more than all that is done for a small request.  So a connection's task is parked,
and whoever has news for it (its socket can be read, its records have their reports) runs its coroutine a step
further by hand.  Where the coroutine wants to wait for anything else, it asks for its `own_task` first.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

import outcome
import trio
from trio.lowlevel import wait_task_rescheduled

T = TypeVar("T")


PARK = object()
"""What a coroutine yields that goes on when `Place.go_on` is called; see `park`."""
_OWN_TASK = object()
"""What it yields to go on in the task of `Place.run`."""


_running: Place | None = None
"""Whose coroutine is run by hand just now."""


def current() -> Place | None:
    """The place of the coroutine that calls, if it is run by hand: it may `park` there."""
    return _running


@types.coroutine
def park() -> Generator[object, None, None]:
    """Wait until `go_on` of our place is called.  No cancel scope may have been entered since `Place.run`."""
    yield PARK


async def own_task() -> None:
    """Go on in our own task, where everything of Trio's can be waited for; at once where we are in it.

    To be called before anything of Trio's that can wait, and before a cancel scope is entered.
    """
    if _running is not None:
        await _ask_for_task()


@types.coroutine
def _ask_for_task() -> Generator[object, None, None]:
    yield _OWN_TASK


class Place:
    """Where one coroutine is parked, and what its task waits for meanwhile."""

    __slots__ = ("_coroutine", "_task")

    def __init__(self) -> None:
        self._coroutine: Coroutine[Any, Any, Any] | None = None  # while it is parked
        self._task: trio.lowlevel.Task | None = None  # the same

    @types.coroutine
    def run(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Run a coroutine to its end: in the calling task, and by hand where it is parked.

        Returns and raises what it does.  Cancelled while it is parked: it is told so where it is.
        """
        resume: Any = coroutine.send
        argument: Any = None
        while True:
            try:
                trap = resume(argument)
            except StopIteration as end:
                result: T = end.value
                return result
            resume, argument = coroutine.send, None
            try:
                if trap is PARK:
                    ended = yield from self._wait(coroutine)
                elif trap is not _OWN_TASK:
                    argument = yield trap
                    continue
                else:
                    continue
            except BaseException as error:  # noqa: BLE001  # handed on
                resume, argument = coroutine.throw, error
                continue
            if ended is not None:
                result = ended.unwrap()
                return result

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, outcome.Outcome[T] | None]:
        """Park; how the coroutine ended meanwhile, or None where it goes on in this task."""
        self._coroutine = coroutine
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._coroutine = self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        ended: outcome.Outcome[T] | None = yield from wait_task_rescheduled(abort).__await__()  # noqa: ASYNC105
        return ended

    def go_on(self) -> None:
        """Run the coroutine until it parks again, wants its task, or ends; nothing is raised here.

        Does nothing where it is not parked: it has been cancelled.
        """
        global _running  # noqa: PLW0603  # it is as global as the interpreter's one running frame
        coroutine, task, before = self._coroutine, self._task, _running
        if coroutine is None or task is None:
            return
        self._coroutine = None
        _running = self
        ended: outcome.Outcome[Any] | None = None
        try:
            trap = coroutine.send(None)
            if trap is PARK:
                self._coroutine = coroutine
                return
            if trap is not _OWN_TASK:
                coroutine.throw(RuntimeError(f"waits for {trap!r} without a task of its own"))
        except StopIteration as end:
            ended = outcome.Value(end.value)
        except BaseException as error:  # noqa: BLE001  # raised again in the task
            ended = outcome.Error(error)
        finally:
            _running = before
        self._task = None
        trio.lowlevel.reschedule(task, outcome.Value(ended))
