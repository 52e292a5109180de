"""Compressed content over HTTP: the same records as without, on both engines, and every refusal."""

from __future__ import annotations

import functools
import gzip
import json
import random
import sys
import threading
import zlib
from collections.abc import Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ingest.config import Config
from ingest.http.engines import ENGINES
from ingest.http.protocol import HTTPProtocol
from ingest.records import Record
from ingest.route import Route
from ingest.sections import Limits
from ingest.testing import MemoryProducer
from tests.client import Answer, chunk, request
from tests.exchange import Exchanges, open_exchanges

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

gzipped = functools.partial(gzip.compress, mtime=0)
"""The same bytes each time: they are in the names of tests."""
NDJSON = "Content-Type: application/x-ndjson"
CHUNKED = "Transfer-Encoding: chunked"
WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzipped,
    "x-gzip": gzipped,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
SMALL = Config(limits=Limits(request_bytes=200_000, record_bytes=200_000, held_bytes=2_000_000))
KEEPS = Config(routes=[Route("/", "events", content_coding="keep")])


@pytest.fixture(params=list(ENGINES))
def make_protocol(request: pytest.FixtureRequest) -> Callable[[], HTTPProtocol]:
    made: Callable[[], HTTPProtocol] = ENGINES[request.param]
    return made


@pytest.fixture(params=list(WRITERS))
def coding(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def coded(coding: str, content: bytes, *fields: str, line: str = "POST /") -> bytes:
    return request(line, f"Content-Encoding: {coding}", *fields, content=WRITERS[coding](content))


def chunked(coding: str, content: bytes, *fields: str, line: str = "POST /", size: int = 1000) -> bytes:
    data = WRITERS[coding](content)
    head = request(line, f"Content-Encoding: {coding}", CHUNKED, *fields)
    chunks = [chunk(data[start : start + size]) for start in range(0, len(data), size)]
    return b"".join([head, *chunks, chunk(b"")])


def noise(size: int) -> bytes:
    """What cannot be made shorter."""
    return random.Random(0).randbytes(size)


async def ask(exchanges: Exchanges, make_protocol: Callable[[], HTTPProtocol], data: bytes) -> Answer:
    client = exchanges.connect(make_protocol=make_protocol)
    answer = await client.ask(data)
    await client.close()
    return answer


# What becomes of it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [coded, chunked])
@pytest.mark.parametrize("content", [b"", b"{}", b"x" * 20_000, b"ab" * 90_000, noise(150_000)], ids=len)
async def test_the_record_is_the_content_without_its_coding(
    make_protocol: Callable[[], HTTPProtocol], coding: str, content: bytes, make: Callable[..., bytes]
) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, SMALL) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        for _ in range(2):  # the connection goes on
            answer = await client.ask(make(coding, content, "Content-Type: text/plain"))
            assert (answer.status, answer.closes) == (200, False)
    # Neither the coding nor anything of it is left: a consumer reads what was meant.
    assert producer.records == [Record("events", content, None, (("content-type", b"text/plain"),))] * 2


async def test_a_key_is_found_in_compressed_content(coding: str) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        content = b'{"user":{"id":"ann"}}'
        answer = await exchanges.ask(coded(coding, content, line="POST /?key_field=user.id"))
    assert answer.status == 200
    assert producer.records == [Record("events", content, b"ann")]


@pytest.mark.parametrize("make", [coded, chunked])
async def test_lines_come_out_of_compressed_content(
    make_protocol: Callable[[], HTTPProtocol], coding: str, make: Callable[..., bytes]
) -> None:
    lines = [json.dumps({"line": number, "of": "many"}).encode() for number in range(30_000)]
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await ask(exchanges, make_protocol, make(coding, b"\n".join(lines), NDJSON))
    assert (answer.status, answer.json) == (200, {"accepted": len(lines), "failed": 0})
    assert [record.value for record in producer.records] == lines


async def test_lines_are_answered_while_more_of_the_compressed_content_is_to_come() -> None:
    """A sender that flushes after each line, as a log shipper does, need not end its content."""
    compressor = zlib.compressobj(wbits=31)
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        await client.send(request("POST /?offsets=true", NDJSON, "Content-Encoding: gzip", CHUNKED))
        for number in range(3):
            line = b'{"line":%d}\n' % number
            await client.send(chunk(compressor.compress(line) + compressor.flush(zlib.Z_SYNC_FLUSH)))
            if not number:
                assert (await client.head())[0] == 200
            assert json.loads(await client.chunk()) == {"line": number + 1, "partition": 0, "offset": number}
        await client.send(chunk(compressor.flush()) + chunk(b""))
        assert await client.chunk() == b""


@pytest.mark.parametrize(
    ("line", "media_type", "content", "values"),
    [
        (
            "POST /topics/t",
            "application/vnd.kafka.json.v2+json",
            b'{"records":[{"value":1},{"value":2}]}',
            [b"1", b"2"],
        ),
        (
            "POST /v3/clusters/c/topics/t/records",
            "application/json",
            b'{"value":{"type":"JSON","data":1}}{"value":{"type":"JSON","data":2}}',
            [b"1", b"2"],
        ),
        (
            "POST /topics/t/records",
            "application/cloudevents-batch+json",
            b'[{"specversion":"1.0","id":"1","source":"a","type":"b"}]',
            [b'{"specversion":"1.0","id":"1","source":"a","type":"b"}'],
        ),
    ],
    ids=["REST Proxy v2", "REST Proxy v3", "CloudEvents"],
)
@pytest.mark.parametrize("make", [coded, chunked])
async def test_every_format_is_read_compressed(
    coding: str,
    line: str,
    media_type: str,
    content: bytes,
    values: list[bytes],
    make: Callable[..., bytes],
) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(make(coding, content, f"Content-Type: {media_type}", line=line))
    assert answer.status == 200
    assert [record.value for record in producer.records] == values


async def test_a_tombstone_has_no_content_that_could_be_coded() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(request("DELETE /?key=k", "Content-Encoding: gzip"))
    assert answer.status == 200
    assert producer.records == [Record("events", None, b"k")]


# A route can keep it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["gzip", "br", "gzip, aws-chunked"])
async def test_a_route_can_pass_compressed_content_through(named: str) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, KEEPS) as exchanges:
        content = gzipped(b"{}")
        fields = "Content-Type: application/json", f"Content-Encoding: {named}"
        assert (await exchanges.ask(request("POST /", *fields, content=content))).status == 200
        assert (
            await exchanges.ask(request("POST /", "Content-Encoding: identity", content=b"x"))
        ).status == 200
    headers = ("content-type", b"application/json"), ("content-encoding", named.encode())
    assert producer.records == [Record("events", content, None, headers), Record("events", b"x")]


@pytest.mark.parametrize(
    ("line", "field", "what"),
    [("POST /", NDJSON, "more than one plain record"), ("POST /?key_field=a", "X: y", "a key field")],
)
async def test_what_has_to_be_read_cannot_be_kept_compressed(line: str, field: str, what: str) -> None:
    async with open_exchanges(MemoryProducer(), KEEPS) as exchanges:
        answer = await exchanges.ask(coded("gzip", b"{}", field, line=line))
        assert answer.status == 415
        assert answer.fields["accept-encoding"] == "identity"
        assert f"{what} cannot be read through one" in answer.json["message"]
        assert (await exchanges.ask(request(line, field, content=b'{"a":1}'))).status == 200


# Refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["br", "gzip, gzip", "gzip,identity", "compress"])
async def test_another_coding_is_refused_before_the_content_is_sent(named: str) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        fields = f"Content-Encoding: {named}", "Expect: 100-continue", "Content-Length: 10"
        answer = await exchanges.ask(request("POST /", *fields))
    assert (answer.status, answer.json["error_code"], answer.json["outcome"]) == (415, 415, "not_written")
    assert answer.fields["accept-encoding"] == "gzip, deflate, zstd"
    assert "gzip, deflate, zstd" in answer.json["message"]


async def test_a_media_type_that_is_refused_says_nothing_of_codings() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(request("POST /", "Content-Type: application/vnd.kafka.avro.v2+json"))
    assert answer.status == 415
    assert "accept-encoding" not in answer.fields


async def test_compressed_content_is_asked_for_with_100_continue() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        content = gzipped(b"x")
        fields = "Content-Encoding: gzip", "Expect: 100-continue", f"Content-Length: {len(content)}"
        assert (await client.ask(request("POST /", *fields))).status == 100
        assert (await client.ask(content)).status == 200


async def test_compressed_content_that_is_too_long_as_it_is_is_refused_before_it_is_sent() -> None:
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        fields = "Content-Encoding: gzip", "Expect: 100-continue", "Content-Length: 200001"
        answer = await exchanges.ask(request("POST /", *fields))
    assert answer.status == 413
    assert answer.json["message"] == ("the content has 200001 bytes; limits.request_bytes is 200000")


@pytest.mark.parametrize("make", [coded, chunked])
async def test_a_bomb_is_refused_at_the_limit_of_what_it_makes(
    make_protocol: Callable[[], HTTPProtocol], coding: str, make: Callable[..., bytes]
) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, SMALL) as exchanges:
        answer = await ask(exchanges, make_protocol, make(coding, bytes(20 << 20)))
    assert (answer.status, answer.json["error_code"]) == (413, 413)
    assert "limits.request_bytes is 200000" in answer.json["message"]
    assert producer.records == []


@pytest.mark.parametrize("size", [199_999, 200_000, 200_001])
async def test_the_limit_is_of_inflated_bytes(coding: str, size: int) -> None:
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        answer = await exchanges.ask(coded(coding, b"x" * size))
    assert answer.status == (200 if size <= 200_000 else 413)


@pytest.mark.parametrize("make", [coded, chunked])
async def test_content_that_its_coding_makes_longer_has_the_limit_of_its_record(
    coding: str, make: Callable[..., bytes]
) -> None:
    config = Config(limits=Limits(request_bytes=201_000, record_bytes=200_000, held_bytes=2_000_000))
    async with open_exchanges(MemoryProducer(), config) as exchanges:
        asked = make(coding, noise(200_000))
        assert len(asked) > 200_000
        assert (await exchanges.ask(asked)).status == 200
        answer = await exchanges.ask(make(coding, noise(200_001)))
    assert answer.status == 413
    assert "limits.record_bytes" in answer.json["message"]


@pytest.mark.parametrize(
    ("named", "content", "status", "message"),
    [
        ("gzip", gzipped(b"") * 1000, 413, "more than 100 members"),
        ("zstd", zstd.compress(b"") * 1000, 413, "more than 100 members"),
        ("zstd", bytes.fromhex("28b52ffd0088") + bytes(50), 413, "a window of 134217728 bytes; 8388608 is"),
        ("zstd", b"\x50\x2a\x4d\x18\xff\xff\xff\x7f" + bytes(150_000), 400, "breaks off"),
        ("gzip", gzipped(b"x" * 100)[:-1], 400, "the gzip content breaks off before its end"),
        ("gzip", gzipped(noise(100_000))[:-1], 400, "the gzip content breaks off before its end"),
        ("gzip", b"", 400, "the gzip content breaks off before its end"),
        ("gzip", b"{}", 400, "the gzip content is corrupt"),
        ("deflate", b"\xff\xff\xff", 400, "the deflate content is corrupt"),
        ("zstd", gzipped(b"x"), 400, "the zstd content is corrupt"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_what_is_not_so_coded_is_refused_whole(
    make_protocol: Callable[[], HTTPProtocol],
    named: str,
    content: bytes,
    status: int,
    message: str,
    framing: str,
) -> None:
    producer = MemoryProducer()
    field = f"Content-Encoding: {named}"
    if framing == "length":
        asked = request("POST /", field, content=content)
    else:
        asked = request("POST /", field, CHUNKED) + (chunk(content) if content else b"") + chunk(b"")
    async with open_exchanges(producer, SMALL) as exchanges:
        answer = await ask(exchanges, make_protocol, asked)
    assert (answer.status, answer.json["outcome"]) == (status, "not_written")
    assert message in answer.json["message"]
    assert producer.records == []


async def test_lines_before_a_fault_keep_their_own_outcome() -> None:
    producer = MemoryProducer()
    content = gzipped(b'{"a":1}\n' * 20_000)[:-1]
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(request("POST /", NDJSON, "Content-Encoding: gzip", content=content))
    assert (answer.status, answer.json["accepted"]) == (400, len(producer.records))
    assert (answer.json["outcome"], answer.json["retriable"]) == ("unknown", False)
    assert "breaks off" in answer.json["message"]


async def test_what_inflating_takes_is_on_the_budget() -> None:
    config = Config(limits=Limits(held_bytes=8_000_000))
    content = noise(1_200_000)
    options = {zstd.CompressionParameter.window_log: 23}
    compressor = zstd.ZstdCompressor(options={int(name): value for name, value in options.items()})
    data = compressor.compress(content) + compressor.flush()
    async with open_exchanges(MemoryProducer(), config) as exchanges:
        client = exchanges.connect()
        await client.send(request("POST /", NDJSON, "Content-Encoding: zstd", CHUNKED))
        await client.send(chunk(data[:900_000]))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert exchanges.budget.held_bytes > 1_000_000  # its window, as far as it is in use
        await client.send(chunk(data[900_000:]) + chunk(b""))
        assert (await client.answer()).status == 400  # it is no JSON


async def test_a_large_part_is_inflated_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    run_sync = trio.to_thread.run_sync

    async def watched(sync_fn: Callable[..., object], *args: object, **options: object) -> object:
        def call() -> object:
            threads.add(threading.current_thread().name)
            return sync_fn(*args)

        return await run_sync(call, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(trio.to_thread, "run_sync", watched)
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        assert (await exchanges.ask(coded("gzip", b"x" * 10_000))).status == 200
        assert not threads
        assert (await exchanges.ask(coded("gzip", b"x" * 900_000))).status == 200
    assert threads
    assert threading.main_thread().name not in threads


async def test_compressed_content_that_stops_coming_is_408(autojump_clock: MockClock) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        content = gzipped(noise(10_000))
        head = request("POST /", "Content-Encoding: gzip", f"Content-Length: {len(content)}")
        answer = await exchanges.ask(head + content[:5000])
    assert answer.status == 408


@pytest.mark.parametrize(
    ("target", "type_", "content"),
    [
        ("/", "application/x-ndjson", b'{"a":1}\n' * 3),
        ("/?key_field=a", "application/json", b'{"a":1}'),
        ("/", "application/cloudevents+json", b'{"id":"1"}'),
        ("/topics/a", "application/vnd.kafka.json.v2+json", b'{"records":[{"value":1}]}'),
        ("/v3/clusters/c/topics/a/records:batch", "application/json", b'{"entries":[{"id":"1"}]}'),
    ],
)
async def test_gzip_that_no_field_names_is_called_so_where_json_is_meant(
    make_protocol: Callable[[], HTTPProtocol], target: str, type_: str, content: bytes
) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        asked = request(f"POST {target}", f"Content-Type: {type_}", content=gzipped(content))
        answer = await client.ask(asked)
    assert answer.status == 400
    assert "it looks like gzip, and Content-Encoding: gzip is missing" in answer.json["message"]
    assert producer.records == []
