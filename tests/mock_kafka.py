"""librdkafka's mock cluster, with the switches to break it: for faults, never for verdicts on loss.

It runs in this process, driven through ctypes on the library that confluent_kafka brings along
(`rdkafka_mock.h`), which is an experimental interface of librdkafka's.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition, cimpl

from ingest.budget import Budget
from ingest.kafka.producer import KafkaProducer, open_kafka_producer
from ingest.records import Record

PRODUCE = 0
LIST_OFFSETS = 2
METADATA = 3
INIT_PRODUCER_ID = 22
"""Kafka's API keys (https://kafka.apache.org/protocol#protocol_api_keys)."""


def code(name: str) -> int:
    """The number of an error by its name: `_MSG_TIMED_OUT`, `NOT_ENOUGH_REPLICAS`."""
    number: int = getattr(KafkaError, name)
    return number


_PRODUCER = 0  # rd_kafka_type_t
_ALL_BROKERS = -1
_library = ctypes.CDLL(cimpl.__file__)  # symbols of what it is linked with are found through it


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_library, name)
    function.restype = result
    function.argtypes = arguments
    return function


_pointer, _text, _short, _int = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int16, ctypes.c_int32
_size, _size_out = ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)
_conf_new = _function("rd_kafka_conf_new", _pointer)
_conf_set = _function("rd_kafka_conf_set", _int, _pointer, _text, _text, _text, _size)
_new = _function("rd_kafka_new", _pointer, _int, _pointer, _text, _size)
_destroy = _function("rd_kafka_destroy", None, _pointer)
_free = _function("rd_kafka_mem_free", None, _pointer, _pointer)
_cluster_new = _function("rd_kafka_mock_cluster_new", _pointer, _pointer, _int)
_cluster_destroy = _function("rd_kafka_mock_cluster_destroy", None, _pointer)
_bootstraps = _function("rd_kafka_mock_cluster_bootstraps", _text, _pointer)
_topic_create = _function("rd_kafka_mock_topic_create", _int, _pointer, _text, _int, _int)
_topic_set_error = _function("rd_kafka_mock_topic_set_error", None, _pointer, _text, _int)
_set_down = _function("rd_kafka_mock_broker_set_down", _int, _pointer, _int)
_set_up = _function("rd_kafka_mock_broker_set_up", _int, _pointer, _int)
_set_rtt = _function("rd_kafka_mock_broker_set_rtt", _int, _pointer, _int, _int)
_push_errors = _function(
    "rd_kafka_mock_push_request_errors_array", None, _pointer, _short, _size, ctypes.POINTER(_int)
)
_clear_errors = _function("rd_kafka_mock_clear_request_errors", None, _pointer, _short)
_set_leader = _function("rd_kafka_mock_partition_set_leader", _int, _pointer, _text, _int, _int)
_track = _function("rd_kafka_mock_start_request_tracking", None, _pointer)
_requests = _function("rd_kafka_mock_get_requests", ctypes.POINTER(_pointer), _pointer, _size_out)
_request_key = _function("rd_kafka_mock_request_api_key", _short, _pointer)
_request_time = _function("rd_kafka_mock_request_timestamp", ctypes.c_int64, _pointer)
_request_destroy = _function("rd_kafka_mock_request_destroy", None, _pointer)
_test_fatal_error = _function("rd_kafka_test_fatal_error", _int, _pointer, _int, _text)


def fail_for_good(name: str) -> None:
    """Raise this error as a fatal one in every producer of this process, as librdkafka itself would."""
    for handle in gc.get_objects():
        if isinstance(handle, Producer):
            # What confluent_kafka keeps of librdkafka's comes first in its object.
            pointer = ctypes.c_void_p.from_address(id(handle) + object.__basicsize__)
            _test_fatal_error(pointer, code(name), b"a test")


class MockKafka:
    """A running mock cluster; made by `open_mock_kafka`."""

    def __init__(self, cluster: int) -> None:
        self._cluster = cluster
        self.address = _bootstraps(cluster).decode()
        """What `bootstrap.servers` takes."""

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        """The cluster's thread misses some of our calls for a second, unless a connection wakes it."""
        poke = threading.Timer(0.01, self._connect)
        poke.start()
        try:
            yield
        finally:
            poke.cancel()
            poke.join()

    def _connect(self) -> None:
        for address in self.address.split(","):
            host, _, port = address.partition(":")
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, int(port))):
                pass

    def create(self, topic: str, partitions: int = 1, replicas: int = 1) -> None:
        with self._awake():
            error = _topic_create(self._cluster, topic.encode(), partitions, replicas)
        assert error == 0, KafkaError(error).str()

    def lead(self, topic: str, partition: int, broker: int) -> None:
        """Make `broker`, from 1, the partition's leader."""
        with self._awake():
            assert _set_leader(self._cluster, topic.encode(), partition, broker) == 0

    def set_topic_error(self, topic: str, code: int) -> None:
        """What look-ups of `topic` answer from now on; 0 heals it."""
        with self._awake():
            _topic_set_error(self._cluster, topic.encode(), code)

    def down(self, broker: int = _ALL_BROKERS) -> None:
        """One broker, from 1, or every one closes its connections and refuses new ones."""
        with self._awake():
            assert _set_down(self._cluster, broker) == 0

    def up(self, broker: int = _ALL_BROKERS) -> None:
        with self._awake():
            assert _set_up(self._cluster, broker) == 0

    def set_latency(self, seconds: float, broker: int = _ALL_BROKERS) -> None:
        """How long every broker, or one of them (counted from 1), takes to answer."""
        with self._awake():
            assert _set_rtt(self._cluster, broker, int(seconds * 1000)) == 0

    def fail(self, api_key: int, *names: str) -> None:
        """Answer the next requests of this kind with these errors; `_TRANSPORT` hangs up."""
        codes = [code(name) for name in names]
        _push_errors(self._cluster, api_key, len(codes), (_int * len(codes))(*codes))

    def stop_failing(self, api_key: int) -> None:
        """Forget the errors of `fail` that have not been answered yet."""
        _clear_errors(self._cluster, api_key)

    def track(self) -> None:
        """Keep every request's kind and time from now on, for `requests`."""
        _track(self._cluster)

    def requests(self, api_key: int) -> list[float]:
        """When requests of this kind came, in seconds."""
        count = ctypes.c_size_t()
        found = _requests(self._cluster, ctypes.byref(count))
        times = []
        for index in range(count.value):
            if _request_key(found[index]) == api_key:
                times.append(_request_time(found[index]) / 1e6)
            _request_destroy(found[index])
        _free(None, found)
        return times

    def read(self, topic: str) -> list[Record]:
        """Everything in `topic`, in order within each partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "reader",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        try:
            open_ends = set(consumer.list_topics(topic, timeout=5).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, partition, 0) for partition in open_ends])
            found = []
            while open_ends:
                message = consumer.poll(5)
                assert message is not None, f"the ends of partitions {open_ends} of {topic} were not found"
                error, partition = message.error(), message.partition()
                assert partition is not None
                if error is None:
                    headers: Any = message.headers() or ()
                    key, value = message.key(), message.value()
                    assert not isinstance(key, str)
                    assert not isinstance(value, str)
                    found.append(Record(topic, value, key, tuple(headers), partition, message.timestamp()[1]))
                else:
                    assert error.code() == code("_PARTITION_EOF"), error
                    open_ends.discard(partition)
            return found
        finally:
            consumer.close()

    def values(self, topic: str) -> list[bytes | None]:
        """The values of everything in `topic`, in order within each partition."""
        return [record.value for record in self.read(topic)]

    @contextlib.asynccontextmanager
    async def open_producer(
        self,
        *,
        budget: Budget | None = None,
        answer_seconds: float = 5,
        record_bytes: int = 1_000_000,
        inside: bool = True,
        **settings: str | int | bool,
    ) -> AsyncIterator[KafkaProducer]:
        """A `KafkaProducer` on this cluster; `settings` are librdkafka's, with `_` for the dots."""
        async with open_kafka_producer(
            {
                "bootstrap.servers": self.address,
                "acks": "all",
                "enable.idempotence": True,
                "allow.auto.create.topics": False,
                "linger.ms": 0,
                "message.timeout.ms": 1500,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 50,
                "log_level": 0,
            }
            | {name.replace("_", "."): value for name, value in settings.items()},
            budget=budget or Budget(64 << 20),
            record_bytes=record_bytes,
            answer_seconds=answer_seconds,
            inside=inside,
        ) as producer:
            yield producer


@contextlib.contextmanager
def open_mock_kafka(brokers: int = 1) -> Iterator[MockKafka]:
    """Run a mock cluster of so many brokers."""
    errors = ctypes.create_string_buffer(512)
    settings = _conf_new()
    assert _conf_set(settings, b"log_level", b"0", errors, len(errors)) == 0, errors.value
    handle = _new(_PRODUCER, settings, errors, len(errors))
    assert handle, errors.value
    cluster = _cluster_new(handle, brokers)
    try:
        yield MockKafka(cluster)
    finally:
        _cluster_destroy(cluster)
        _destroy(handle)
