"""Whether Kafka answers: the brokers that lead partitions in use are asked for a sign of life.

A broker that is gone shows by itself, since its connections break.  One that is frozen, or behind a
network that drops everything, shows only in that nothing comes back, and without traffic in nothing at
all.  So the leaders are asked for their partitions' ends (ListOffsets), which costs them next to nothing.
One answer of any of them is enough: with some brokers gone, the others take records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

import trio
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from trio_util import periodic

from ingest.kafka.client import open_admin

ASK_SECONDS = 0.5
"""How long it takes from an answer to the next question."""
SILENT_SECONDS = 3.0
"""After so long without any answer, Kafka does not answer."""
PATIENCE_SECONDS = 10.0
"""After so long a question is asked again."""
MOST_ASKED = 8
"""How many leaders are asked at the most."""

Place: TypeAlias = tuple[str, int]
"""A topic and one of its partitions."""

_NO_OFFSET = -1001  # RD_KAFKA_OFFSET_INVALID: the leader said nothing in time


class Pulse:
    """Asks, until cancelled; everything but making and closing the client is in the Trio thread."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        leaders: Callable[[], Sequence[Place]],
    ) -> None:
        """`leaders` gives partitions whose leaders can be asked, one for each leader, as far as known."""
        self._settings = settings
        self._leaders = leaders
        self._limiter = trio.CapacityLimiter(1)
        self._client: AdminClient | None = None
        self._asked: dict[Place, Future[Any]] = {}
        self._silent_since: float | None = None

    @property
    def trouble(self) -> str | None:
        """Why records cannot be expected to be delivered now, as far as answers show."""
        if self._silent_since is None or trio.current_time() - self._silent_since < SILENT_SECONDS:
            return None
        if any(answer.done() and _is_answer(answer) for answer in self._asked.values()):
            return None  # it has just come
        return "Kafka does not answer"

    async def watch(self) -> None:
        """Ask until cancelled."""
        self._client = await trio.to_thread.run_sync(open_admin, self._settings, limiter=self._limiter)
        async for _ in periodic(ASK_SECONDS):
            self._client.poll(0)  # serves its log
            self._take_answers()
            self._ask(self._client)

    def _take_answers(self) -> None:
        for place, answer in list(self._asked.items()):
            if answer.done():
                del self._asked[place]
                if _is_answer(answer):
                    self._silent_since = None

    def _ask(self, client: AdminClient) -> None:
        for topic, partition in self._leaders()[:MOST_ASKED]:
            place = (topic, partition)
            if place not in self._asked:
                if self._silent_since is None:
                    self._silent_since = trio.current_time()
                latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
                asked = {TopicPartition(*place): latest}
                (self._asked[place],) = client.list_offsets(asked, request_timeout=PATIENCE_SECONDS).values()

    def close(self) -> None:
        """Let the client go; blocks while its threads end."""
        self._asked.clear()
        self._client = None


def _is_answer(asked: Future[Any]) -> bool:
    """Whether a broker has said something, be it that it may not tell."""
    error = asked.exception()
    if error is None:
        offset: int = asked.result().offset
        return offset != _NO_OFFSET
    # That there is no such partition was in a broker's list; librdkafka's other errors are of its own making.
    return isinstance(error, KafkaException) and (
        error.args[0].code() > 0 or error.args[0].code() == KafkaError._NOENT
    )
