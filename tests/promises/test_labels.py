"""Row 16: nothing from a client reaches a log line, a label or a Kafka header raw or without a bound."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Callable, Iterator
from itertools import islice
from urllib.parse import urlsplit

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families as read_text

import ingest
from ingest.testing import MemoryProducer
from tests.broker.ingest_process import open_ingest
from tests.client import Client, request
from tests.mock_kafka import open_mock_kafka

TOPICS = 100_000
TOGETHER = 100  # requests that are sent before the first answer is read
LINE_CHARACTERS = 2_000
OTHER_LINES = 40  # what the service says of itself: start, Kafka, drain
MOST_SERIES = 1_000
SEED = 16

NASTY = [
    "\r\n2026-01-01T00:00:00.000Z info forged", "\n", "\r", "\0", "\x1b[31m", "\x1b]0;title\x07", "\x7f",
    "\x9b2J", "\u2028", "\u2029", "\u202e", "\ufeff", '"', "'", "\\", "\\n", "{", "}", "=", " ", "%",
    "%0d%0a", "$(id)", "{{7*7}}", "é", "ÿ", "\xff",
]  # fmt: skip
"""What breaks lines, obeys a terminal, ends a quotation, or means something to a later reader."""
LINE = {
    "text": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|warning|error) \S.*"),
    "json": re.compile(r'\{"time": "\d{4}-[^"]*Z", "level": "(info|warning|error)", .*\}'),
}


class Attacker:
    """Requests that put something odd into every part in turn."""

    def __init__(self) -> None:
        self._random = random.Random(SEED)

    def odd(self) -> str:
        return "".join(self._random.choices([*NASTY, "a", "b", "0"], k=self._random.randrange(1, 12)))

    def escaped(self) -> str:
        return "".join(f"%{byte:02X}" for byte in self.odd().encode("utf-8", "surrogatepass"))

    def line_safe(self) -> str:
        """As odd as the framing rules let a field's value or a query be."""
        return re.sub(r"[^!-~\x80-\xff]", "", self.odd()) or "x"

    def well_framed(self, count: int) -> Iterator[bytes]:
        """Requests for random topics, which keep their connection."""
        for number in range(count):
            visible = re.sub(r"[^!-~]|[?#/]", "", self.odd())
            topic = self._random.choice([f"t{number}", self.escaped() + f"{number}", f"{visible}{number}"])
            fields = [
                f"X-Request-Id: {self.line_safe()}",
                f"Kafka-Header-Trace: {self.line_safe()}",
                f"Content-Type: text/{self.line_safe()}",
                f"User-Agent: {self.line_safe()}",
            ]
            query = self._random.choice(
                ["", f"?key={self.escaped()}", f"?key_field={self.escaped()}", "?x=%0A"]
            )
            yield request(f"POST /topics/{topic}/records{query}", *fields, content=self.odd().encode())

    def broken(self, count: int) -> Iterator[bytes]:
        """Requests most of which are refused, each with its connection."""
        for number in range(count):
            odd = self.odd().encode("latin-1", "ignore")
            yield [
                b"POST /" + odd + b" HTTP/1.1\r\nHost: a\r\n\r\n",
                odd + b"X / HTTP/1.1\r\nHost: a\r\n\r\n",
                b"POST / HTTP/1.1\r\nHost: a\r\nX-Odd" + odd + b": 1\r\n\r\n",
                b"POST / HTTP/1.1\r\nHost: " + odd + b"\x01\r\n\r\n",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1" + odd + b"x\r\n\r\n",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + odd + b"x\r\n\r\n",
                b"POST /" + 20_000 * b"x" + b" HTTP/1.1\r\nHost: a\r\nX: " + odd + b"\x02\r\n\r\n",
            ][number % 7]


async def attack(port: int, requests: Iterator[bytes]) -> int:
    """Send requests over one connection, many at a time; how many were answered."""
    answered = 0
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = Client(stream)
        while batch := list(islice(requests, TOGETHER)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, b"".join(batch))
                for _ in batch:
                    await client.answer()
                    answered += 1
    return answered


async def attack_apart(port: int, requests: Iterator[bytes]) -> int:
    """Send each request over a connection of its own."""
    answered = 0
    for each in requests:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await Client(stream).ask(each)
            answered += 1
    return answered


async def series(port: int) -> list[tuple[str, dict[str, str]]]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        answer = await Client(stream).ask(request("GET /metrics"))
    families = read_text(answer.content.decode())
    return [(sample.name, dict(sample.labels)) for family in families for sample in family.samples]


def check_labels(found: list[tuple[str, dict[str, str]]]) -> None:
    assert len(found) <= MOST_SERIES
    for _, labels in found:
        for value in labels.values():
            assert value.isascii()
            assert value.isprintable()
            assert len(value) <= 250


@pytest.mark.parametrize("form", ["text", "json"])
async def test_one_bounded_line_a_request_whatever_is_in_it(
    reached: Callable[[int, str], None], form: str
) -> None:
    count = TOPICS // 2  # in each form
    broken = count // 50
    attacker = Attacker()
    with open_mock_kafka() as kafka:
        kafka.create("events")
        arguments = ("--bootstrap-servers", kafka.address, "--access-log", "--log-format", form)
        async with open_ingest(*arguments, "--kafka", "log_level=0") as server:
            with trio.fail_after(500):
                answered = await attack(server.port, attacker.well_framed(count))
                answered += await attack_apart(server.port, attacker.broken(broken))
            seen_at = re.search(r"management\b.*?http://127\.0\.0\.1:(\d+)", "\n".join(server.log))
            assert seen_at is not None
            found = await series(int(seen_at[1]))
            await server.end()
    assert answered == count + broken
    for line in server.log:
        assert LINE[form].fullmatch(line), ascii(line)
        assert line.isprintable(), ascii(line)
        assert len(line) <= LINE_CHARACTERS
        if form == "json":
            assert line.isascii()
            json.loads(line)
    requests = [line for line in server.log if re.search(r'info request |"event": "request"', line)]
    assert len(requests) == answered
    assert len(server.log) - len(requests) <= OTHER_LINES
    check_labels(found)
    longest = max(len(line) for line in server.log)
    reached(
        16,
        f"{answered} requests with control characters, CRLF, escapes, broken UTF-8 everywhere ({form}): "
        f"{len(requests)} access lines, {len(server.log) - len(requests)} others, "
        f"the longest {longest} characters; {len(found)} series",
    )


async def test_topics_without_end_are_few_series_and_no_lines(
    reached: Callable[[int, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A cluster that makes every topic it is asked for is the worst for labels: here each one is written."""
    caplog.set_level(logging.INFO)
    producer = MemoryProducer()
    routes = [ingest.Route(f"/{number}/{{topic}}") for number in range(50)]
    config = ingest.Config(http=ingest.HTTP(port=0), management=ingest.Management(port=0), routes=routes)
    rng = random.Random(SEED)

    def requests() -> Iterator[bytes]:
        for number in range(TOPICS):
            method = rng.choice(["POST", "POST", "POST", "GET", f"M{number}"])
            yield request(f"{method} /{number % 50}/t{rng.getrandbits(60):x}", content=b"x")

    async with trio.open_nursery() as nursery:
        server: ingest.Server = await nursery.start(
            lambda task_status: ingest.serve(config, producer=producer, task_status=task_status)
        )
        port, seen_at = urlsplit(server.url).port, urlsplit(server.management_url).port
        assert port is not None
        assert seen_at is not None
        before = len(caplog.records)
        with trio.fail_after(500):
            assert await attack(port, requests()) == TOPICS
        lines = len(caplog.records) - before
        found = await series(seen_at)
        nursery.cancel_scope.cancel()
    topics = {record.topic for record in producer.records}
    reached(
        16, f"{len(topics)} topics written over {len(routes)} routes: {len(found)} series, {lines} log lines"
    )
    assert len(topics) > TOPICS / 2
    check_labels(found)
    assert lines <= OTHER_LINES
    for record in producer.records:
        assert sum(len(name) + len(value or b"") for name, value in record.headers) <= 32_768
