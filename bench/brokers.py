"""The brokers: librdkafka's mock cluster in a process of its own, and a real Apache Kafka.

Each measurement gets a topic that nobody has written to: on the mock cluster, which cannot delete one, a
fresh cluster with it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from bench.cases import ROUND_TRIPS_MS
from bench.link import Link, open_link
from bench.processes import on_cores, running
from tests.broker.kafka_server import RealKafka, kafka_version
from tests.mock_kafka import code

TOPIC = "measured"
PARTITIONS = 4
READ_SECONDS = 30.0


@dataclass(frozen=True)
class Target:
    """An empty topic, and the process whose CPU time is the broker's."""

    address: str
    topic: str
    pid: int
    link: Link | None = None
    """What is between the server and a broker that is elsewhere."""
    data: Path | None = None
    """Where a broker that stores has its partitions."""


Broker = Callable[[], contextlib.AbstractContextManager[Target]]
"""Gives a new target on each call."""


@contextlib.contextmanager
def open_mock(wanted: frozenset[int]) -> Iterator[Broker]:
    """The mock cluster, on these cores."""

    @contextlib.contextmanager
    def target() -> Iterator[Target]:
        command = [sys.executable, "-m", "bench.mock_broker", TOPIC, str(PARTITIONS)]
        with running(command, wanted, subprocess.DEVNULL, talks=True) as process:
            assert process.stdout is not None
            address = process.stdout.readline().decode().strip()
            assert address, "the mock cluster did not start"
            yield Target(address, TOPIC, process.pid)

    yield target


@contextlib.contextmanager
def open_kafka(wanted: frozenset[int], link: Link | None = None) -> Iterator[Broker]:
    """A real Kafka, on these cores, and at the far end of a link where there is one.

    Raises `tests.broker.kafka_server.KafkaMissing` where Java or its jars are.
    """
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as folder:
        server = (
            RealKafka(Path(folder))
            if link is None
            else RealKafka(Path(folder), host=link.there, inside=link.inside)
        )
        with on_cores(wanted):
            server.start()
        names = iter(range(1_000_000))

        @contextlib.contextmanager
        def target() -> Iterator[Target]:
            config = {"file.delete.delay.ms": "0"}  # or the disk fills with what was measured before
            topic = server.create_topic(f"{TOPIC}-{next(names)}", PARTITIONS, config)
            try:
                yield Target(server.bootstrap_servers, topic, server.pid, link, server.folder / "data")
            finally:
                admin = AdminClient({"bootstrap.servers": server.bootstrap_servers, "log_level": 2})
                admin.delete_topics([topic], operation_timeout=30)[topic].result(30)

        try:
            yield target
        finally:
            server.stop()


@contextlib.contextmanager
def open_remote(wanted: frozenset[int], round_trip_ms: float) -> Iterator[Broker]:
    """A real Kafka in a network namespace of its own.

    Raises `bench.link.LinkMissing` too, where there can be no such link.
    """
    with open_link(round_trip_ms, wanted) as link, open_kafka(wanted, link) as broker:
        yield broker


BROKERS: dict[str, Callable[[frozenset[int]], contextlib.AbstractContextManager[Broker]]] = {
    "mock": open_mock,
    "kafka": open_kafka,
    **{name: partial(open_remote, round_trip_ms=ms) for name, ms in ROUND_TRIPS_MS.items()},
}


def version(broker: str) -> str:
    """Which one it is, for the results."""
    if broker == "mock":
        return "librdkafka's mock cluster"
    away = f" behind {ROUND_TRIPS_MS[broker]} ms" if broker in ROUND_TRIPS_MS else ""
    return f"Apache Kafka {kafka_version()}{away}"


class Stored(NamedTuple):
    """What a topic has."""

    records: int
    batches: int


_BATCH = struct.Struct(">qi11xi")
"""The begin of a record batch of version 2: base offset, length of what comes after these two, and, after the
leader's epoch, magic, CRC and attributes, the last offset's delta (Kafka's documentation, Record Batch)."""
_BEFORE_LENGTH_ENDS = 12


def stored(target: Target) -> Stored | None:
    """Counted in the broker's own files, so that a client need not tell; None where it stores nothing."""
    if target.data is None:
        return None
    records = batches = 0
    for segment in target.data.glob(f"{target.topic}-[0-9]*/*.log"):
        with segment.open("rb") as file:
            while len(head := file.read(_BATCH.size)) == _BATCH.size:
                _, length, last = _BATCH.unpack(head)
                if length <= 0:  # what Kafka has set aside and not written
                    break
                records, batches = records + last + 1, batches + 1
                file.seek(length + _BEFORE_LENGTH_ENDS - _BATCH.size, os.SEEK_CUR)
    return Stored(records, batches)


Place = tuple[int, int]
"""A partition, and an offset in it."""


def read(target: Target, at_least: int) -> dict[Place, bytes]:
    """Every record's value; waits a while for so many, and then gives what there is."""
    consumer = Consumer(
        {
            "bootstrap.servers": target.address,
            "group.id": "bench",  # required by the client; nothing joins it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "log_level": 2,
        }
    )
    found: dict[Place, bytes] = {}
    deadline = time.monotonic() + READ_SECONDS
    try:
        consumer.assign([TopicPartition(target.topic, partition, 0) for partition in range(PARTITIONS)])
        ends = 0
        while (len(found) < at_least or ends < PARTITIONS) and time.monotonic() < deadline:
            for message in consumer.consume(10_000, timeout=0.2):
                error, partition, offset = message.error(), message.partition(), message.offset()
                if error is not None:
                    if error.code() != code("_PARTITION_EOF"):
                        raise KafkaException(error)
                    ends += 1
                    continue
                value = message.value()
                assert partition is not None
                assert offset is not None
                assert isinstance(value, bytes)
                found[partition, offset] = value
    finally:
        consumer.close()
    return found
