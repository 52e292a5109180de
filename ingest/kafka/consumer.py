"""What `ingest tail` reads with: every partition of one topic, without a group and without committing.

It blocks, and is not for the service, which never reads from Kafka.  Partitions that are added while it
reads are not noticed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from ingest.errors import ConfigError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""How long the cluster has to tell about the topic."""
POLL_SECONDS = 0.1
"""How late a signal is noticed while no record comes."""


class ConsumedRecord(NamedTuple):
    """A record as Kafka has it."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    """Milliseconds since 1970."""
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None


@contextlib.contextmanager
def open_topic(
    topic: str, settings: Mapping[str, Any], *, from_beginning: bool
) -> Iterator[Iterator[ConsumedRecord]]:
    """Read `topic`; yields an endless iterator, which waits for each next record.

    `settings` are librdkafka's.  It begins with the oldest record there is, or with the first one that is
    written after this call returned.  The order within a partition is Kafka's.

    Raises ConfigError where librdkafka refuses a setting, no broker answers within five seconds, or the
    cluster has no such topic; the iterator raises it where the cluster refuses to let the topic be read.
    """
    errors: list[KafkaError] = []
    own = {
        "group.id": "ingest-tail",  # asked for by librdkafka, and never used: partitions are assigned
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "max.poll.interval.ms": 86_400_000,  # whoever reads our output may take a pause
        "log_level": 0,  # what matters comes to error_cb
        "error_cb": errors.append,
    }
    try:
        consumer = Consumer({**own, **settings})
    except KafkaException as error:
        raise ConfigError(f"[kafka] {error.args[0].str()}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[kafka] {error}") from None
    try:
        consumer.assign(_starts(consumer, topic, from_beginning, errors, settings.get("bootstrap.servers")))
        yield _records(consumer, errors)
    finally:
        consumer.close()


def _starts(
    consumer: Consumer, topic: str, from_beginning: bool, errors: list[KafkaError], brokers: object
) -> list[TopicPartition]:
    try:
        known = consumer.list_topics(topic, timeout=CONNECT_SECONDS).topics[topic]
        if known.error is not None:
            if known.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise ConfigError(f'topic "{topic}": the cluster at {brokers} has no such topic')
            raise ConfigError(f'topic "{topic}": {known.error.str()}')
        starts = [TopicPartition(topic, partition) for partition in sorted(known.partitions)]
        for start in starts:
            # A definite offset, not OFFSET_END, which is looked up later and misses what came until then.
            start.offset = OFFSET_BEGINNING if from_beginning else _end(consumer, start)
    except KafkaException as error:
        consumer.poll(0)  # serves error_cb
        reasons = "; ".join(dict.fromkeys(reason.str() for reason in [error.args[0], *errors]))
        raise ConfigError(f"no answer from {brokers} within {CONNECT_SECONDS:g} s: {reasons}") from None
    errors.clear()
    return starts


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    _, high = consumer.get_watermark_offsets(partition, timeout=CONNECT_SECONDS)
    return int(high)


def _records(consumer: Consumer, errors: list[KafkaError]) -> Iterator[ConsumedRecord]:
    while True:
        message = consumer.poll(POLL_SECONDS)
        while errors:
            log.warning("kafka error", extra={"reason": errors.pop(0).str()})
        if message is not None:
            yield _record(message)


def _record(message: Message) -> ConsumedRecord:
    error = message.error()
    if error is not None:
        raise ConfigError(f'topic "{message.topic()}", partition {message.partition()}: {error.str()}')
    read: Any = message  # annotated for produced messages too: with None where a consumed one has a value
    kind, timestamp = read.timestamp()
    return ConsumedRecord(
        read.topic(),
        read.partition(),
        read.offset(),
        None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        read.key(),
        tuple(read.headers() or ()),
        read.value(),
    )
