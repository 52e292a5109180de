"""REST Proxy v3 over HTTP: a stream of objects with a report for each while it goes on, and batches."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from ingest.config import Config
from ingest.errors import BadRequest, DeliveryUnknown, IngestError, RecordRefused
from ingest.formats.cutting import MOST_NESTED, TOKENS_AT_ONCE, Cutter
from ingest.formats.rest_v3 import RestV3
from ingest.formats.rest_v3_batch import RestV3Batch
from ingest.formats.seam import MOST_RECORDS, Bounds, Format, Reader, StreamReader
from ingest.http.engines import ENGINES
from ingest.http.messages import Request
from ingest.http.protocol import HTTPProtocol
from ingest.intent import read_intent
from ingest.records import DeliveryReport, Receipt, Record
from ingest.route import Route
from ingest.routing import Match
from ingest.sections import Limits, Timeouts
from ingest.testing import MemoryProducer, StallingProducer
from tests.client import Answer, Client, chunk, request
from tests.exchange import Exchanges, open_exchanges

CHUNKED = "Transfer-Encoding: chunked"
JSON = "Content-Type: application/json"
RECORDS = "/v3/clusters/c-1/topics/orders/records"
BATCH = RECORDS + ":batch"
OPEN = request(f"POST {RECORDS}", JSON, CHUNKED)


def value(data: object, type_: str | None = "JSON") -> dict[str, Any]:
    return {"value": {"data": data} if type_ is None else {"type": type_, "data": data}}


def post(*objects: object, target: str = RECORDS) -> bytes:
    content = b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in objects)
    return request(f"POST {target}", JSON, content=content)


async def ask(
    data: bytes,
    producer: MemoryProducer | None = None,
    config: Config = Config(),  # noqa: B008  # frozen
) -> Answer:
    async with open_exchanges(producer or MemoryProducer(), config) as exchanges:
        return await exchanges.ask(data)


async def opened(exchanges: Exchanges, **more: Any) -> Client:
    """A stream whose answer has begun, with its first report read."""
    client = exchanges.connect(**more)
    await client.send(OPEN + chunk(json.dumps(value("first")).encode()))
    assert (await client.head())[0] == 200
    assert json.loads(await client.chunk())["error_code"] == 200
    return client


class ChoosyProducer(MemoryProducer):
    errors: dict[bytes | None, IngestError] = {  # noqa: RUF012
        b'"unknown"': DeliveryUnknown("no report came in time"),
        b'"refused"': RecordRefused("a broker refused the record"),
    }

    def _report(self, record: Record) -> DeliveryReport:
        return self.errors.get(record.value) or super()._report(record)


# A stream ------------------------------------------------------------------------------------------------


async def test_object_becomes_a_record_and_gets_its_report() -> None:
    producer = MemoryProducer()
    answer = await ask(
        post(
            {
                "partition_id": 1,
                "headers": [{"name": "h", "value": "aGk="}, {"name": "n", "value": None}],
                "key": {"type": "BINARY", "data": "Zm9v"},
                "value": {"type": "JSON", "data": {"a": 1}},
                "timestamp": "2021-02-05T19:14:42Z",
            }
        ),
        producer,
    )
    assert producer.records == [
        Record("orders", b'{"a": 1}', b"foo", (("h", b"hi"), ("n", None)), 1, 1612552482000)
    ]
    assert (answer.status, answer.fields["content-type"]) == (200, "application/json")
    assert answer.content.endswith(b"}\r\n")
    assert answer.json == {
        "error_code": 200,
        "cluster_id": "c-1",
        "topic_name": "orders",
        "partition_id": 1,
        "offset": 0,
        "timestamp": "2021-02-05T19:14:42Z",
        "key": {"type": "BINARY", "size": 3},
        "value": {"type": "JSON", "size": 8},
    }


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({"type": "JSON", "data": "s"}, b'"s"'),
        ({"type": "JSON", "data": None}, None),
        ({"type": "JSON"}, None),
        ({"type": "STRING", "data": "é"}, "é".encode()),
        ({"type": "STRING", "data": None}, None),
        ({"type": "BINARY", "data": "AP8="}, b"\x00\xff"),
        ({"type": "BINARY", "data": ""}, b""),
        ({"data": "AP8="}, b"\x00\xff"),
        ({"data": "AP8=", "schema_id": None}, b"\x00\xff"),
        ({}, None),
        (None, None),
    ],
)
async def test_type_says_how_a_key_or_a_value_is_written(
    written: dict[str, Any] | None, found: bytes | None
) -> None:
    producer = MemoryProducer()
    answer = await ask(post({"value": written, "key": written}), producer)
    assert producer.records == [Record("orders", found, found)]
    expected = {"type": (written or {}).get("type", "BINARY"), "size": len(found or b"")}
    assert answer.json.get("value") == answer.json.get("key") == (None if written is None else expected)


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
async def test_each_record_is_answered_before_the_next_is_sent(
    make_protocol: Callable[[], HTTPProtocol],
) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = await opened(exchanges, make_protocol=make_protocol)
        for offset in range(1, 20):
            await client.send(chunk(json.dumps(value(offset)).encode()))
            report = await client.chunk()
            assert json.loads(report)["offset"] == offset
        await client.send(chunk(b""))
        assert await client.chunk() == b""
        # and the connection goes on
        assert (await client.ask(post(value(1)))).json["offset"] == 20


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
async def test_answer_begins_before_anything_is_sent(make_protocol: Callable[[], HTTPProtocol]) -> None:
    # A client may not send anything before it has the head of the answer.
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        await client.send(OPEN)
        status, fields = await client.head()
        assert (status, fields["content-type"]) == (200, "application/json")
        await client.send(chunk(json.dumps(value(1)).encode()))
        assert json.loads(await client.chunk())["offset"] == 0
        await client.send(chunk(b""))
        assert await client.chunk() == b""
        # What ends without any record says so in a report, and the connection goes on.
        await client.send(OPEN)
        assert (await client.head())[0] == 200
        await client.send(chunk(b"\n") + chunk(b""))
        assert json.loads(await client.chunk())["error_code"] == 422
        assert await client.chunk() == b""
        assert (await client.ask(post(value(1)))).json["offset"] == 1


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
async def test_client_that_waits_for_100_has_it_before_the_answer_begins(
    make_protocol: Callable[[], HTTPProtocol],
) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        await client.send(request(f"POST {RECORDS}", JSON, CHUNKED, "Expect: 100-continue"))
        assert (await client.answer()).status == 100
        assert (await client.head())[0] == 200
        await client.send(chunk(json.dumps(value(1)).encode()) + chunk(b""))
        assert json.loads(await client.chunk())["offset"] == 0


@pytest.mark.parametrize("fields", [(CHUNKED,), (CHUNKED, "Expect: 100-continue")])
async def test_what_the_head_shows_to_be_wrong_has_its_status_before_anything_is_sent(
    fields: tuple[str, ...],
) -> None:
    async with open_exchanges(MemoryProducer(topics=["orders"])) as exchanges:
        missing = RECORDS.replace("orders", "missing")
        assert (await exchanges.ask(request(f"POST {missing}", JSON, *fields))).status == 404
        answer = await exchanges.ask(request(f"POST {RECORDS}", "Content-Type: text/plain", *fields))
        assert answer.status == 415


async def test_content_of_known_length_that_has_no_record_has_a_status_of_its_own() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        await client.send(request(f"POST {RECORDS}", JSON, "Content-Length: 2"))
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.ask(b"[]")).status == 422


async def test_compressed_stream_begins_as_early() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        await client.send(request(f"POST {RECORDS}", JSON, CHUNKED, "Content-Encoding: gzip"))
        assert (await client.head())[0] == 200
        await client.send(chunk(gzip.compress(json.dumps(value(1)).encode())) + chunk(b""))
        assert json.loads(await client.chunk())["offset"] == 0


async def test_answer_begins_before_there_is_a_report() -> None:
    producer = StallingProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN + chunk(json.dumps(value(1)).encode()))
        assert (await client.head())[0] == 200
        producer.release()
        assert json.loads(await client.chunk())["offset"] == 0


@pytest.mark.parametrize(
    "form",
    [b"%b%b%b", b"%b\n%b\r\n%b\n", b" [%b, %b ,%b ] ", b"[%b,%b,%b]"],
    ids=["together", "lines", "array with blanks", "array"],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_objects_are_found_however_they_are_written_and_cut(form: bytes, size: int) -> None:
    objects = [value({"a": '}"{\\', "b": [number, []]}) for number in range(3)]
    content = form % tuple(json.dumps(each).encode() for each in objects)
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        answer = await exchanges.ask(OPEN + b"".join(map(chunk, pieces)) + chunk(b""))
    assert [report["offset"] for report in answer.lines] == [0, 1, 2]
    written = [json.loads(record.value or b"") for record in producer.records]
    assert written == [each["value"]["data"] for each in objects]


@pytest.mark.parametrize("target", ["/kafka" + RECORDS, "/v3/clusters/any%20thing/topics/orders/records"])
async def test_cluster_is_not_looked_at(target: str) -> None:
    answer = await ask(post(value(1), target=target))
    assert answer.json["topic_name"] == "orders"
    assert answer.json["cluster_id"] in ("c-1", "any thing")


async def test_reports_keep_their_order_and_failures_end_nothing() -> None:
    producer = ChoosyProducer()
    wrong = value("x", "AVRO")
    answer = await ask(
        post(
            value("a"),
            wrong,
            value("unknown"),
            value("b"),
            {"partition_id": -1},
            value("refused"),
            value("c"),
        ),
        producer,
    )
    found = [(report["error_code"], report.get("outcome")) for report in answer.lines]
    assert found == [
        (200, None),
        (400, "not_written"),
        (50003, "unknown"),
        (200, None),
        (40402, "not_written"),
        (40002, "not_written"),
        (200, None),
    ]
    assert [record.value for record in producer.records] == [b'"a"', b'"b"', b'"c"']


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (value("x", "AVRO"), "value.type is 'AVRO'"),
        (value("x", "BINARY"), "value.data of type BINARY: Invalid base64"),
        (value(1, "STRING"), "value.data of type STRING"),
        ({"key": {"type": "BINARY", "data": 1}}, "key.data of type BINARY"),
        ({"value": {"schema_id": 1, "data": 1}}, "value names a schema"),
        ({"vlue": 1}, "unknown field `vlue`"),
        ({"value": {"tpe": 1}}, "unknown field `tpe`"),
        (value(1) | {"timestamp": "yesterday"}, "timestamp"),
        (value(1) | {"timestamp": "2021-02-05T19:14:42"}, "timestamp"),
        (value(1) | {"timestamp": "1921-02-05T19:14:42Z"}, "before 1970"),
        (value(1) | {"timestamp": "0001-01-01T00:00:00+23:59"}, "before 1970"),
        (value(1) | {"timestamp": "9999-12-31T23:59:59-23:59"}, "after 9999"),
        (value(1) | {"headers": [{"name": "h", "value": "?"}]}, "base64"),
        (value(1) | {"partition_id": 1 << 31}, "partition_id"),
    ],
)
async def test_record_that_is_wrong_gets_a_report_of_its_own(wrong: dict[str, Any], said: str) -> None:
    producer = MemoryProducer()
    answer = await ask(post(wrong, value(1)), producer)
    refused, written = answer.lines
    assert (refused["error_code"], refused["outcome"], refused["retriable"]) == (400, "not_written", False)
    assert said in refused["message"]
    assert written["error_code"] == 200
    assert len(producer.records) == 1


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("type_", [{}, {"type": "BINARY"}, {"type": "JSON"}, {"type": "STRING"}], ids=str)
@pytest.mark.parametrize(
    "named",
    [
        {"schema": "{}"},
        {"schema_id": 1},
        {"schema_version": 1},
        {"subject": "s"},
        {"subject_name_strategy": "TOPIC_NAME"},
    ],
    ids=str,
)
async def test_what_names_a_schema_is_refused_whatever_its_type(
    named: dict[str, Any], type_: dict[str, Any], make_protocol: Callable[[], HTTPProtocol]
) -> None:
    producer = MemoryProducer()
    written = {"data": "AAAA"} | type_ | named
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        for name in ("key", "value"):
            (report,) = (await client.ask(post({name: written}))).lines
            assert (report["error_code"], report["outcome"]) == (400, "not_written")
            assert f"{name} names a schema" in report["message"]
            batch = {"entries": [{"id": "1", name: written}]}
            (failure,) = (await client.ask(post(batch, target=BATCH))).json["failures"]
            assert (failure["error_code"], failure["message"]) == (400, report["message"])
    assert producer.records == []


async def test_record_that_is_too_large_gets_a_report_of_its_own() -> None:
    answer = await ask(post(value(100 * "x"), value(1)), MemoryProducer(record_bytes=100))
    assert [report["error_code"] for report in answer.lines] == [413, 200]


DEEP = b'{"value":{"type":"JSON","data":' + 3000 * b"[" + 3000 * b"]" + b"}}"


@pytest.mark.parametrize(
    "wrong",
    [b"x", b"1", b'"s"', b"{]", b'{"value":}', b"[[", b"[{},]", b"[] {}", b"{},{}",
     b'{"value":{"data":"\xff"}}', DEEP, b'{"value":{', b"["],
)  # fmt: skip
async def test_malformed_json_ends_the_stream_with_a_report(wrong: bytes) -> None:
    producer = MemoryProducer()
    before = b"" if wrong.startswith(b"[") else json.dumps(value("a")).encode() + b" "
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect()
        answer = await client.ask(OPEN + chunk(before + wrong) + chunk(b""))
    *reports, last = answer.lines
    assert (last["error_code"], last["outcome"]) == (400, "not_written")
    assert "invalid JSON" in last["message"] or "nested" in last["message"]
    assert all(report["error_code"] in (200, 400) for report in reports)
    assert len(producer.records) == sum(report["error_code"] == 200 for report in reports)


async def test_what_comes_behind_malformed_json_is_not_read() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = await opened(exchanges)
        await client.send(chunk(b"x"))
        assert json.loads(await client.chunk())["error_code"] == 400
        assert await client.chunk() == b""
        assert await client.rest() == b""
    assert len(producer.records) == 1


@pytest.mark.parametrize(
    "data",
    [request(f"POST {RECORDS}", JSON, content=b""), OPEN + chunk(b""), OPEN + chunk(b" \r\n") + chunk(b"")],
    ids=["no content", "no chunk", "white space"],
)
async def test_empty_content_is_422(data: bytes) -> None:
    answer = await ask(data)
    assert (answer.status, answer.json["error_code"]) == (422, 422)


@pytest.mark.parametrize(
    ("data", "status", "error_code"),
    [
        (request(f"POST {RECORDS}", "Content-Type: text/plain", content=b"{}"), 415, 415),
        (request(f"POST {BATCH}", "Content-Type: text/plain", content=b"{}"), 415, 415),
        (request(f"GET {RECORDS}"), 405, 405),
        (post(value(1), target=RECORDS.replace("orders", "missing")), 404, 40401),
        (post(value(1), target=RECORDS.replace("orders", "__x")), 403, 40301),
        (post(value(1), target="/v3/clusters/c/topics/orders"), 405, 405),
        (post(value(1), target="/v3/clusters/c/topics/orders/record"), 404, 404),
    ],
)
async def test_what_the_head_shows_to_be_wrong_is_answered_whole(
    data: bytes, status: int, error_code: int
) -> None:
    answer = await ask(data, MemoryProducer(topics=["orders"]))
    assert (answer.status, answer.json["error_code"]) == (status, error_code)


async def test_old_http_gets_its_reports_too() -> None:
    content = json.dumps(value(1)).encode() * 2
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(request(f"POST {RECORDS}", JSON, content=content, version="1.0"))
    assert [report["offset"] for report in answer.lines] == [0, 1]
    assert answer.closes


async def test_route_can_be_a_stream() -> None:
    config = Config(routes=[Route("/in/{topic}", format="rest_v3")])
    answer = await ask(post(value(1), target="/in/orders"), config=config)
    assert (answer.status, answer.json["offset"], answer.json["cluster_id"]) == (200, 0, "")


async def test_routes_path_can_name_the_partition() -> None:
    config = Config(
        routes=[
            Route("/in/{topic}/{partition}", format="rest_v3"),
            Route("/many/{topic}/{partition}", format="rest_v3_batch"),
        ]
    )
    both = {"partition_id": 2, **value(1)}
    answer = await ask(post(value(1), both, target="/in/orders/2"), config=config)
    assert [line.get("partition_id") for line in answer.lines] == [2, None]
    assert (answer.lines[1]["error_code"], "leave one out" in answer.lines[1]["message"]) == (400, True)
    entries = {"entries": [{"id": "a", **value(1)}, {"id": "b", **both}]}
    answer = await ask(post(entries, target="/many/orders/2"), config=config)
    assert answer.json["successes"][0]["partition_id"] == 2
    assert answer.json["failures"][0]["error_code"] == 400


async def test_record_with_too_much_beside_it_fails_alone() -> None:
    many: Any = {"headers": [{"name": ""}] * 101, **value(1)}
    nul: Any = {"headers": [{"name": "a\0b", "value": "aGk="}], **value(1)}
    first: Any = {"timestamp": "1970-01-01T00:00:00Z", **value(1)}
    good: Any = {
        "headers": [{"name": "a\1b", "value": "AA=="}] * 100,
        "timestamp": "1970-01-01T00:00:00.001Z",
    }
    producer = MemoryProducer()
    answer = await ask(post(many, nul, first, good), producer)
    assert [line["error_code"] for line in answer.lines] == [400, 400, 400, 200]
    for line, words in zip(
        answer.lines, ("101 headers; 100 is the most", "NUL", "timestamp is 0"), strict=False
    ):
        assert words in line["message"]
    assert [record.timestamp for record in producer.records] == [1]


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
async def test_null_stands_for_no_headers(make_protocol: Callable[[], HTTPProtocol]) -> None:
    record = {"headers": None, **value(1)}
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        assert (await client.ask(post(record))).json["error_code"] == 200
        answer = await client.ask(post({"entries": [{"id": "a", **record}]}, target=BATCH))
        assert answer.json["failures"] == []
    assert producer.records == [Record("orders", b"1")] * 2


async def test_base64_may_have_no_padding_and_white_space() -> None:
    good = {
        "key": {"data": "aw"},
        "value": {"type": "BINARY", "data": "AP\r\n8="},
        "headers": [{"name": "h", "value": " AP8"}, {"name": "n"}],
    }
    bad_header: dict[str, Any] = good | {"headers": [{"name": "n"}, {"name": "h", "value": "AP8=="}]}
    bad_value = good | {"value": {"data": "a"}}
    record = Record("orders", b"\x00\xff", b"k", (("h", b"\x00\xff"), ("n", None)))
    producer = MemoryProducer()
    written, *refused = (await ask(post(good, bad_header, bad_value), producer)).lines
    assert written["value"] == {"type": "BINARY", "size": 2}
    assert [line["message"] for line in refused] == [
        "Invalid base64 encoded string - at `$.headers[1].value`",
        "value.data of type BINARY: Invalid base64 encoded string",
    ]
    assert producer.records == [record]
    for count in (1, 3_000):
        entries = [{"id": str(number), **good} for number in range(count)]
        producer = MemoryProducer()
        answer = await ask(post({"entries": [*entries, {"id": "bad", **bad_value}]}, target=BATCH), producer)
        assert [failure["id"] for failure in answer.json["failures"]] == ["bad"]
        assert producer.records == [record] * count
        answer = await ask(post({"entries": [*entries, {"id": "bad", **bad_header}]}, target=BATCH))
        assert answer.status == 400
        assert "Invalid base64 encoded string - at `$" in answer.json["message"]


async def test_id_of_an_object_in_a_stream_is_passed_over() -> None:
    # Confluent's ProduceRequest, which a batch's entries share, has the property.
    producer = MemoryProducer()
    answer = await ask(
        post({"id": "1", **value(1)}, {"id": 2, **value(2)}, {"id": None, **value(3)}), producer
    )
    assert [line["error_code"] for line in answer.lines] == [200, 200, 200]
    assert all("id" not in line for line in answer.lines)
    assert [record.value for record in producer.records] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("content", [b"[]", b" [ ] "])
async def test_array_without_objects_is_as_no_content(content: bytes) -> None:
    answer = await ask(post(content))
    assert (answer.status, "no records" in answer.json["message"]) == (422, True)


@pytest.mark.parametrize("digits", [1_000, 5_000])
async def test_what_was_sent_is_not_sent_back_at_length(digits: int) -> None:
    long = post(
        b'{"partition_id":-' + digits * b"9" + b"}", b'{"' + digits * b"x" + b'":1}', value("s", digits * "T")
    )
    answer = await ask(long)
    assert [line["error_code"] for line in answer.lines] == [400, 400, 400]
    assert len(answer.content) < 1_500


# How long, and how much ------------------------------------------------------------------------------------

SHORT = Config(timeouts=Timeouts(stream_idle_seconds=30, stream_seconds=100))


async def test_client_may_pause_between_records_for_so_long(autojump_clock: MockClock) -> None:
    async with open_exchanges(MemoryProducer(), SHORT) as exchanges:
        client = await opened(exchanges)
        for _ in range(3):
            await trio.sleep(29)
            await client.send(chunk(json.dumps(value(1)).encode()))
            assert json.loads(await client.chunk())["error_code"] == 200
        begun = trio.current_time()
        last = json.loads(await client.chunk())
        assert (last["error_code"], last["retriable"], last["outcome"]) == (408, True, "not_written")
        assert "timeouts.stream_seconds" in last["message"]
        assert trio.current_time() - begun < 15
        assert await client.chunk() == b""
        assert await client.rest() == b""


async def test_object_that_begins_late_in_a_pause_has_its_own_time(autojump_clock: MockClock) -> None:
    async with open_exchanges(MemoryProducer(), SHORT) as exchanges:
        client = await opened(exchanges)
        content = json.dumps(value(1)).encode()
        await trio.sleep(29)
        await client.send(chunk(content[:5]))
        await trio.sleep(Timeouts().body_grace_seconds - 1)
        await client.send(chunk(content[5:]))
        assert json.loads(await client.chunk())["error_code"] == 200


async def test_pause_that_is_too_long_ends_the_stream(autojump_clock: MockClock) -> None:
    async with open_exchanges(MemoryProducer(), SHORT) as exchanges:
        client = await opened(exchanges)
        begun = trio.current_time()
        last = json.loads(await client.chunk())
        assert last["error_code"] == 408
        assert "timeouts.stream_idle_seconds" in last["message"]
        assert 30 <= trio.current_time() - begun <= 31
        assert await client.chunk() == b""


async def test_busy_stream_ends_at_its_limit(autojump_clock: MockClock) -> None:
    async with open_exchanges(MemoryProducer(), SHORT) as exchanges:
        client = await opened(exchanges)
        code = 200
        while code == 200:
            await trio.sleep(1)
            await client.send(chunk(json.dumps(value(1)).encode()))
            code = json.loads(await client.chunk())["error_code"]
        assert code == 408
        assert 99 <= trio.current_time() <= 102


async def test_pause_within_a_record_is_as_short_as_in_any_content(autojump_clock: MockClock) -> None:
    async with open_exchanges(MemoryProducer(), SHORT) as exchanges:
        client = await opened(exchanges)
        await client.send(chunk(b'{"value":'))
        begun = trio.current_time()
        last = json.loads(await client.chunk())
        assert "bytes a second" in last["message"]
        assert trio.current_time() - begun <= Timeouts().body_grace_seconds + 1


async def test_idle_stream_does_not_hold_up_a_drain(autojump_clock: MockClock) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        idle, busy = await opened(exchanges), await opened(exchanges)
        await busy.send(chunk(b'{"value":'))
        await trio.testing.wait_all_tasks_blocked()
        for connection in exchanges.connections:
            connection.drain()
        last = json.loads(await idle.chunk())
        assert (last["error_code"], last["outcome"]) == (50301, "not_written")
        assert await idle.chunk() == b""
        await busy.send(chunk(b'{"data":"eA=="}}'))
        assert json.loads(await busy.chunk())["offset"] == 2  # what has begun is finished
        assert json.loads(await busy.chunk())["error_code"] == 50301
        assert trio.current_time() < 1


async def test_stream_of_which_nothing_has_come_in_a_drain_is_refused() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        assert (await client.ask(post(value(1)))).status == 200
        for connection in exchanges.connections:
            connection.drain()
        await client.send(OPEN)
        answer = await client.answer()
        assert (answer.status, answer.json["error_code"]) == (503, 50301)
        assert "retry-after" in answer.fields


async def test_endless_stream_holds_no_more_than_its_window() -> None:
    producer = MemoryProducer()
    one = json.dumps(value(1000 * "x")).encode()
    async with open_exchanges(producer) as exchanges:
        client = await opened(exchanges)
        held = exchanges.budget.held_bytes
        grown = []
        for _ in range(30):
            await client.send(chunk(one * 100))
            reports = 0
            while reports < 100:
                reports += (await client.chunk()).count(b"\r\n")
            assert exchanges.budget.held_bytes == held
            producer.records.clear()
            if not tracemalloc.is_tracing():
                tracemalloc.start()
            grown.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert grown[-1] - grown[5] < 100_000


async def test_object_that_does_not_end_is_refused_and_not_kept() -> None:
    config = Config(limits=Limits(record_bytes=100_000))
    async with open_exchanges(MemoryProducer(record_bytes=100_000), config) as exchanges:
        client = await opened(exchanges)
        held = exchanges.budget.held_bytes
        await client.send(chunk(b'{"value":{"data":"'))
        for _ in range(3):
            await client.send(chunk(60_000 * b"x"))
            await trio.testing.wait_all_tasks_blocked()
        assert exchanges.budget.held_bytes - held >= 110_000  # of which a read is in the window
        await client.send(chunk(60_000 * b"x"))
        assert json.loads(await client.chunk())["error_code"] == 413
        assert await client.chunk() == b""


# Batches -------------------------------------------------------------------------------------------------


async def test_batch_is_answered_by_the_entries_ids() -> None:
    producer = ChoosyProducer()
    entries = [
        {"id": "1"} | value({"a": 1}),
        {"id": "b"} | value("x", "AVRO"),
        {"id": "3"} | value("unknown"),
        {"id": "4", "key": {"type": "STRING", "data": "k"}, "partition_id": 2},
    ]
    answer = await ask(post({"entries": entries}, target=BATCH), producer)
    assert answer.status == 207
    first, fourth = answer.json["successes"]
    assert first == {
        "id": "1",
        "cluster_id": "c-1",
        "topic_name": "orders",
        "partition_id": 0,
        "offset": 0,
        "value": {"type": "JSON", "size": 8},
    }
    assert (fourth["id"], fourth["partition_id"], fourth["key"]) == ("4", 2, {"type": "STRING", "size": 1})
    failures = [(each["id"], each["error_code"], each["outcome"]) for each in answer.json["failures"]]
    assert failures == [("b", 400, "not_written"), ("3", 50003, "unknown")]
    assert len(producer.records) == 2


@pytest.mark.parametrize(
    ("content", "status", "error_code"),
    [
        ({"entries": []}, 422, 42208),
        ({}, 422, 42208),
        ({"entries": [value(1)]}, 422, 42208),
        ({"entries": [value(1) | {"id": ""}]}, 422, 42208),
        ({"entries": [value(1) | {"id": 1}]}, 422, 42208),
        ({"entries": [value(1) | {"id": 81 * "x"}]}, 422, 42208),
        ({"entries": [value(1) | {"id": "1"}, value(1) | {"id": "1"}]}, 422, 42208),
        ({"entries": [value(1) | {"id": "1", "x": 1}]}, 400, 400),
        ({"entries": 1}, 400, 400),
        (b'{"entries":[{"id":"1","headers":[{"name":"h","value":"AA"}]}],"entries":null}', 422, 42208),
        (b'{"entries":[', 400, 400),
        (b'{"entries":[{"id":"1","value":{"data":"\xff"}}]}', 400, 400),
        (b"", 400, 400),
        (b"[]", 400, 400),
    ],
)
async def test_batch_that_is_wrong_writes_nothing(content: object, status: int, error_code: int) -> None:
    producer = MemoryProducer()
    answer = await ask(post(content, target=BATCH), producer)
    assert (answer.status, answer.json["error_code"]) == (status, error_code)
    assert producer.records == []


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("colon", ["%3A", "%3a"])
async def test_colon_of_a_batch_may_be_percent_encoded(
    colon: str, make_protocol: Callable[[], HTTPProtocol]
) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        for target in (BATCH, "/kafka" + BATCH):
            target = target.replace(":", colon)
            answer = await client.ask(post({"entries": [{"id": "1"} | value(1)]}, target=target))
            assert (answer.status, len(answer.json["successes"])) == (207, 1)
            assert (await client.ask(request(f"OPTIONS {target}"))).fields["allow"] == "POST, OPTIONS"
        # In the place of a topic it is one of no name, and a path that is configured so stays as it is.
        answer = await client.ask(post(value(1), target=RECORDS.replace("orders", f"a{colon}b")))
        assert (answer.status, "'a:b' is not a name" in answer.json["message"]) == (400, True)
        assert (await client.ask(post(target=f"/no{colon}where"))).status == 404
    config = Config(routes=[Route(f"/a{colon}b", "coded"), Route("/a:b", "plain")])
    for written, topic in ((colon, "coded"), (":", "plain")):
        answer = await ask(request(f"POST /a{written}b", content=b"x"), producer, config)
        assert answer.json["topic"] == topic


async def test_large_batch_keeps_its_order_and_the_same_rules() -> None:
    producer = MemoryProducer()
    entries = [{"id": str(number)} | value(number) for number in range(20_000)]
    answer = await ask(post({"entries": entries}, target="/kafka" + BATCH), producer)
    assert [each["id"] for each in answer.json["successes"]] == [each["id"] for each in entries]
    assert [record.value for record in producer.records] == [b"%d" % number for number in range(20_000)]
    for wrong, status, error_code in (
        (b'{"entries":%b,"x":1}', 400, 400),
        (b'{"entries":%b,"entries":[{}]}', 400, 400),
        (b'{"entries":%b,"entries":[]}', 422, 42208),
        (b'{"entries":%b,"entri\\u0065s":[]}', 422, 42208),
        (b'{"entri\\u0065s":%b}', 422, 42208),
    ):
        content = wrong % json.dumps(entries).encode()
        answer = await ask(post(content, target=BATCH))
        assert (answer.status, answer.json["error_code"]) == (status, error_code)
    entries[-1] = entries[0]
    answer = await ask(post({"entries": entries}, target=BATCH))
    assert answer.json["error_code"] == 42208


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        (b'{"id":"x","value":1}', "`$.entries[1500].value`"),
        (b'{"id":"x","headers":[{"name":"h","value":"*"}]}', "`$.entries[1500].headers[0].value`"),
        (b'{"id":"x" 1}', "entry 1501: invalid JSON: expected ',' or '}' (byte 10)"),
        (b'{"id":"\xff"}', "entry 1501: invalid JSON: not UTF-8 at byte 7"),
        (b"null", "entry 1501: invalid JSON"),
    ],
)
async def test_what_is_wrong_in_a_large_batch_has_its_place_in_all_of_it(entry: bytes, place: str) -> None:
    producer = MemoryProducer()
    entries = [b'{"id":"%d","value":{"data":"%b"}}' % (number, 600 * b"x") for number in range(2_000)]
    entries[1_500] = entry
    answer = await ask(post(b'{"entries":[%b]}' % b",".join(entries), target=BATCH), producer)
    assert (answer.status, producer.records) == (400, [])
    assert place in answer.json["message"]


async def test_number_of_entries_has_a_limit() -> None:
    many = b",".join(b'{"id":"%d"}' % number for number in range(MOST_RECORDS + 1))
    producer = MemoryProducer()
    answer = await ask(post(b'{"entries":[%b]}' % many, target=BATCH), producer)
    assert answer.status == 413
    assert f"more than {MOST_RECORDS} entries" in answer.json["message"]
    assert producer.records == []


# Cutting -------------------------------------------------------------------------------------------------


def cut(text: bytes, size: int) -> Iterator[bytes]:
    cutter = Cutter(1 << 20)
    for at in range(0, len(text), size):
        cutter.feed(text[at : at + size])
        while (found := cutter.next()) is not None:
            if found:
                yield found
    cutter.end()


objects = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.floats(allow_nan=False) | st.text(alphabet='"\\{}[]é\n'),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\{}[]'), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)


@given(st.lists(objects, max_size=5), st.integers(1, 40), st.sampled_from(["", " ", "\r\n"]), st.booleans())
def test_objects_are_cut_where_they_end(
    those: list[dict[str, Any]], size: int, between: str, in_array: bool
) -> None:
    written = [json.dumps(each, ensure_ascii=False).encode() for each in those]
    blank = between.encode()
    text = b"[" + (blank + b"," + blank).join(written) + b"]" if in_array else blank.join(written)
    assert list(cut(blank + text + blank, size)) == written


BRACKETS = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b"[[[[[[", b"]]]]]]", b'{"":[', b"]}", b"[],", b'"', b'"]"', b"\\", b","]
    )
).map(b"".join)


@given(st.text(alphabet='{}[],:"\\ a1').map(str.encode) | BRACKETS, st.integers(1, 10))
def test_what_is_cut_is_the_same_however_it_comes(text: bytes, size: int) -> None:
    def outcome(size: int) -> list[bytes | None]:
        found: list[bytes | None] = []
        try:
            found.extend(cut(text, size))  # what comes before an error stays in
        except IngestError:
            found.append(None)
        return found

    assert outcome(size) == outcome(len(text) + 1)


def test_others_have_their_turn_while_brackets_are_counted() -> None:
    cutter = Cutter(1 << 30)
    cutter.feed(b'{"a":[' + TOKENS_AT_ONCE * b"[[[[[[[]]]]]]],")
    turns = list(iter(cutter.next, None))
    assert len(turns) >= 2
    assert set(turns) == {b""}


@pytest.mark.parametrize("inner", [b"[", b'{"":', b"[[],", b'["]",'])
def test_an_object_may_be_nested_so_deep_and_no_deeper(inner: bytes) -> None:
    ends = b"}" if inner.startswith(b"{") else b"]"
    for size in (7, 1_000_000):
        deep, deeper = (
            b'{"a":' + depth * inner + b"0" + depth * ends + b"}"
            for depth in (MOST_NESTED - 10, MOST_NESTED + 10)
        )
        assert list(cut(deep * 3, size)) == [deep] * 3
        with pytest.raises(BadRequest, match=f"nested too deeply; about {MOST_NESTED} brackets"):
            list(cut(deeper, size))


# Whatever comes ------------------------------------------------------------------------------------------

FRAGMENTS = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b",", b":", b'"', b'"entries"', b'"id"', b'"1"', b'"value"', b'"data"',
         b'"type"', b'"STRING"', b'"BINARY"', b'"JSON"', b'"\\ud800"', b'"headers"', b'"name"', b"null",
         b"-1", b"1e999", b"\xff", b'"timestamp"', b'"9999-12-31T23:59:59Z"', b'"partition_id"', b" "]
    ),
    max_size=40,
).map(b"".join)  # fmt: skip
WHOLE_OBJECTS = st.builds(
    lambda data, type_, more: b'{"id":"1","value":{"type":%b,"data":%b}%b}' % (type_, data, more),
    FRAGMENTS | st.sampled_from([b'"\\ud800"', b'"eA=="', b"[1]"]),
    st.sampled_from([b'"STRING"', b'"JSON"', b'"BINARY"', b"null", b"1"]),
    st.sampled_from([b"", b',"timestamp":"9999-12-31T23:59:59Z"', b',"id":"\\ud800"', b',"headers":[{}]']),
)


def opened_reader(format_: Format, path: str) -> Reader | StreamReader:
    match = Match(Route(path, format=format_.name), "t", None, None, False, False, True, cluster="c")
    asked = Request("POST", b"/", b"1.1", (), 0)
    return format_.open(read_intent(asked, match, [format_]), Bounds(10**6, 10**6, 10**7, 10**7))


def test_batches_cost_no_more_than_they_may() -> None:
    match = Match(Route("/t", "t", format="rest_v3"), "t", None, None, False, False, True)
    format_ = RestV3(paths=True)
    asked = Request("POST", b"/t", b"1.1", (), 0)
    reader = format_.open(read_intent(asked, match, [format_]), Bounds(10_000, 10**6, 10**7, 30_000))
    one = json.dumps({"headers": [{"name": "h"}] * 30, **value(1)}).encode()
    batches = list(reader.feed(one * 20))
    assert [number for each in batches for number in each.numbers] == list(range(1, 21))
    assert max(each.cost for each in batches) <= 30_000
    assert len(batches) < 10


@given(FRAGMENTS | WHOLE_OBJECTS)
def test_nothing_but_an_answer_comes_of_any_stream(content: bytes) -> None:
    reader = opened_reader(RestV3(paths=True), "/s/{topic}")
    assert isinstance(reader, StreamReader)
    try:
        for batch in (*reader.feed(content), *reader.end()):
            reports: list[DeliveryReport] = [Receipt("t", 0, 1, None) for _ in batch.numbers]
            lines = reader.results(batch, reports).split(b"\r\n")[:-1]
            assert len(lines) == len(batch.numbers) + len(batch.failures)
            assert all(json.loads(line)["error_code"] for line in lines)
    except IngestError as error:
        assert error.status in (400, 422)


@pytest.mark.parametrize("content", [b'[{"entries":[{"id":"1"}]}]', b' "entries"', b"entries=1", b"7", b" "])
@pytest.mark.parametrize("in_steps", [False, True])
def test_a_batch_that_is_no_object_is_refused_alike_in_steps(content: bytes, in_steps: bool) -> None:
    reader = opened_reader(RestV3Batch(paths=True), "/b/{topic}")
    assert isinstance(reader, Reader)
    with pytest.raises(IngestError) as raised:
        list(reader.read_in_steps(content)) if in_steps else reader.read(content)
    assert raised.value.status == 400


@given(FRAGMENTS | st.lists(WHOLE_OBJECTS).map(lambda those: b'{"entries":[' + b",".join(those) + b"]}"))
def test_nothing_but_an_answer_comes_of_any_batch(content: bytes) -> None:
    found: list[object] = []
    for in_steps in (False, True):
        reader = opened_reader(RestV3Batch(paths=True), "/b/{topic}")
        assert isinstance(reader, Reader)
        try:
            batches = list(reader.read_in_steps(content)) if in_steps else [reader.read(content)]
        except IngestError as error:
            assert error.status in (400, 422)
            found.append(None)
        else:
            found.append([record for batch in batches for record in batch.records])
    if b"\\u" not in content:
        assert found[0] == found[1]
