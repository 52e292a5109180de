"""Which topics may be written: Kafka's rule for names, the allow-list, and what the cluster has.

An unknown topic shows in librdkafka only as a timeout of its records, so names are looked up here
first.  The cluster is asked at most once a second, by one task; everyone else reads what it found.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from itertools import islice
from typing import Any, NamedTuple

import trio
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType, TopicMetadata
from trio_util import RepeatedEvent

from ingest.errors import (
    BadRequest,
    KafkaUnavailable,
    Overloaded,
    TopicDenied,
    UnknownPartition,
    UnknownTopic,
)
from ingest.faultlog import FaultLog
from ingest.kafka.handles import open_admin
from ingest.options import TOPIC_NAME
from ingest.parking import own_task
from ingest.producer import Cluster, Topic
from ingest.records import DeliveryReport, Record

log = logging.getLogger(__name__)

LIST_SECONDS = 1.0
"""The least time between two requests for the cluster's topics; a new topic may be 404 for so long."""
MAKE_SECONDS = 0.25
"""The same while topics are made by looking them up, which a cluster does after it has answered."""
MADE_AT_ONCE = 10
"""How many topics one round makes; each is a request, and whoever waits longer is refused."""
REFRESH_SECONDS = 10.0
"""How old the list of topics gets while nobody asks for an unknown one."""
ANSWER_SECONDS = 0.9
"""How long the cluster has to answer one request.

A call of librdkafka cannot be ended early: after a cancellation its thread may live on for so long.
"""
REOPEN_SECONDS = 5.0
"""After so long without a broker to ask, the client that asks is made anew: one that was told once that there
are no brokers may never look for them again (librdkafka 2.16, its issue 5301)."""
CLOSE_SECONDS = 0.3
"""How long closing waits for a request that is under way."""
ANY_TOPICS = 100
"""How many topics are looked through for leaders where none is in use."""
BATCH_OVERHEAD_BYTES = 128
"""What a batch of one record has beyond value, key and headers: 61 bytes of batch header, the record's
own varints, and a margin for header lengths (KIP-98, message format v2)."""


def check_name(name: str, allow: Collection[str] | None = None) -> None:
    """Hold a topic's name against Kafka's rule and the allow-list.

    Raises `BadRequest` for a name Kafka does not take, `TopicDenied` for an internal one (`__…`) or
    one that is not in `allow`.
    """
    if not TOPIC_NAME.fullmatch(name):
        shown = name if len(name) <= 60 else name[:60] + "…"
        raise BadRequest(
            f"topic {shown!a} is not a name Kafka takes: 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'"
        )
    if name.startswith("__"):
        raise TopicDenied(f"topic {name} is internal to Kafka and cannot be written")
    if allow is not None and name not in allow:
        raise TopicDenied(f"topic {name} is not in topics.allow")


class Topics:
    """What is known of the cluster's topics, kept fresh by `watch`."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        record_bytes: int,
        allow: Collection[str] | None,
        expected: Collection[str],
        auto_create: bool,
        describe: bool,
    ) -> None:
        """`expected` are looked up unasked; `describe` asks for each topic's max.message.bytes."""
        self._settings = settings
        self._record_bytes = record_bytes
        self._allow = None if allow is None else frozenset(allow)
        self._expected = frozenset(expected)
        self._auto_create = auto_create
        self._describes = describe
        self._limiter = trio.CapacityLimiter(1)
        self._faults = FaultLog(log)
        self._admin: AdminClient | None = None  # only touched by the thread that asks
        self._unheard_at: float | None = None  # the same; since when it finds no broker
        self._quiet = threading.Event()  # no thread asks just now
        self._quiet.set()
        self._closed = False
        self._listed: Mapping[str, Topic] = {}
        self._cluster_id = ""
        self._listed_at = -math.inf
        self._limits: dict[str, int] = {}  # topics in use, with the largest record each takes
        self._batches: dict[str, int | None] = {}  # the same, with the topic's own limit of a batch
        self._asked: dict[str, int] = {}  # names that wait for a round, and how many callers wait for each
        self._made: dict[str, float] = {}  # names looked up so that the cluster makes them, and when
        self._doubted = False
        self._wake = RepeatedEvent()
        self._round_over = RepeatedEvent()
        self._down: str | None = None  # why no broker can be reached
        self._unable: str | None = None  # why nobody can be asked
        self.leaders: list[tuple[str, int]] = []
        """A partition of each broker that leads one: of topics in use, or while there are none, of any."""
        self.batch_bytes: int | None = None
        """The smallest max.message.bytes among the topics in use; a batch above it is refused whole."""

    @property
    def reachable(self) -> bool:
        """Whether the cluster has been heard of, and is not known to be down."""
        return self._down is None and self._listed_at > -math.inf

    @property
    def trouble(self) -> str | None:
        """Why records cannot be expected to be delivered now, as far as the last look shows."""
        if self._down is not None:
            return f"Kafka cannot be reached ({self._down})"
        if self._unable is not None:
            return f"Kafka cannot be asked for its topics ({self._unable})"
        if self._listed_at == -math.inf:
            return "Kafka has not been heard of yet"
        return None

    def doubt(self) -> None:
        """Something says that the cluster may be down or has changed: ask it soon."""
        self._doubted = True
        self._wake.set()

    async def cluster(self) -> Cluster:
        """What the last look has shown; the first is waited for, for as long as that of a topic.

        Raises as `ingest.producer.Producer.cluster` says.
        """
        if self._listed_at == -math.inf:
            await self._first_look()
        return Cluster(self._cluster_id, self._listed, self._limits)

    async def _first_look(self) -> None:
        await own_task()
        with trio.move_on_after(LIST_SECONDS + ANSWER_SECONDS):
            while self._listed_at == -math.inf:
                if self._down is not None:
                    raise self._unreachable(self._down)
                if self._unable is not None:
                    raise KafkaUnavailable(self.trouble or self._unable)
                await self._round_over.wait()
            return
        raise self._too_slow()

    def named(self, report: DeliveryReport, record: Record) -> DeliveryReport:
        """A record's report; where there is no such partition it names that, and says how many there are."""
        if not isinstance(report, UnknownPartition) or record.partition is None:
            return report
        listed = self._listed.get(record.topic)
        there = "" if listed is None else f"; it has {len(listed.leaders)}, numbered from 0"
        return UnknownPartition(f"topic {record.topic} has no partition {record.partition}{there}")

    def known(self, name: str) -> int | None:
        """What `require` returns, where it is known at once and Kafka can be reached."""
        return self._limits.get(name) if self._down is None else None

    async def require(self, name: str) -> int:
        """The most bytes a record for topic `name` may have, if it may be written at all.

        A topic in use is answered at once.  Another waits for one look at the cluster, unless the list
        is younger than `LIST_SECONDS`; where that look makes topics, it has so long to appear.  Raises as
        `ingest.producer.Producer.require_topic` says.
        """
        limit = self._limits.get(name)
        if limit is None:
            check_name(name, self._allow)
            limit = await self._look_up(name)
        elif self._down is not None:
            raise self._unreachable(self._down)
        return limit

    async def _look_up(self, name: str) -> int:
        self._asked[name] = self._asked.get(name, 0) + 1
        self._wake.set()
        try:
            await own_task()
            with trio.move_on_after(LIST_SECONDS + ANSWER_SECONDS):
                while True:
                    if self._down is not None:
                        raise self._unreachable(self._down)
                    now = trio.current_time()
                    fresh = now - self._listed_at < LIST_SECONDS
                    if self._auto_create and now - self._made.get(name, now) < LIST_SECONDS:
                        fresh = False  # it may be on its way
                    if fresh and name not in self._listed:
                        raise UnknownTopic(f"topic {name} does not exist in the Kafka cluster")
                    await self._round_over.wait()
                    if name in self._limits:
                        return self._limits[name]
            raise self._too_slow()
        finally:
            self._asked[name] -= 1
            if not self._asked[name]:
                del self._asked[name]

    def _too_slow(self) -> Overloaded:
        return Overloaded("the Kafka cluster does not say in time which topics it has")

    def _unreachable(self, why: str) -> KafkaUnavailable:
        return KafkaUnavailable(f"Kafka cannot be reached ({why})")

    async def watch(self) -> None:
        """Keep the list of topics fresh until cancelled.

        A thread that asks a cluster which does not answer then is left: it ends with its request, and lets
        its client go.
        """
        try:
            await self._watch()
        finally:
            self._closed = True

    async def _watch(self) -> None:
        while True:
            attempt_at = trio.current_time()
            asked = frozenset(self._asked)
            known = self._expected | asked | self._limits.keys()
            making = self._unmade(known) if self._auto_create else []
            self._doubted = False
            self._quiet.clear()
            try:
                answer = await trio.to_thread.run_sync(
                    self._ask, known, making, limiter=self._limiter, abandon_on_cancel=True
                )
            except RuntimeError as cause:  # there was no thread to be had; what is known still holds
                self._quiet.set()
                self._unable = str(cause)
                self._faults(logging.ERROR, "kafka not asked for its topics", {"error": str(cause)})
                await trio.sleep(LIST_SECONDS)
                continue
            self._unable = None
            if isinstance(answer, KafkaError):
                self._note_failure(answer)
                pause = LIST_SECONDS
            else:
                self._note(answer)
                self._made |= dict.fromkeys(making, self._listed_at)
                pause = REFRESH_SECONDS
            self._round_over.set()
            unanswered = self._asked.keys() - (self._limits.keys() if self._auto_create else asked)
            if not (unanswered or self._doubted):
                with trio.move_on_after(pause):
                    await self._wake.wait()
            # Topics that are listed already can be looked at now; only listing and making are rationed.
            if not self._asked:
                await trio.sleep_until(attempt_at + LIST_SECONDS)
            elif not self._asked.keys() <= self._listed.keys():
                await trio.sleep_until(attempt_at + (MAKE_SECONDS if self._auto_create else LIST_SECONDS))

    def _unmade(self, names: frozenset[str]) -> list[str]:
        """Which of these topics the next round is to make; one that did not appear is left for a while."""
        now = trio.current_time()
        self._made = {name: at for name, at in self._made.items() if now - at < REFRESH_SECONDS}
        return list(names - self._listed.keys() - self._made.keys())[:MADE_AT_ONCE]

    def _note(self, answer: ClusterTopics) -> None:
        if self._down is not None:
            log.info("kafka reachable")
        self._down = None
        self._listed_at = trio.current_time()
        self._listed = answer.listed
        self._cluster_id = answer.cluster_id
        self.leaders = answer.leaders
        self._batches = answer.batches
        self._limits = {
            name: self._record_bytes if most is None else min(self._record_bytes, most - BATCH_OVERHEAD_BYTES)
            for name, most in answer.batches.items()
        }
        self.batch_bytes = min((most for most in answer.batches.values() if most is not None), default=None)
        # With nobody to lead them, nobody can be asked for a sign of life either: that does not stay so.
        leaderless = bool(answer.batches) and not answer.leaders
        self._doubted = self._doubted or leaderless or answer.undescribed > 0

    def _note_failure(self, error: KafkaError) -> None:
        if error.code() == KafkaError._TIMED_OUT and self._listed_at > -math.inf:
            # One slow broker: the others may well take records, so the deadlines decide.  And brokers that
            # were down come back like this where they have much to do.
            self._down = None
            self._faults(logging.INFO, "kafka slow to list its topics", {})
        else:
            if self._down is None:
                log.warning("kafka unreachable", extra={"error": error.str()})
            self._down = error.str()

    def _ask(self, names: frozenset[str], making: list[str]) -> ClusterTopics | KafkaError:
        """One look at the cluster, in a thread.

        What goes wrong is returned: raised through Trio, its traceback would keep the client, and with it
        librdkafka's threads, until some garbage collection.
        """
        try:
            if self._admin is None:
                # A client of its own: its connection is warm when a topic is to be described, and a slow
                # look at the cluster holds up no record.
                self._admin = open_admin(self._settings)
            self._admin.poll(0)  # serves its log; nobody else does
            answer = self._look(self._admin, names, making)
            self._unheard_at = None
            return answer
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.fatal() or self._finds_nobody(reason):
                self._admin = None
                self._unheard_at = None
            return reason
        finally:
            if self._closed:
                self._admin = None
            self._quiet.set()

    def _finds_nobody(self, reason: KafkaError) -> bool:
        """Whether the client has found no broker for `REOPEN_SECONDS`."""
        if reason.code() != KafkaError._TRANSPORT:
            return False
        now = time.monotonic()
        if self._unheard_at is None:
            self._unheard_at = now
        return now - self._unheard_at >= REOPEN_SECONDS

    def _look(self, admin: AdminClient, names: frozenset[str], making: list[str]) -> ClusterTopics:
        for name in making:
            if not self._closed:
                admin.list_topics(name, timeout=ANSWER_SECONDS)  # a look-up by name is what creates it
        cluster = admin.list_topics(timeout=ANSWER_SECONDS)
        topics = cluster.topics
        listed = {name: _topic(topic) for name, topic in topics.items()}
        # What a topic told last time holds until it tells something else.
        batches = {name: self._batches.get(name) for name in names & listed.keys()}
        describes = self._describes and batches and not self._closed
        undescribed = self._describe(admin, batches) if describes else 0
        leaders = _leaders(topics, batches or islice(topics, ANY_TOPICS))
        return ClusterTopics(str(cluster.cluster_id), listed, batches, undescribed, leaders)

    def _describe(self, admin: AdminClient, batches: dict[str, int | None]) -> int:
        """Note each topic's own max.message.bytes (KIP-133); how many should be asked for again."""
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in batches]
        answers: dict[ConfigResource, Future[Any]] = admin.describe_configs(
            resources, request_timeout=ANSWER_SECONDS
        )
        again = 0
        for resource, answer in answers.items():
            # Not raised: the answer would keep the error, its traceback this frame, and that the client.
            error = answer.exception()
            if error is None:
                told = answer.result().get("max.message.bytes")
                if told is not None and told.value is not None:
                    batches[resource.name] = int(told.value)
            # Without the right to describe, it is the broker that refuses what is too large.
            elif not (
                isinstance(error, KafkaException)
                and error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
            ):
                extra = {"topic": resource.name, "error": str(error)}
                self._faults(logging.INFO, "topic not described", extra)
                again += 1
        return again

    def close(self) -> None:
        """Let the client go; blocks while its threads end, but not for a cluster that does not answer."""
        self._quiet.wait(CLOSE_SECONDS)
        self._admin = None


class ClusterTopics(NamedTuple):
    """One look at the cluster."""

    cluster_id: str
    listed: Mapping[str, Topic]
    batches: dict[str, int | None]
    """The topics in use, with each one's own max.message.bytes where the cluster tells it."""
    undescribed: int
    """How many of these could not be asked about this time."""
    leaders: list[tuple[str, int]]
    """See `Topics.leaders`."""


def _topic(topic: TopicMetadata) -> Topic:
    partitions = [topic.partitions[number] for number in sorted(topic.partitions)]
    return Topic(
        tuple(partition.leader for partition in partitions),
        len(partitions[0].replicas) if partitions else 0,
    )


def _leaders(topics: Mapping[str, TopicMetadata], names: Iterable[str]) -> list[tuple[str, int]]:
    leaders: dict[int, tuple[str, int]] = {}
    for name in names:
        for partition in topics[name].partitions.values():
            if partition.leader >= 0:
                leaders.setdefault(partition.leader, (name, partition.id))
    return list(leaders.values())
