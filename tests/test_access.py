"""The access log: one line a request, and nothing of a client's in it raw or without a bound."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ingest.access import SHOWN_BYTES
from ingest.config import Config
from ingest.sections import Log
from ingest.testing import MemoryProducer
from tests.client import request
from tests.exchange import PEER, open_exchanges

ON = Config(log=Log(access=True))


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ingest.access")


def told(line: logging.LogRecord, *names: str) -> tuple[Any, ...]:
    return tuple(vars(line).get(name) for name in names)


async def test_off_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        await exchanges.ask(request("POST /", content=b"x"))
    assert not caplog.records


async def test_every_request_has_its_line(caplog: pytest.LogCaptureFixture) -> None:
    ndjson = request("POST /?key=k", "Content-Type: application/x-ndjson", content=b"1\n2\n{\n")
    async with open_exchanges(MemoryProducer(), ON) as exchanges:
        answers = [
            await exchanges.ask(data)
            for data in (
                request("POST /", "X-Request-Id: mine", content=b"12345"),
                ndjson,
                request(
                    "POST /", "Content-Type: application/x-ndjson", "Prefer: respond-async", content=b"1\n"
                ),
                request("PUT /none"),
            )
        ]
    assert [
        told(line, "method", "target", "status", "content_bytes", "records") for line in caplog.records
    ] == [
        ("POST", "/", 200, 5, 1),
        ("POST", "/?key=k", 207, 6, 2),
        ("POST", "/", 202, 2, 1),
        ("PUT", "/none", 404, 0, 0),
    ]
    assert [line.message for line in caplog.records] == 4 * ["request"]
    assert {vars(line)["peer"] for line in caplog.records} == {PEER}
    assert [vars(line)["request_id"] for line in caplog.records] == [
        answer.fields["x-request-id"] for answer in answers
    ]
    assert all(0 < vars(line)["seconds"] < 60 for line in caplog.records)


async def test_a_request_that_cannot_be_read_has_its_line_too(caplog: pytest.LogCaptureFixture) -> None:
    async with open_exchanges(MemoryProducer(), ON) as exchanges:
        answer = await exchanges.ask(b"GET / HTTP/1.1\r\nBroken\r\n\r\n")
    (line,) = caplog.records
    assert told(line, "status", "peer", "request_id") == (400, PEER, answer.fields["x-request-id"])
    assert vars(line)["error"] == answer.json["message"]


async def test_what_a_client_makes_long_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async with open_exchanges(MemoryProducer(), ON) as exchanges:
        await exchanges.ask(request(f"{'M' * 2000} /{'t' * 20_000}", f"X-Request-Id: {'i' * 5_000}"))
        await exchanges.ask(request(f"POST /topics/{'x' * 5_000}/records", content=b"x"))
    assert len(caplog.records) == 2
    for line in caplog.records:
        assert all(
            len(str(value)) <= SHOWN_BYTES + 1 for value in told(line, "method", "target", "request_id")
        )
