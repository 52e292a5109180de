"""Row 7: ready follows Kafka within five seconds each way, without a single request; live never does."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import trio

import ingest
from ingest.kafka.client import KafkaClient
from tests.broker.ingest_process import open_ingest
from tests.broker.kafka_server import RealKafka
from tests.client import Client, request

MOST_SECONDS = 5.0
LOOK_SECONDS = 0.05
STEADY_SECONDS = 8.0  # how long it is watched after each turn: it must not flap
HANGS = 60.0


class Probe:
    """Asks for health and readiness as an orchestrator does, and keeps every turn."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.turns: list[tuple[float, bool, list[str]]] = []
        self.dead: list[str] = []
        """Whenever it did not say within a second that it lives."""
        self._turned = trio.Event()

    async def run(self) -> None:
        while True:
            with trio.move_on_after(1) as scope:
                status, _ = await self._ask("/healthz")
                if status != 200:
                    self.dead.append(f"status {status}")
            if scope.cancelled_caught:
                self.dead.append("no answer in a second")
            status, content = await self._ask("/readyz")
            if not self.turns or self.turns[-1][1] is not (status == 200):
                self.turns.append((trio.current_time(), status == 200, content["reasons"]))
                self._turned.set()
                self._turned = trio.Event()
            await trio.sleep(LOOK_SECONDS)

    async def _ask(self, path: str) -> tuple[int, dict[str, list[str]]]:
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with stream:
            answer = await Client(stream).ask(request(f"GET {path}"))
            return answer.status, answer.json

    async def begin(self) -> None:
        """Wait until it is ready, and keep the turns from then on."""
        await self.until(ready=True, since=trio.current_time())
        del self.turns[:-1]

    async def until(self, *, ready: bool, since: float) -> float:
        """Wait until it is ready or not, and then that it stays so; the seconds from `since` to the turn."""
        with trio.fail_after(HANGS):
            while not self.turns or self.turns[-1][1] is not ready:
                await self._turned.wait()
        turned = self.turns[-1][0]
        await trio.sleep(STEADY_SECONDS)
        assert self.turns[-1][0] == turned, f"it flaps: {self.turns}"
        return max(0.0, turned - since)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_ready_follows_a_broker_that_goes_and_comes_back(
    kafka: RealKafka, new_topic: Callable[..., str], reached: Callable[[int, str], None], fault: str
) -> None:
    arguments = ("--bootstrap-servers", kafka.bootstrap_servers, "--topic", new_topic())
    async with open_ingest(*arguments) as server, trio.open_nursery() as nursery:
        found = re.search(r"management url=http://127\.0\.0\.1:(\d+)", "\n".join(server.log))
        assert found is not None
        probe = Probe(int(found[1]))
        nursery.start_soon(probe.run)
        await probe.begin()
        lost, back = [], []
        for _ in range(2):
            gone = trio.current_time()
            await trio.to_thread.run_sync(kafka.kill if fault == "killed" else kafka.freeze)
            lost.append(await probe.until(ready=False, since=gone))
            await trio.to_thread.run_sync(kafka.start if fault == "killed" else kafka.thaw)
            back.append(await probe.until(ready=True, since=trio.current_time()))
        nursery.cancel_scope.cancel()
    reached(
        7,
        f"broker {fault}, no traffic: not ready after {max(lost):.1f} s, ready {max(back):.1f} s after its "
        f"return (the slowest of 2), {len(probe.turns) - 1} turns for 4 causes, never dead",
    )
    assert max(lost) <= MOST_SECONDS
    assert max(back) <= MOST_SECONDS
    assert len(probe.turns) == 5
    assert not probe.dead


async def test_ready_follows_a_poll_thread_that_is_frozen(
    kafka: RealKafka,
    new_topic: Callable[..., str],
    reached: Callable[[int, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing can stop one thread of a process from outside, so a client of the test's own stands still."""
    goes_on = threading.Event()
    goes_on.set()
    wait = KafkaClient.wait

    def freezing(client: KafkaClient, seconds: float, *, flush: bool) -> None:
        goes_on.wait(HANGS)
        wait(client, seconds, flush=flush)

    monkeypatch.setattr(KafkaClient, "wait", freezing)
    config = ingest.Config(
        http=ingest.HTTP(port=0),
        management=ingest.Management(port=0),
        routes=[ingest.Route("/", new_topic())],
        kafka={"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0},
    )
    async with trio.open_nursery() as nursery:
        server: ingest.Server = await nursery.start(ingest.serve, config)
        port = urlsplit(server.management_url).port
        assert port is not None
        probe = Probe(port)
        nursery.start_soon(probe.run)
        await probe.begin()
        try:
            goes_on.clear()
            lost = await probe.until(ready=False, since=trio.current_time())
        finally:
            goes_on.set()
        back = await probe.until(ready=True, since=trio.current_time())
        nursery.cancel_scope.cancel()
    reached(
        7,
        f"poll thread frozen: not ready after {lost:.1f} s, ready {back:.1f} s after it goes on, never dead",
    )
    assert probe.turns[1][2] == ["librdkafka has not been polled lately"]
    assert lost <= MOST_SECONDS
    assert back <= MOST_SECONDS
    assert len(probe.turns) == 3
    assert not probe.dead
