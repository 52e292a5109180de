"""What a real cluster says of its topics: sizes, unknown ones, and what `ingest tail` reads of them."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import ingest
from tests.broker.ingest_process import open_ingest
from tests.broker.kafka_server import RealKafka
from tests.client import request

RECORD_BYTES = ingest.Limits().record_bytes
KEY = "k" * 10
OVERHEAD = len(KEY) + len("content-type") + len("text/plain")


@pytest.mark.promises
async def test_the_largest_record_is_known_to_the_byte(
    kafka: RealKafka, new_topic: Callable[..., str], reached: Callable[[int, str], None]
) -> None:
    told = []
    cases = [(new_topic(), over, status) for over, status in ((-1, 200), (0, 200), (1, 413))]
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers) as server:
        for topic, over, status in cases:
            content = b"x" * (RECORD_BYTES + over - OVERHEAD)
            client = await server.connect()
            head = f"POST /topics/{topic}/records?key={KEY}"
            answer = await client.ask(request(head, "Content-Type: text/plain", content=content))
            assert answer.status == status, answer
            if status == 413:
                assert "limits.record_bytes" in answer.json["message"]
            stored = [record.value for record in kafka.read_all(topic)]
            assert stored == ([content] if status == 200 else [])
            told.append(f"{RECORD_BYTES + over:,} bytes: {answer.status}")
    reached(12, "; ".join(told))


async def test_a_topic_with_a_limit_of_its_own_is_never_a_5xx(
    kafka: RealKafka, new_topic: Callable[..., str]
) -> None:
    most = 50_000
    topic = new_topic(1, {"max.message.bytes": str(most)})
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers) as server:
        statuses = {}
        for size in (most // 2, most - 200, most - 100, most, most + 1, 2 * most):
            client = await server.connect()  # a 413 for long content closes
            answer = await client.ask(request(f"POST /topics/{topic}/records", content=b"x" * size))
            statuses[size] = answer.status
        assert statuses[most // 2] == statuses[most - 200] == 200, statuses
        assert statuses[most + 1] == statuses[2 * most] == 413, statuses
        assert set(statuses.values()) == {200, 413}, statuses

        # Small records gather in batches, which must not outgrow the topic's limit either.
        lines = b"".join(b'{"n":%d,"x":"%b"}\n' % (number, b"x" * 1000) for number in range(2000))
        ndjson = request(f"POST /topics/{topic}/records", "Content-Type: application/x-ndjson", content=lines)
        client = await server.connect()
        answer = await client.ask(ndjson)
        assert answer.json == {"accepted": 2000, "failed": 0}, (answer.json, server.log)


async def test_an_unknown_topic_is_404_and_becomes_known_once_created(
    kafka: RealKafka, new_topic: Callable[..., str]
) -> None:
    known = new_topic()
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers) as server:
        client = await server.connect()
        late = f"late-{secrets.token_hex(4)}"
        answer = await client.ask(request(f"POST /topics/{late}/records", content=b"x"))
        assert (answer.status, answer.json["error_code"]) == (404, 40401)
        assert (await client.ask(request(f"POST /topics/{known}/records", content=b"x"))).status == 200
        kafka.create_topic(late)
        with trio.fail_after(5):
            while answer.status == 404:
                answer = await client.ask(request(f"POST /topics/{late}/records", content=b"x"))
        assert answer.status == 200, answer
        answer = await client.ask(
            request(f"POST /topics/{known}/records", "Kafka-Partition: 7", content=b"x")
        )
        assert (answer.status, answer.json["error_code"]) == (404, 40402)


async def test_the_first_record_to_a_new_topic_is_stored_where_the_cluster_makes_topics(
    tmp_path: Path,
) -> None:
    kafka = RealKafka(tmp_path / "kafka", "auto.create.topics.enable=true\n")
    await trio.to_thread.run_sync(kafka.start)
    try:
        making = {"INGEST_TOPICS__AUTO_CREATE": "true"}
        async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers, environ=making) as server:
            client = await server.connect()
            for number in range(5):
                topic = f"new-{number}"
                answer = await client.ask(request(f"POST /topics/{topic}/records", content=b"first"))
                assert answer.status == 200, (answer, server.log)
                assert [record.value for record in kafka.read_all(topic)] == [b"first"]
    finally:
        kafka.stop()


async def test_everything_a_record_can_have_arrives(kafka: RealKafka, new_topic: Callable[..., str]) -> None:
    topic = new_topic(partitions=3)
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers) as server:
        client = await server.connect()
        fields = ["Content-Type: application/json", "Kafka-Header-Trace: abc"]
        fields += ["Kafka-Partition: 2", "Kafka-Timestamp: 1591897790000"]
        answer = await client.ask(
            request(f"POST /topics/{topic}/records?key=k%201", *fields, content=b"\x00\xff")
        )
        assert answer.json == {"topic": topic, "partition": 2, "offset": 0, "timestamp": 1591897790000}
        answer = await client.ask(request(f"DELETE /topics/{topic}/records?key=k1", "Kafka-Partition: 2"))
        assert answer.json["offset"] == 1
    stored, tombstone = kafka.read_all(topic)
    assert stored == (
        2, 0, b"k 1", b"\x00\xff", (("content-type", b"application/json"), ("trace", b"abc")), 1591897790000,
    )  # fmt: skip
    assert tombstone[:5] == (2, 1, b"k1", None, ())


async def test_the_producer_alone_reports_where_each_record_is(
    kafka: RealKafka, new_topic: Callable[..., str]
) -> None:
    topic = new_topic(partitions=3)
    records = [ingest.Record(topic, b"%d" % number, key=b"%d" % (number % 7)) for number in range(1000)]
    async with ingest.open_producer({"bootstrap.servers": kafka.bootstrap_servers}) as producer:
        reports = await producer.send([*records, ingest.Record("there-is-none", b"")])
    *reports, unknown = reports
    assert isinstance(unknown, ingest.UnknownTopic)
    stored = {
        (record.partition, record.offset): (record.key, record.value) for record in kafka.read_all(topic)
    }
    for record, receipt in zip(records, reports, strict=True):
        assert isinstance(receipt, ingest.Receipt)
        assert stored[receipt.partition, receipt.offset] == (record.key, record.value)


def test_tail_prints_what_a_topic_has(kafka: RealKafka, new_topic: Callable[..., str]) -> None:
    topic = new_topic()

    async def write() -> None:
        async with ingest.open_producer({"bootstrap.servers": kafka.bootstrap_servers}) as producer:
            await producer.send([ingest.Record(topic, b"\xff", key=b"k"), ingest.Record(topic, None)])

    trio.run(write)
    brokers = ["--bootstrap-servers", kafka.bootstrap_servers]
    command = [sys.executable, "-m", "ingest", "tail", topic, *brokers, "--from-beginning", "--count", "2"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert (first["key"], first["value"]) == ("k", {"base64": "/w=="})
    assert (second["key"], second["value"]) == (None, None)


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        ({"cleanup.policy": "compact"}, ""),  # refuses what has no key
        ({}, "Kafka-Timestamp: 9000000000000000"),  # in more than 280,000 years
    ],
    ids=["a record without a key", "a timestamp"],
)
async def test_nobody_is_refused_for_a_record_of_somebody_else(
    kafka: RealKafka, new_topic: Callable[..., str], config: dict[str, str], bad: str
) -> None:
    # What a topic refuses is refused with the whole batch.
    topic = new_topic(1, config)
    statuses: dict[str, set[int]] = {"good": set(), "bad": set()}

    async def send(kind: str, query: str, *fields: str) -> None:
        client = await server.connect()
        head = f"POST /topics/{topic}/records{query}"
        for _ in range(50):
            answer = await client.ask(request(head, *fields, content=kind.encode()))
            statuses[kind].add(answer.status)
            assert answer.status == 200 or answer.json["error_code"] == 40002, answer.json

    gathering = ("--bootstrap-servers", kafka.bootstrap_servers, "--kafka", "linger.ms=20")
    async with open_ingest(*gathering) as server, trio.open_nursery() as nursery:
        for _ in range(4):  # librdkafka has another error for the neighbours of several
            nursery.start_soon(send, "bad", "", *([bad] if bad else []))
        for number in range(4):
            nursery.start_soon(send, "good", f"?key={number}")
    assert statuses == {"good": {200}, "bad": {400}}
    assert {record.value for record in kafka.read_all(topic)} == {b"good"}
