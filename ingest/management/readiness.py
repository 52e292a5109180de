"""Whether records can be taken: follows Kafka and head-room, and does not flap."""

from __future__ import annotations

import logging

import trio
from trio_util import periodic

from ingest.budget import Budget
from ingest.producer import Producer

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often it is looked; a request for it reads what was found."""
TROUBLE_SECONDS = 0.5
"""How long a trouble lasts before it counts."""
STEADY_SECONDS = 1.5
"""How long there is no trouble before it is ready again."""
FULL_SHARE = 0.9
"""At this much of limits.held_bytes, for `FULL_SECONDS`, it is full …"""
ROOM_SHARE = 0.7
"""… until no more than this is held."""
FULL_SECONDS = 2.0


class Readiness:
    """What was found at each look, and what follows from it.

    The clock is the caller's, so nothing here waits.  Ready at the first look without a trouble.  Later a
    trouble has to last before it counts, and its absence too, which takes longer: a service that goes in
    and out of a load balancer harms its neighbours, who get the load.
    """

    def __init__(self) -> None:
        self.reasons: tuple[str, ...] = ("starting",)
        """Why records cannot be taken; empty while they can."""
        self._was_ready = False
        self._full = False
        self._crowded_since: float | None = None
        self._troubled_since: float | None = None
        self._steady_since: float | None = None

    @property
    def ready(self) -> bool:
        """Whether records can be taken."""
        return not self.reasons

    def look(self, now: float, *, trouble: str | None, held_share: float) -> None:
        """Take in what is found at `now`, in seconds: the producer's trouble, and how full the budget is."""
        found = [] if trouble is None else [trouble]
        if self._is_full(now, held_share):
            found.append(f"{held_share:.0%} of limits.held_bytes is held")
        if found:
            self._steady_since = None
            if self._troubled_since is None:
                self._troubled_since = now
            if not self.ready or now - self._troubled_since >= TROUBLE_SECONDS:
                self.reasons = tuple(found)
        else:
            self._troubled_since = None
            if self._steady_since is None:
                self._steady_since = now
            if not self._was_ready or now - self._steady_since >= STEADY_SECONDS:
                self.reasons = ()
                self._was_ready = True

    def _is_full(self, now: float, held_share: float) -> bool:
        if held_share >= FULL_SHARE:
            if self._crowded_since is None:
                self._crowded_since = now
            self._full = self._full or now - self._crowded_since >= FULL_SECONDS
        else:
            self._crowded_since = None
            self._full = self._full and held_share > ROOM_SHARE
        return self._full


async def keep_looking(readiness: Readiness, producer: Producer, budget: Budget) -> None:
    """Look at the producer and the budget until cancelled, and log each change."""
    async for _ in periodic(LOOK_SECONDS):
        before = readiness.ready
        share = budget.held_bytes / budget.limit_bytes
        readiness.look(trio.current_time(), trouble=producer.trouble, held_share=share)
        if readiness.ready and not before:
            log.info("ready")
        elif before and not readiness.ready:
            log.warning("not ready", extra={"reasons": "; ".join(readiness.reasons)})
