"""`serve` inside a Trio program: as a library, its drain, its abandonment, and Kafka that is not there."""

from __future__ import annotations

import logging
import os
import signal
import ssl
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import ingest
from ingest.delivery import Ledger
from ingest.testing import MemoryProducer, StallingProducer
from tests.client import Client, chunk, request
from tests.mock_kafka import MockKafka, open_mock_kafka
from tests.serving import CONFIG, FREE_PORT, HANGS, OFF, connect, serve, serving

CERTIFICATE = str(Path(__file__).parent / "http" / "localhost.pem")
POST = request("POST /", content=b"x")
QUEUED = request("POST /", "Prefer: respond-async", content=b"y")
LINES = "Content-Type: application/x-ndjson"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the address of a broker inside is written."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


async def ask(server: ingest.Server, data: bytes) -> int:
    async with connect(server) as client:
        return (await client.ask(data)).status


def before(
    kafka: MockKafka, *, grace_seconds: float, settings: dict[str, int] | None = None
) -> ingest.Config:
    """A service before this cluster, with librdkafka's `settings`."""
    return ingest.Config(
        management=OFF,
        http=FREE_PORT,
        shutdown=ingest.Shutdown(grace_seconds=grace_seconds),
        kafka={"bootstrap.servers": kafka.address, "log_level": 0, **(settings or {})},
    )


def drained(caplog: pytest.LogCaptureFixture) -> dict[str, int]:
    """The counts of the line that ends a drain."""
    (line,) = [record for record in caplog.records if record.message == "drained"]
    return {name: vars(line)[name] for name in ("accepted", "delivered", "failed", "unknown")}


# As a library -----------------------------------------------------------------------------------------------


async def test_example_of_the_design(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    statuses: list[int] = []

    async def run_my_application() -> None:
        statuses.append(await ask(server, request("POST /clicks", content=b"clicked")))

    config = ingest.Config(management=OFF, http=FREE_PORT, routes=[ingest.Route("/clicks", topic="clicks")])
    with trio.fail_after(HANGS):
        async with trio.open_nursery() as nursery:
            server: ingest.Server = await nursery.start(ingest.serve, config)
            (report,) = await server.producer.send([ingest.Record("audit", b"started")])
            assert isinstance(report, ingest.Receipt)
            await run_my_application()
            await server.shutdown()
            assert server.ledger.pending == 0
    assert statuses == [200]
    assert drained(caplog) == {"accepted": 2, "delivered": 2, "failed": 0, "unknown": 0}


async def test_pipeline_without_http() -> None:
    with trio.fail_after(HANGS):
        async with ingest.open_producer({}) as producer:
            reports = await producer.send([ingest.Record("audit", b"%d" % n) for n in range(100)])
    assert {type(report) for report in reports} == {ingest.Receipt}
    assert producer.ledger.delivered == 100


async def test_nothing_of_the_program_is_changed() -> None:
    def program() -> tuple[object, ...]:
        loggers = [logging.getLogger(), logging.getLogger("ingest")]
        return (
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            [(each.level, list(each.handlers), each.propagate) for each in loggers],
            trio.to_thread.current_default_thread_limiter().borrowed_tokens,
        )

    before = program()
    async with serving() as server:
        assert await ask(server, POST) == 200
        assert program() == before


async def test_producer_that_was_given_stays_its_owners() -> None:
    producer = MemoryProducer()
    async with serving(producer) as server:
        assert server.producer is producer
        assert server.brokers == ""
        assert await ask(server, POST) == 200
        await server.shutdown()
    (report,) = await producer.send([ingest.Record("t", b"after")])
    assert isinstance(report, ingest.Receipt)


async def test_tls_is_served() -> None:
    config = ingest.Config(
        management=OFF, http=ingest.HTTP(port=0, tls_certificate_file=CERTIFICATE, tls_key_file=CERTIFICATE)
    )
    async with serving(MemoryProducer(), config) as server:
        assert server.url.startswith("https://127.0.0.1:")
        port = urlsplit(server.url).port
        assert port is not None
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1",
            port,
            https_compatible=True,
            ssl_context=ssl.create_default_context(cafile=CERTIFICATE),
        )
        async with stream:
            assert (await Client(stream).ask(POST)).status == 200


async def test_port_in_use_is_a_wrong_configuration_and_leaves_nothing_open() -> None:
    async with serving(MemoryProducer()) as server:
        port = urlsplit(server.url).port
        assert port is not None
        config = ingest.Config(management=OFF, http=ingest.HTTP(port=port))
        async with trio.open_nursery() as nursery:
            with pytest.raises(ingest.ConfigError, match=f"port {port}: Address already in use"):
                await nursery.start(ingest.serve, config)
        assert await ask(server, POST) == 200


async def test_wrong_setting_of_librdkafka_is_a_wrong_configuration() -> None:
    config = ingest.Config(management=OFF, http=FREE_PORT, kafka={"foo": "bar"})
    async with trio.open_nursery() as nursery:
        with pytest.raises(ingest.ConfigError, match="foo"):
            await nursery.start(ingest.serve, config)


# Drain ------------------------------------------------------------------------------------------------------


async def test_shutdown_finishes_what_was_begun_in_every_state(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    producer = StallingProducer()
    async with serving(producer) as server, AsyncExitStack() as clients:

        async def client() -> Client:
            return await clients.enter_async_context(connect(server))

        idle, fresh, in_head, in_content, in_lines, waiting = [await client() for _ in range(6)]
        assert (await idle.ask(request("PUT /"))).status == 405
        await in_head.send(POST[:10])
        await in_content.send(POST[:-1])
        await in_lines.send(request("POST /", LINES, CHUNKED) + chunk(b"1\n"))
        await waiting.send(POST)
        await trio.testing.wait_all_tasks_blocked()
        assert producer.pending == 2

        ended = trio.Event()

        async def stop() -> None:
            await server.shutdown()
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            assert await idle.rest() == b""
            assert await fresh.rest() == b""
            with pytest.raises(OSError, match="connect"):
                await client()
            await in_head.send(POST[10:])
            await in_content.send(POST[-1:])
            await in_lines.send(chunk(b"2\n") + chunk(b""))
            await trio.testing.wait_all_tasks_blocked()
            assert producer.pending == 5
            assert not ended.is_set()
            producer.release()
            for begun in (in_head, in_content, in_lines, waiting):
                answer = await begun.answer()
                assert (answer.status, answer.closes) == (200, True)
                assert await begun.rest() == b""
                await begun.close()
    assert drained(caplog) == {"accepted": 5, "delivered": 5, "failed": 0, "unknown": 0}


async def test_service_still_serves_during_the_drain_delay() -> None:
    config = ingest.Config(management=OFF, http=FREE_PORT, shutdown=ingest.Shutdown(drain_delay_seconds=20))
    async with serving(MemoryProducer(), config) as server, connect(server) as before:
        await before.ask(POST)
        server.stop_requested.set()
        await trio.testing.wait_all_tasks_blocked()
        async with connect(server) as after:
            for client in (before, after):
                answer = await client.ask(POST)
                assert (answer.status, answer.closes) == (200, False)


async def test_every_request_of_busy_clients_is_answered_through_a_drain() -> None:
    producer = MemoryProducer()
    answered = 0
    busy = trio.Event()

    async def client(server: ingest.Server) -> None:
        nonlocal answered
        async with connect(server) as connected:
            while not (answer := await connected.ask(POST)).closes:
                assert answer.status == 200
                answered += 1
                if answered > 500:
                    busy.set()
            answered += 1

    async with serving(producer) as server, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client, server)  # a request without an answer is an error here
        await busy.wait()
        await server.shutdown()
    assert answered == len(producer.records)


async def test_shutdown_does_not_outlast_its_grace(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = ingest.Config(management=OFF, http=FREE_PORT, shutdown=ingest.Shutdown(grace_seconds=1.5))
    producer = StallingProducer()
    async with serving(producer, config) as server, connect(server) as slow, connect(server) as waiting:
        await slow.send(POST[:-1])
        await waiting.send(POST)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await server.shutdown()
        assert trio.current_time() - began < HANGS / 2
        assert await waiting.rest() == b""
    assert drained(caplog)["accepted"] == 1


async def test_what_the_grace_leaves_is_answered_before_the_connections_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with open_mock_kafka() as kafka:
        kafka.create("events")
        config = before(kafka, grace_seconds=1.5)
        async with serving(config=config) as server, connect(server) as client:
            assert (await client.ask(POST)).status == 200
            kafka.down()
            await client.send(POST)
            async with connect(server) as queued:
                assert (await queued.ask(QUEUED)).status == 202
            await server.shutdown()
            answer = await client.answer()
            assert (answer.status, answer.json["outcome"], answer.closes) == (504, "unknown", True)
            assert server.ledger.lost == 1
    assert drained(caplog) == {"accepted": 3, "delivered": 1, "failed": 0, "unknown": 2}


async def test_content_without_an_end_is_answered_before_the_grace_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    config = ingest.Config(management=OFF, http=FREE_PORT, shutdown=ingest.Shutdown(grace_seconds=1.5))
    async with serving(MemoryProducer(), config) as server, AsyncExitStack() as clients:
        silent, busy, record = [await clients.enter_async_context(connect(server)) for _ in range(3)]
        await silent.send(request("POST /", LINES, CHUNKED) + chunk(b"1\n2\n"))
        await busy.send(request("POST /", LINES, CHUNKED))
        await record.send(POST[:-1])
        sending = trio.CancelScope()

        async def keep_sending() -> None:
            with sending:
                while True:
                    await busy.send(chunk(b"1\n"))
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.shutdown)
            nursery.start_soon(keep_sending)
            answer = await silent.answer()
            assert (answer.status, answer.closes) == (504, True)
            assert answer.json["accepted"] == 2
            assert answer.json["retriable"] is False
            answer = await busy.answer()
            assert (answer.status, answer.closes) == (504, True)
            assert answer.json["accepted"] > 2
            sending.cancel()
            answer = await record.answer()
            assert (answer.status, answer.json["outcome"], answer.closes) == (503, "not_written", True)
    assert drained(caplog)["unknown"] == 0


async def test_a_drain_does_not_wait_for_linger_while_connections_are_open() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("events")
        config = before(kafka, grace_seconds=4, settings={"linger.ms": 7000})
        async with serving(config=config) as server, AsyncExitStack() as clients:
            waiting, queued, unfinished, late = [
                await clients.enter_async_context(connect(server)) for _ in range(4)
            ]
            await waiting.send(POST)
            assert (await queued.ask(QUEUED)).status == 202
            await unfinished.send(POST[:-1])
            await late.send(QUEUED[:-1])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.shutdown)
                assert (await waiting.answer()).status == 200
                await late.send(QUEUED[-1:])  # it drains, and still takes what its connections bring
                assert (await late.answer()).status == 202
                assert (await unfinished.answer()).status == 503
                await unfinished.close()
            assert server.ledger == Ledger(accepted=3, delivered=3)
        assert len(kafka.values("events")) == 3


async def test_lines_that_come_until_a_drain_waits_no_more_are_delivered() -> None:
    with open_mock_kafka() as kafka:
        kafka.create("events")
        config = before(kafka, grace_seconds=3)
        async with serving(config=config) as server, connect(server) as client:
            assert (await client.ask(POST)).status == 200
            kafka.set_latency(0.2)
            sending = trio.CancelScope()

            async def keep_sending() -> None:
                with sending:
                    while True:
                        await client.send(chunk(b"1\n"))
                        await trio.sleep(0.02)

            async with trio.open_nursery() as nursery:
                await client.send(request("POST /", LINES, CHUNKED))
                nursery.start_soon(keep_sending)
                nursery.start_soon(server.shutdown)
                answer = await client.answer()
                sending.cancel()
            assert answer.json["failed"] == 0
            accepted = answer.json["accepted"] + 1
            assert server.ledger == Ledger(accepted=accepted, delivered=accepted)


async def test_shutdown_twice_is_shutdown() -> None:
    async with serving(MemoryProducer()) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.shutdown)
        await server.shutdown()
        await server.shutdown()


async def test_who_waits_for_a_shutdown_is_let_go_when_the_service_is_cancelled() -> None:
    async with trio.open_nursery() as waiting, serving(StallingProducer()) as server:
        waiting.cancel_scope.deadline = trio.current_time() + HANGS
        async with connect(server) as client:
            await client.send(POST)
            await trio.testing.wait_all_tasks_blocked()
            waiting.start_soon(server.shutdown)
            await server.stop_requested.wait()
    assert not waiting.cancel_scope.cancelled_caught


# Kafka is not there -----------------------------------------------------------------------------------------


async def test_service_starts_without_kafka_and_answers_503() -> None:
    config = ingest.Config(
        management=OFF, http=FREE_PORT, kafka={"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    )
    async with serving(config=config) as server, connect(server) as client:
        answer = await client.ask(POST)
        assert (answer.status, answer.json["outcome"]) == (503, "not_written")
        assert "retry-after" in answer.fields
        assert server.brokers == "127.0.0.1:1"
        assert server.ledger.accepted == 0


# Abandoned --------------------------------------------------------------------------------------------------


def descriptors() -> set[str]:
    """What is open, but for pipes: a server has none, and librdkafka's clients of other tests have theirs."""
    numbers = os.listdir("/proc/self/fd")
    opened = {os.readlink(f"/proc/self/fd/{number}") for number in numbers if _is_open(number)}
    return {name for name in opened if not name.startswith("pipe:")}


def _is_open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def threads() -> int:
    """Threads of this process, also those of librdkafka, but for the idle ones that Trio keeps for reuse."""
    kept = sum(thread.name.startswith("Trio thread") for thread in threading.enumerate())
    return len(os.listdir("/proc/self/task")) - kept


linux = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts what Linux shows in /proc")


@linux
@pytest.mark.parametrize("given", [True, False], ids=["memory", "broker inside"])
async def test_cancelling_is_prompt_and_leaves_no_socket_and_no_thread(given: bool) -> None:
    async def use(server: ingest.Server, clients: AsyncExitStack) -> None:
        for sent in (b"", POST[:10], POST[:-1], request("POST /", LINES, CHUNKED) + chunk(b"1\n"), 50 * POST):
            client = await clients.enter_async_context(connect(server))
            await client.send(sent)
        assert await ask(server, POST) == 200

    async with serving(MemoryProducer() if given else None) as server, AsyncExitStack() as clients:
        await use(server, clients)  # what is opened once and for all is opened now
    before, most_threads = descriptors(), threads()
    async with AsyncExitStack() as clients:
        async with serving(MemoryProducer() if given else None) as server:
            await use(server, clients)
            cancelled = trio.current_time()
        assert trio.current_time() - cancelled < HANGS / 2
    assert descriptors() <= before  # what earlier tests had may still have been ending
    assert threads() <= most_threads


@linux
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 300), st.integers(0, 1 << 32), st.booleans())
def test_cancelling_at_any_point_is_clean(steps: int, seed: int, stopping: bool) -> None:
    """Seeded cancellations: whatever is going on after some steps of the loop is given up cleanly."""
    random = Random(seed)  # not Hypothesis's own, which counts how often it is asked

    async def client(server: ingest.Server) -> None:
        async with connect(server) as connected:
            while True:
                whole = random.choice([POST, request("POST /", LINES, content=b"1\n{\n" * 20), 3 * POST])
                cut = random.randrange(1, len(whole))
                await connected.send(whole[:cut])
                await trio.lowlevel.checkpoint()
                await connected.send(whole[cut:])
                await connected.answer()

    async def run() -> None:
        before = descriptors()
        producer = MemoryProducer()
        async with trio.open_nursery() as nursery:
            server: ingest.Server = await nursery.start(serve, CONFIG, producer)
            for _ in range(3):
                nursery.start_soon(client, server)
            for step in range(steps):
                await trio.lowlevel.checkpoint()
                if stopping and step == steps // 2:
                    server.stop_requested.set()
            nursery.cancel_scope.cancel()
        assert descriptors() <= before
        assert producer.ledger.pending == 0

    try:
        trio.run(run, clock=MockClock(rate=1))
    except* (trio.EndOfChannel, OSError, trio.BrokenResourceError):
        assert stopping  # a drain may end the client's connection first
