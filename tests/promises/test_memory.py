"""Row 3: memory stays within the budget and 64 MB over idle, whatever clients send and Kafka does."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import pytest
import trio

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.broker.kafka_server import RealKafka
from tests.client import Client, request
from tests.mock_kafka import MockKafka
from tests.promises.crowd import connect, open_crowd, until
from tests.promises.others import open_others

BUDGETS = {"the default budget": 256 << 20, "a small budget": 32 << 20}
BEYOND_BUDGET_BYTES = 64_000_000
UNFINISHED = 400
UNFINISHED_BYTES = 900_000
OTHERS_WAIT_SECONDS = 0.25
DEAD_SECONDS = 60.0
FLAT_BYTES = 16_000_000
BACK_WITHIN_SECONDS = 10.0

Reached = Callable[[int, str], None]


@pytest.mark.parametrize("addresses", [1, 8])
@pytest.mark.parametrize("budget", list(BUDGETS))
async def test_unfinished_bodies_stay_within_the_budget(
    engine: str, cluster: MockKafka, addresses: int, budget: str, reached: Reached
) -> None:
    held_bytes = BUDGETS[budget]
    head = request("POST /", f"Content-Length: {UNFINISHED_BYTES}")
    answers: Counter[int] = Counter()
    waiting = 0

    async def begin(stream: trio.SocketStream, finish: trio.Event) -> None:
        """Send all but the last byte; that one when all have come so far."""
        nonlocal waiting
        client = Client(stream)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                nonlocal waiting
                answers[(await client.answer()).status] += 1
                waiting += not finish.is_set()
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            try:
                await client.send(head + b"x" * (UNFINISHED_BYTES - 1))
                waiting += 1
                await finish.wait()
                await client.send(b"x")
            except trio.BrokenResourceError:
                pass  # refused; the answer is read
            await trio.sleep_forever()

    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    environ = {
        "INGEST_LIMITS__HELD_BYTES": str(held_bytes),
        "INGEST_TIMEOUTS__BODY_GRACE_SECONDS": "60",  # all of them are to be there at once
    }
    async with open_ingest(*arguments, environ=environ) as server, open_others(server) as others:
        idle_bytes = server.resident_bytes()
        server.forget_most_resident()
        finish = trio.Event()
        async with trio.open_nursery() as crowds:
            for number in range(addresses):

                async def gather(address: str) -> None:
                    size = UNFINISHED // addresses
                    async with open_crowd(server, size, address) as crowd, trio.open_nursery() as begun:
                        for stream in crowd:
                            begun.start_soon(begin, stream, finish)

                crowds.start_soon(gather, f"127.0.0.{number + 2}")
            await until(lambda: waiting >= UNFINISHED, seconds=50)
            held, waited = server.resident_bytes() - idle_bytes, others.slowest_seconds
            finish.set()
        grown = server.most_resident_bytes() - idle_bytes
    share = held_bytes if addresses > 1 else held_bytes // 4
    reached(
        3,
        f"{engine}: {UNFINISHED} unfinished bodies of {UNFINISHED_BYTES / 1e6:.1f} MB from {addresses} "
        f"addresses, {held_bytes >> 20} MiB of budget: memory + {held / 1e6:.0f} MB, at the most "
        f"+ {grown / 1e6:.0f} MB; {answers[200]} were taken and {answers[503]} refused; others "
        f"({dict(others.answers)}) waited at most {waited * 1000:.0f} ms meanwhile",
    )
    assert set(answers) == {200, 503}
    assert answers[200] + answers[503] == UNFINISHED
    assert answers[200] * UNFINISHED_BYTES <= share
    assert grown <= share + BEYOND_BUDGET_BYTES
    # Eight that hold an eighth each leave no room for others, who are told so.
    assert set(others.answers) <= ({"204"} if addresses == 1 else {"204", "503"})
    assert waited <= OTHERS_WAIT_SECONDS


LINES = "Content-Type: application/x-ndjson"
HEADERS = [f"Kafka-Header-{number}:" for number in range(90)]
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nX: " + 32_000 * b"x"
SENT_AT_ONCE = {
    "streams with many headers": (
        2,
        request("POST /", LINES, "Prefer: respond-async", *HEADERS, content=60_000 * b"1\n"),
    ),
    "long names of fields": (
        60,
        request(f"POST /?key_field={30_000 * 'a'}", LINES, content=500 * b"{}\n"),
    ),
    "long names of fields, results": (
        20,
        request(f"POST /?key_field={30_000 * 'a'}&offsets=true", LINES, content=500 * b"{}\n"),
    ),
    "results of bad lines": (600, request("POST /?offsets=true", LINES, content=6000 * b"x\n")),
    "unfinished heads": (4000, HEAD),
    "unfinished trailers": (4000, request("POST /", "Transfer-Encoding: chunked") + b"0\r\n" + HEAD[17:]),
    "large heads": (4000, HEAD + b"\r\nContent-Length: 1\r\n\r\nx"),
    "requests behind others": (3000, request("POST /", content=b"x") + HEAD + HEAD[:30_000]),
}
"""How many clients send what, and read nothing."""
LASTS_SECONDS = 6.0


@pytest.mark.parametrize("kind", list(SENT_AT_ONCE))
async def test_what_is_no_content_stays_within_the_budget_too(
    engine: str, cluster: MockKafka, kind: str, reached: Reached
) -> None:
    held_bytes = BUDGETS["a small budget"]
    clients, asked = SENT_AT_ONCE[kind]
    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    environ = {"INGEST_LIMITS__HELD_BYTES": str(held_bytes)}
    async with open_ingest(*arguments, environ=environ) as server:
        assert (await (await server.connect()).ask(request("POST /", content=b"x"))).status == 200
        idle_bytes = server.resident_bytes()
        server.forget_most_resident()
        if not asked.startswith(b"POST /?offsets"):
            cluster.set_latency(60)

        async def send(stream: trio.SocketStream) -> None:
            with contextlib.suppress(trio.BrokenResourceError):  # it is refused in the middle
                await stream.send_all(asked)

        with trio.move_on_after(LASTS_SECONDS):
            async with (
                open_crowd(server, clients, receive_bytes=4096) as crowd,
                trio.open_nursery() as sending,
            ):
                for stream in crowd:
                    sending.start_soon(send, stream)
                await trio.sleep_forever()
        grown = server.most_resident_bytes() - idle_bytes
        cluster.set_latency(0)
    reached(
        3,
        f"{engine}: {clients} clients send {kind}, {held_bytes >> 20} MiB of budget: memory + "
        f"{grown / 1e6:.0f} MB",
    )
    assert grown <= held_bytes + BEYOND_BUDGET_BYTES


class Load:
    """Clients that send as much as is taken: single records, and lines that wait for no answer of Kafka's."""

    def __init__(self, topic: str) -> None:
        target = f"POST /topics/{topic}/records"
        lines = b"".join(b'{"line":%d}\n' % number for number in range(1000))
        self.kinds = {
            32: request(target, content=b"x" * 10_000),
            8: request(target, "Content-Type: application/x-ndjson", "Prefer: respond-async", content=lines),
        }
        self.answers: Counter[int] = Counter()

    async def run(self, server: IngestProcess) -> None:
        async with trio.open_nursery() as nursery:
            for clients, asked in self.kinds.items():
                for _ in range(clients):
                    nursery.start_soon(self._send, server, asked)

    async def _send(self, server: IngestProcess, asked: bytes) -> None:
        while True:
            async with await connect(server) as stream:
                client = Client(stream)
                closes = False
                while not closes:
                    answer = await client.ask(asked)
                    closes = answer.closes
                    self.answers[answer.status] += 1
                    if answer.status == 503:
                        await trio.sleep(0.01)  # far sooner than Retry-After asks for


@pytest.mark.parametrize("budget", list(BUDGETS))
async def test_memory_is_flat_while_kafka_is_dead(
    kafka: RealKafka, new_topic: Callable[..., str], budget: str, reached: Reached
) -> None:
    held_bytes = BUDGETS[budget]
    load = Load(new_topic(partitions=3))
    environ = {"INGEST_LIMITS__HELD_BYTES": str(held_bytes)}
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers, environ=environ) as server:
        idle_bytes = server.resident_bytes()
        most: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run, server)
            await until(lambda: load.answers[200] > 100 and load.answers[202] > 10, seconds=60)
            kafka.freeze()
            for _ in range(2):
                server.forget_most_resident()
                load.answers.clear()
                await trio.sleep(DEAD_SECONDS / 2)
                most.append(server.most_resident_bytes() - idle_bytes)
            dead = dict(load.answers)
            kafka.thaw()
            load.answers.clear()
            back = await until(lambda: load.answers[200] > 0, seconds=30)
            nursery.cancel_scope.cancel()
    reached(
        3,
        f"Kafka dead for {DEAD_SECONDS:.0f} s under full load, {held_bytes >> 20} MiB of budget: memory + "
        f"{most[0] / 1e6:.0f} MB in the first half, + {most[1] / 1e6:.0f} MB in the second, in which was "
        f"answered {dead}; 200 again {back:.1f} s after it was back",
    )
    assert max(most) <= held_bytes + BEYOND_BUDGET_BYTES
    assert most[1] <= most[0] + FLAT_BYTES
    assert set(dead) <= {202, 503, 504}
    assert dead[503] > 0
    assert back <= BACK_WITHIN_SECONDS
