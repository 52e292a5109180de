"""The listener for operators: a service in this process, asked over real sockets."""

from __future__ import annotations

import logging
import resource
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import prometheus_client
import pytest
import trio
import trio.testing
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

import ingest
from ingest.delivery import Ledger
from ingest.management import pages
from ingest.management.exposition import Exposition, ServiceCollector, open_registry
from ingest.metrics import METRICS, MOST_TOPICS, Metrics
from ingest.testing import MemoryProducer, StallingProducer
from tests.client import Answer, Client, request
from tests.mock_kafka import open_mock_kafka

HANGS = 15.0
POST = request("POST /", content=b"x")
ON = ingest.Management(port=0)
CONFIG = ingest.Config(http=ingest.HTTP(port=0), management=ON)


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the address of a broker inside is written."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


class Service:
    """A running service, and connections to it."""

    def __init__(self, server: ingest.Server, connections: AsyncExitStack) -> None:
        self.server = server
        self._connections = connections

    async def connect(self, url: str) -> Client:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        stream = await trio.open_tcp_stream(parts.hostname, parts.port)
        return Client(await self._connections.enter_async_context(stream))

    async def post(self, data: bytes = POST) -> Answer:
        return await (await self.connect(self.server.url)).ask(data)

    async def see(self, line: str, *fields: str) -> Answer:
        client = await self.connect(self.server.management_url)
        answer = await client.ask(request(line, *fields))
        await client.close()
        return answer

    async def metrics(self) -> dict[tuple[str, ...], float]:
        """Every sample, by its name and the values of its labels."""
        answer = await self.see("GET /metrics")
        assert answer.status == 200
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in read_text(answer.content.decode())
            for sample in family.samples
        }

    async def until(self, *, ready: bool) -> Answer:
        while True:
            answer = await self.see("GET /readyz")
            assert answer.json["ready"] is (answer.status == 200)
            assert answer.json["ready"] is not bool(answer.json["reasons"])
            if answer.json["ready"] is ready:
                return answer
            await trio.sleep(0.05)


@asynccontextmanager
async def serving(
    producer: ingest.Producer | None = None, config: ingest.Config = CONFIG
) -> AsyncIterator[Service]:
    async def serve(task_status: trio.TaskStatus[ingest.Server] = trio.TASK_STATUS_IGNORED) -> None:
        await ingest.serve(config, producer=producer, task_status=task_status)

    with trio.fail_after(HANGS):
        async with AsyncExitStack() as connections, trio.open_nursery() as nursery:
            yield Service(await nursery.start(serve), connections)
            nursery.cancel_scope.cancel()


# Health ---------------------------------------------------------------------------------------------


async def test_it_lives_and_is_ready_and_head_says_the_same_without_content() -> None:
    async with serving(MemoryProducer()) as service:
        for path, content in (("/healthz", {"alive": True}), ("/readyz", {"ready": True, "reasons": []})):
            await service.until(ready=True)
            answer = await service.see(f"GET {path}")
            assert (answer.status, answer.json) == (200, content)
            head = await service.see(f"HEAD {path}?verbose")
            assert (head.status, head.content) == (200, b"")
            assert head.fields["content-length"] == str(len(answer.content))
        assert service.server.ready
        assert (await service.see(f"GET {service.server.management_url}/healthz")).status == 200


async def test_what_is_not_there_is_answered_as_everywhere() -> None:
    async with serving(MemoryProducer()) as service:
        answer = await service.see("GET /")
        assert (answer.status, answer.json["error_code"]) == (404, 404)
        answer = await service.see("POST /readyz")
        assert (answer.status, answer.fields["allow"]) == (405, "GET, HEAD")
        client = await service.connect(service.server.management_url)
        await client.send(b"GET /healthz HTTP/1.1\nHost: a\n\n")
        answer = await client.answer()
        assert (answer.status, answer.closes) == (400, True)


async def test_without_management_there_is_no_listener_and_readiness_is_there() -> None:
    off = ingest.Config(http=ingest.HTTP(port=0), management=ingest.Management(enabled=False))
    async with serving(MemoryProducer(), off) as service:
        assert service.server.management_url == ""
        while not service.server.ready:  # noqa: ASYNC110
            await trio.sleep(0.01)  # it has to be looked at


async def test_a_port_in_use_is_a_wrong_configuration_that_names_its_option() -> None:
    async with serving(MemoryProducer()) as service:
        port = urlsplit(service.server.management_url).port
        assert port is not None
        config = ingest.Config(http=ingest.HTTP(port=0), management=ingest.Management(port=port))
        async with trio.open_nursery() as nursery:
            with pytest.raises(
                ingest.ConfigError, match=rf"^management\.port: .* port {port}: Address already"
            ):
                await nursery.start(ingest.serve, config)


async def test_a_producer_in_trouble_makes_it_unready_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    producer = MemoryProducer()
    async with serving(producer) as service:
        await service.until(ready=True)
        producer.trouble = "the test says so"
        answer = await service.until(ready=False)
        assert (answer.status, answer.json["reasons"]) == (503, ["the test says so"])
        assert (await service.see("GET /healthz")).status == 200
        assert (await service.metrics())["ingest_ready",] == 0
        producer.trouble = None
        await service.until(ready=True)
        assert (await service.metrics())["ingest_ready",] == 1
    told = [line.message for line in caplog.records if line.name == "ingest.management.readiness"]
    assert told == ["ready", "not ready", "ready"]


async def test_it_is_unready_at_once_and_still_seen_through_the_drain() -> None:
    config = ingest.Config(
        http=ingest.HTTP(port=0),
        management=ON,
        shutdown=ingest.Shutdown(drain_delay_seconds=20),
    )
    async with serving(MemoryProducer(), config) as service:
        await service.until(ready=True)
        service.server.stop_requested.set()
        assert (await service.see("GET /readyz")).json["reasons"] == ["draining"]
        assert (await service.see("GET /healthz")).status == 200
        assert (await service.post()).status == 200


async def test_it_answers_while_the_service_has_no_connection_left() -> None:
    config = ingest.Config(http=ingest.HTTP(port=0), management=ON, limits=ingest.Limits(connections=1))
    producer = StallingProducer()
    async with serving(producer, config) as service:
        held = await service.connect(service.server.url)
        await held.send(POST)
        await trio.testing.wait_all_tasks_blocked()
        await service.connect(service.server.url)  # waits in the backlog
        metrics = await service.metrics()
        assert metrics["ingest_connections",] == metrics["ingest_connections_limit",] == 1
        assert metrics["ingest_queue_records",] == 1
        assert metrics["ingest_held_bytes",] > 512


async def test_kafka_that_goes_and_comes_is_followed_without_any_request() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("events")
        config = ingest.Config(
            http=ingest.HTTP(port=0),
            management=ON,
            kafka={"bootstrap.servers": kafka.address, "log_level": 0},
        )
        async with serving(config=config) as service:
            await service.until(ready=True)
            kafka.down()
            answer = await service.until(ready=False)
            assert answer.json["reasons"][0].startswith("Kafka cannot be reached")
            kafka.up()
            await service.until(ready=True)


async def test_kafka_that_is_connected_and_silent_is_noticed() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("events")
        config = ingest.Config(
            http=ingest.HTTP(port=0),
            management=ON,
            kafka={"bootstrap.servers": kafka.address, "log_level": 0},
        )
        async with serving(config=config) as service:
            await service.until(ready=True)
            kafka.set_latency(30)
            assert (await service.until(ready=False)).json["reasons"] == ["Kafka does not answer in time"]


async def test_connections_that_say_nothing_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "TIMEOUTS", ingest.Timeouts(head_seconds=60, idle_seconds=60))
    async with serving(MemoryProducer()) as service:
        for _ in range(3 * pages.MOST_CONNECTIONS):
            client = await service.connect(service.server.management_url)
            await client.send(b"G")
        assert (await service.see("GET /healthz")).status == 200


# Metrics --------------------------------------------------------------------------------------------


async def test_requests_and_records_are_counted() -> None:
    async with serving(MemoryProducer()) as service:
        lines = request("POST /", "Content-Type: application/x-ndjson", content=b"1\n2\n{\n")
        statuses = [
            (await service.post(data)).status
            for data in (POST, POST, lines, request("PUT /"), request("POST /none"), b"nonsense\r\n\r\n")
        ]
        metrics = await service.metrics()
    assert statuses == [200, 200, 207, 405, 404, 400]
    requests = {key[1:]: value for key, value in metrics.items() if key[0] == "ingest_http_requests_total"}
    assert requests == {
        ("200", "/"): 2, ("207", "/"): 1, ("405", "(none)"): 1, ("404", "(none)"): 1, ("400", "(none)"): 1,
    }  # fmt: skip
    rejected = {key[1:]: value for key, value in metrics.items() if key[0] == "ingest_rejected_total"}
    assert rejected == {("method_not_allowed",): 1, ("not_found",): 1, ("bad_framing",): 1}
    assert metrics["ingest_records_total", "delivered", "events"] == 4
    assert metrics["ingest_records_accepted_total",] == 4
    assert metrics["ingest_http_request_duration_seconds_count",] == 6
    assert metrics["ingest_http_request_duration_seconds_bucket", "+Inf"] == 6


async def test_a_request_whose_client_goes_is_counted_without_a_status() -> None:
    async with serving(StallingProducer()) as service:
        client = await service.connect(service.server.url)
        await client.send(POST)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(client.stream, trio.SocketStream)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.close()  # which resets it now
        while ("ingest_http_requests_total", "0", "/") not in await service.metrics():  # noqa: ASYNC110
            await trio.sleep(0.01)  # it has to be looked at


async def test_topics_beyond_the_first_hundred_share_a_label() -> None:
    producer = MemoryProducer()
    async with serving(producer) as service:
        for number in range(MOST_TOPICS + 5):
            assert (
                await service.post(request(f"POST /topics/t{number}/records", content=b"x"))
            ).status == 200
        metrics = await service.metrics()
    topics = {key[2] for key in metrics if key[0] == "ingest_records_total"}
    assert len(topics) == MOST_TOPICS + 1
    assert metrics["ingest_records_total", "delivered", "(other)"] == 5


async def test_every_metric_of_the_table_is_there_with_kafka_and_its_statistics() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("events")
        kafka_settings = {"bootstrap.servers": kafka.address, "log_level": 0, "statistics.interval.ms": 100}
        config = ingest.Config(http=ingest.HTTP(port=0), management=ON, kafka=kafka_settings)
        async with serving(config=config) as service:
            assert (await service.post()).status == 200
            assert (await service.post(request("PUT /"))).status == 405
            while True:
                metrics = await service.metrics()
                if ("ingest_kafka_broker_round_trip_seconds", kafka.address, "0.99") in metrics:
                    break
                await service.post()
    assert metrics["ingest_kafka_broker_connected", kafka.address] == 1
    assert metrics["ingest_kafka_queue_records_limit",] == 100_000
    assert metrics["ingest_delivery_seconds_count",] >= 1
    there = {key[0].removesuffix("_count") for key in metrics}
    of_several = {
        "ingest_workers",
        "ingest_workers_ready",
        "ingest_workers_limit",
        "ingest_workers_ended_total",
    }
    assert {metric.name for metric in METRICS} - of_several <= there
    assert "process_open_fds" in there
    assert "python_info" in there


@pytest.mark.parametrize(
    ("files", "wanted", "most"),
    [
        (10, None, 1),
        (256, None, 192),
        (512, None, 384),
        (1024, None, 768),
        (20_000, None, 10_000),
        (128, 1000, 64),
        (20_000, 25_000, 19_744),
        (20_000, 15_000, 15_000),
        (resource.RLIM_INFINITY, None, 10_000),
        (resource.RLIM_INFINITY, 25_000, 25_000),
    ],
)
async def test_connections_are_as_many_as_open_files_leave(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    files: int,
    wanted: int | None,
    most: int,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    limits = ingest.Limits(connections=wanted)
    async with serving(
        MemoryProducer(), ingest.Config(http=ingest.HTTP(port=0), management=ON, limits=limits)
    ) as service:
        assert (await service.metrics())["ingest_connections_limit",] == most
    warnings = [vars(line)["warning"] for line in caplog.records if line.message == "config"]
    told = f"limits.connections = {wanted}: the limit of {files} open files leaves {most}"
    assert (told in warnings) is (wanted is not None and wanted > most)


async def test_openmetrics_is_given_to_who_accepts_it() -> None:
    async with serving(MemoryProducer()) as service:
        await service.post()
        answer = await service.see(
            "GET /metrics",
            "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
        )
    assert answer.fields["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = read_openmetrics(answer.content.decode())  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert "ingest_http_requests" in names


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain;version=a",
        "text/plain; version=",
        "application/openmetrics-text;version=abc",
        "application/openmetrics-text;version=1.x.0",
        "application/openmetrics-text;version=2.0.0",
        "application/openmetrics-text;version=1.0.0;version=1.0.1",
        "application/openmetrics-text;version=0.0.1",
        ";;;,,,;=",
        "\xff;version=\xe9",
    ],
)
async def test_what_cannot_be_given_as_asked_for_is_given_as_text(accept: str) -> None:
    async with serving(MemoryProducer()) as service:
        client = await service.connect(service.server.management_url)
        head = f"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"
        answer = await client.ask(head.encode("latin-1"))
    assert answer.status == 200
    assert answer.fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert list(read_text(answer.content.decode()))


async def test_a_bug_that_each_request_meets_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Exposition, "text", lambda *_: 1 / 0)
    async with serving(MemoryProducer()) as service:
        for _ in range(3):
            client = await service.connect(service.server.management_url)
            await client.send(request("GET /metrics"))
            assert await client.stream.receive_some(100) == b""
    assert [line.message for line in caplog.records].count("connection failed") == 1


def test_a_text_is_built_once_a_second_however_often_it_is_asked_for() -> None:
    now, looked = 0.0, 0

    def look() -> float:
        nonlocal looked
        looked += 1
        return looked

    collector = ServiceCollector(Metrics(), Ledger(), {"ingest_ready": look}, lambda: None)
    exposition = Exposition(open_registry(collector), lambda: now)
    texts = {exposition.text("") for _ in range(3)}
    texts |= {exposition.text(f"text/plain;version={number}") for number in range(3)}
    assert (len(texts), looked) == (1, 1)
    openmetrics = {exposition.text("application/openmetrics-text") for _ in range(3)}
    assert (len(openmetrics), looked) == (1, 2)
    now = 1.0
    assert b"ingest_ready 3.0" in exposition.text("")[0]


async def test_an_embedding_program_can_register_the_metrics_of_several_services_of_its_own() -> None:
    async with serving(MemoryProducer()) as service:
        registry = prometheus_client.CollectorRegistry()
        registry.register(service.server.metrics)
        await service.post()
        text = prometheus_client.generate_latest(registry).decode()
    assert 'ingest_records_total{result="delivered",topic="events"} 1.0' in text
    assert "process_" not in text
    assert prometheus_client.REGISTRY.get_sample_value("ingest_ready") is None
