"""Whether Kafka answers: the brokers that lead partitions in use are asked for a sign of life.

A broker that is gone shows by itself, since its connections break.  One that is frozen, or behind a
network that drops everything, shows only in that nothing comes back, and without traffic in nothing at
all.  So the leaders are asked for their partitions' ends (ListOffsets), which costs them next to nothing.
One answer of any of them is enough: with some brokers gone, the others take records.  It has to come in
time: a cluster whose answers are all late would be silent and well in turns.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

import trio
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from trio_util import periodic

from ingest.faultlog import FaultLog
from ingest.kafka.handles import open_admin

log = logging.getLogger(__name__)

ASK_SECONDS = 0.5
"""How long it takes from an answer to the next question."""
SILENT_SECONDS = 3.0
"""An answer that took so long does not count, and after so long without one Kafka does not answer in time."""
PATIENCE_SECONDS = 10.0
"""After so long a question is asked again."""
MOST_ASKED = 8
"""How many leaders are asked at the most."""

Place: TypeAlias = tuple[str, int]
"""A topic and one of its partitions."""

_NO_OFFSET = -1001  # RD_KAFKA_OFFSET_INVALID: the leader said nothing in time


class Pulse:
    """Asks, until cancelled; in the Trio thread, but for making and closing the client and noting answers."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        leaders: Callable[[], Sequence[Place]],
        delivered: Callable[[], int],
    ) -> None:
        """`leaders` gives partitions whose leaders can be asked, one for each leader, as far as known.

        `delivered` counts up with the records that Kafka has acknowledged.
        """
        self.silent = False
        """Whether there is `trouble`, and nothing was delivered either for `SILENT_SECONDS`: what Kafka would
        be given now would wait behind all that waits already.  A slow cluster is in trouble, not silent."""
        self._settings = settings
        self._leaders = leaders
        self._delivered = delivered
        self._seen = 0
        self._seen_at = -math.inf  # when there were more
        self._limiter = trio.CapacityLimiter(1)
        self._faults = FaultLog(log)
        self._client: AdminClient | None = None
        self._unable: str | None = None  # why there is no client
        self._opened_at = -math.inf
        self._asked: dict[Place, _Question] = {}
        self._silent_since: float | None = None

    @property
    def trouble(self) -> str | None:
        """Why records cannot be expected to be delivered now, as far as answers show."""
        if self._unable is not None:
            return f"Kafka cannot be asked whether it answers ({self._unable})"
        if self._silent_since is None or trio.current_time() - self._silent_since < SILENT_SECONDS:
            return None
        if any(question.answered_in_time for question in self._asked.values()):
            return None  # it has just come
        return "Kafka does not answer in time"

    async def watch(self) -> None:
        """Ask until cancelled."""
        await self._open()
        async for _ in periodic(ASK_SECONDS):
            if self._take_answers() and trio.current_time() - self._opened_at >= PATIENCE_SECONDS:
                await self._open()
            if self._client is not None:
                self._ask(self._client)
            self._look()

    async def _open(self) -> None:
        """Have a new client, once there can be one."""
        while True:
            try:
                await trio.to_thread.run_sync(self._open_anew, limiter=self._limiter)
            except (KafkaException, RuntimeError) as error:  # no memory or no thread for it
                self._unable = str(error)
                self._faults(logging.ERROR, "kafka cannot be asked", {"error": str(error)})
                await trio.sleep(ASK_SECONDS)
            else:
                self._unable = None
                self._opened_at = trio.current_time()
                return

    def _open_anew(self) -> None:
        self.close()
        self._client = open_admin(self._settings)

    def _take_answers(self) -> bool:
        """Whether the client may know no broker any more; see `ingest.kafka.topics.REOPEN_SECONDS`."""
        unanswered = unled = False
        for place, question in list(self._asked.items()):
            if question.ended:
                del self._asked[place]
                if question.answered_in_time:
                    self._silent_since = None
                unanswered = unanswered or not question.answered
                unled = unled or question.unled
        return unled or (unanswered and self.trouble is not None)

    def _ask(self, client: AdminClient) -> None:
        client.poll(0)  # serves its log
        leaders = self._leaders()[:MOST_ASKED]
        if not leaders:  # nobody to ask, so nobody is silent
            self._silent_since = None
            self._asked.clear()
        for topic, partition in leaders:
            place = (topic, partition)
            if place not in self._asked:
                if self._silent_since is None:
                    self._silent_since = trio.current_time()
                latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
                asked = {TopicPartition(*place): latest}
                (answer,) = client.list_offsets(asked, request_timeout=PATIENCE_SECONDS).values()
                self._asked[place] = _Question(answer)

    def _look(self) -> None:
        delivered, now = self._delivered(), trio.current_time()
        if delivered != self._seen:
            self._seen, self._seen_at = delivered, now
        self.silent = self.trouble is not None and now - self._seen_at >= SILENT_SECONDS

    def close(self) -> None:
        """Let the client go, if there is one; blocks while its threads end."""
        self._asked = {}  # another thread may be looking through them
        self._client = None


class _Question:
    """One that is asked, and when its answer came: not when a busy loop found it."""

    def __init__(self, answer: Future[Any]) -> None:
        self.ended = False
        self.answered = False
        """Whether it has ended with an answer of a broker."""
        self.unled = False
        """Whether the answer is that nobody leads the partition: it is as old as the list that has it."""
        self.answered_in_time = False
        """Whether that came soon enough."""
        self._asked_at = time.monotonic()
        answer.add_done_callback(self._note)  # the answer keeps this, and not this the answer

    def _note(self, answer: Future[Any]) -> None:  # in librdkafka's thread
        error = answer.exception()
        code = error.args[0].code() if isinstance(error, KafkaException) else 0
        self.unled = code == KafkaError._NOENT
        # librdkafka's other errors, below 0, are of its own making.
        self.answered = self.unled or code > 0 or (error is None and answer.result().offset != _NO_OFFSET)
        self.answered_in_time = self.answered and time.monotonic() - self._asked_at < SILENT_SECONDS
        self.ended = True
