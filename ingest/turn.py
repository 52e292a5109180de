"""Whose turn it is to compute for long, so that nobody waits for more than one of them."""

from __future__ import annotations

import trio

from ingest.parking import own_task

TURN_BYTES = 262_144
"""How much is done before other tasks get their turn: about a millisecond's work, as bytes of JSON."""

LINE_COST, PLAIN_LINE_COST = 500, 100
"""What making a record of a line takes, as so many bytes of it; the second for lines read together."""

READS_AT_ONCE = 32
"""How many reads of content are done in one pass of the loop: hundreds of uploads make a pass long, and what
others ask takes several passes."""

THREADS = 2
"""How many of those that compute in a thread do so at once."""


class Turn:
    """One for all that computes for as long as it takes to read a batch of lines or a large record.

    Without it twenty streams would have a batch each in one pass of the loop, and everybody else would wait.
    """

    def __init__(self) -> None:
        self.reading = trio.Semaphore(READS_AT_ONCE)
        """To read content that has come: whoever waits for it gets it in the next pass of the loop."""
        self.aside = trio.CapacityLimiter(THREADS)
        """To compute in a thread, without the interpreter's lock."""
        self._line = trio.Lock()
        self.left = TURN_BYTES
        """What can be done before others are to have their turn; it is theirs at 0, and below."""

    def others_had_theirs(self) -> None:
        """To be called where a pass of the loop has ended."""
        self.left = TURN_BYTES

    async def take(self, size: int) -> None:
        """Wait until it is our turn to do what takes as long as so many bytes of JSON.

        Returns at once as long as little has been done since others had their turn; else it is a line, in
        which one moves up in each pass of the loop.
        """
        if size <= self.left:
            self.left -= size
            return
        await own_task()
        async with self._line:
            self.left = TURN_BYTES - min(size, TURN_BYTES)

    def spend(self, size: int) -> None:
        """It took longer, by so much, than `take` was told."""
        self.left -= size
