from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from confluent_kafka import Producer

from ingest.errors import ConfigError
from ingest.kafka.consumer import ConsumedRecord, open_topic


class Cluster:
    """librdkafka's mock cluster, and a producer that writes to it."""

    def __init__(self) -> None:
        self.producer = Producer(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "127.0.0.1:1", "log_level": 0}
        )
        (broker,) = self.producer.list_topics(timeout=5).brokers.values()
        self.settings = {"bootstrap.servers": f"{broker.host}:{broker.port}"}

    def write(self, topic: str, value: bytes | None, **others: object) -> None:
        self.producer.produce(topic, value, **others)  # type: ignore[arg-type]
        assert self.producer.flush(10) == 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.producer.purge()


def test_reads_every_partition_from_the_oldest_record(cluster: Cluster) -> None:
    for partition in (0, 1, 2, 3):
        cluster.write("all", b"%d" % partition, partition=partition)
    with open_topic("all", cluster.settings, from_beginning=True) as records:
        read = list(islice(records, 4))
    assert {(record.partition, record.offset, record.value) for record in read} == {
        (partition, 0, b"%d" % partition) for partition in (0, 1, 2, 3)
    }


def test_a_record_comes_with_all_that_was_written(cluster: Cluster) -> None:
    headers = [("trace", b"\xff"), ("trace", None)]
    cluster.write("whole", b"v", key=b"k", partition=0, timestamp=1591897790000, headers=headers)
    with open_topic("whole", cluster.settings, from_beginning=True) as records:
        read = next(records)
    expected = ConsumedRecord("whole", 0, 0, 1591897790000, b"k", (("trace", b"\xff"), ("trace", None)), b"v")
    assert read == expected


def test_a_tombstone_has_no_value_and_an_empty_value_is_empty(cluster: Cluster) -> None:
    cluster.write("empty", None, key=b"k", partition=0)
    cluster.write("empty", b"", partition=0)
    with open_topic("empty", cluster.settings, from_beginning=True) as records:
        tombstone, empty = islice(records, 2)
    assert (tombstone.key, tombstone.value) == (b"k", None)
    assert (empty.key, empty.value) == (None, b"")


def test_from_now_on_nothing_older_is_read_and_nothing_newer_is_missed(cluster: Cluster) -> None:
    cluster.write("news", b"old", partition=0)
    with open_topic("news", cluster.settings, from_beginning=False) as records:
        cluster.write("news", b"new", partition=0)
        assert next(records).value == b"new"


def test_the_order_within_a_partition_is_kept(cluster: Cluster) -> None:
    for number in range(100):
        cluster.producer.produce("order", b"%d" % number, partition=1)
    assert cluster.producer.flush(10) == 0
    with open_topic("order", cluster.settings, from_beginning=True) as records:
        assert [record.offset for record in islice(records, 100)] == list(range(100))


def test_an_unknown_topic_is_refused_and_not_created(cluster: Cluster) -> None:
    for _ in range(2):
        with (
            pytest.raises(ConfigError, match=r'topic "nope": the cluster at .* has no such topic'),
            open_topic("nope", cluster.settings, from_beginning=True),
        ):
            pass


def test_brokers_that_do_not_answer_are_named() -> None:
    with (
        pytest.raises(ConfigError, match=r"no answer from 127\.0\.0\.1:1 within 5 s: .*Connection refused"),
        open_topic("any", {"bootstrap.servers": "127.0.0.1:1"}, from_beginning=True),
    ):
        pass


@pytest.mark.parametrize("settings", [{"foo": "bar"}, {"fetch.min.bytes": "many"}])
def test_a_setting_that_librdkafka_refuses_is_named(settings: dict[str, str]) -> None:
    (name,) = settings
    with (
        pytest.raises(ConfigError, match=rf"\[kafka\] .*{name}"),
        open_topic("any", settings, from_beginning=True),
    ):
        pass
