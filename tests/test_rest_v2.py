"""REST Proxy v2 over HTTP: envelopes in, in the words of three servers, and their answers out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ingest.config import Config
from ingest.errors import (
    DeliveryFailed,
    DeliveryUnknown,
    IngestError,
    KafkaUnavailable,
    RecordRefused,
    UnknownPartition,
)
from ingest.formats.rest_v2 import EnvelopeReader, RestV2
from ingest.formats.seam import MOST_RECORDS, Batch, Bounds, Head
from ingest.http.engines import ENGINES
from ingest.http.messages import Request
from ingest.http.protocol import HTTPProtocol
from ingest.intent import read_intent
from ingest.records import DeliveryReport, Record
from ingest.route import Dialect, Route
from ingest.routing import Match
from ingest.sections import HTTP, Compat, Limits
from ingest.testing import FailingProducer, MemoryProducer, StallingProducer
from tests.client import Answer, chunk, request
from tests.exchange import open_exchanges

JSON = "application/vnd.kafka.json.v2+json"
BINARY = "application/vnd.kafka.binary.v2+json"
TEXT = "application/vnd.kafka.text.v2+json"
NOWHERE = {"partition": None, "offset": None}
DIALECTS: list[Dialect] = ["confluent", "karapace", "strimzi"]


def post(envelope: object, type_: str | None = JSON, *fields: str, target: str = "/topics/orders") -> bytes:
    content = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
    named = [] if type_ is None else [f"Content-Type: {type_}"]
    return request(f"POST {target}", *named, *fields, content=content)


def records(*items: dict[str, Any]) -> dict[str, Any]:
    return {"records": list(items)}


def dialect(name: Dialect, **more: Any) -> Config:
    return Config(compat=Compat(v2_dialect=name, **more))


async def ask(
    data: bytes,
    producer: MemoryProducer | None = None,
    config: Config = Config(),  # noqa: B008  # frozen
) -> Answer:
    async with open_exchanges(producer or MemoryProducer(), config) as exchanges:
        return await exchanges.ask(data)


class ChoosyProducer(MemoryProducer):
    """Reports what a record's value names."""

    errors: dict[bytes | None, IngestError] = {  # noqa: RUF012
        b'"unknown"': DeliveryUnknown("no report came in time"),
        b'"failed"': DeliveryFailed("Kafka says something else"),
        b'"refused"': RecordRefused("a broker refused the record"),
        b'"partition"': UnknownPartition("there is no such partition"),
        b'"down"': KafkaUnavailable("all brokers are down"),
    }

    def _report(self, record: Record) -> DeliveryReport:
        return self.errors.get(record.value) or super()._report(record)


def values(*names: str) -> bytes:
    return post(records(*({"value": name} for name in names)))


# Records -------------------------------------------------------------------------------------------------


async def test_envelope_becomes_records_byte_for_byte() -> None:
    producer = MemoryProducer()
    content = (
        b'{"records" : [ {"value": {"a" : 1.0e1 , "b":"\\u00e9"} , "key":"k1", "partition": 1, '
        b'"timestamp": 1591897790000, "headers":[{"key":"h","value":"dmFsdWUx"},{"key":"n","value":null}]},'
        b'{"value":null},{"key":null,"value":false},{}], "key_schema_id": null}'
    )
    answer = await ask(post(content), producer)
    assert producer.records == [
        Record(
            "orders",
            b'{"a" : 1.0e1 , "b":"\\u00e9"}',
            b'"k1"',
            (("h", b"value1"), ("n", None)),
            1,
            1591897790000,
        ),
        Record("orders", None),
        Record("orders", b"false"),
        Record("orders", None),
    ]
    assert answer.status == 200
    assert answer.fields["content-type"] == "application/vnd.kafka.v2+json"
    assert answer.json == {
        "offsets": [
            {"partition": partition, "offset": offset, "error_code": None, "error": None}
            for partition, offset in ((1, 0), (0, 0), (0, 1), (0, 2))
        ],
        "key_schema_id": None,
        "value_schema_id": None,
    }


@pytest.mark.parametrize(
    ("type_", "item", "value", "key"),
    [
        (JSON, {"value": "v", "key": 7}, b'"v"', b"7"),
        (BINARY, {"value": "AP8=", "key": "aw=="}, b"\x00\xff", b"k"),
        (BINARY, {"value": "AP8="}, b"\x00\xff", None),
        (BINARY, {"value": "", "key": None}, b"", None),
        (TEXT, {"value": "é", "key": ""}, "é".encode(), b""),
        (TEXT, {"value": "é"}, "é".encode(), None),
        ("application/vnd.kafka.json.v1+json", {"value": 1}, b"1", None),
        ("application/vnd.kafka.json+json", {"value": 1}, b"1", None),
        ("Application/Vnd.Kafka.JSON.v2+json; charset=utf-8", {"value": 1}, b"1", None),
        ("application/vnd.kafka.binary.v1+json", {"value": "AP8="}, b"\x00\xff", None),
        ("application/vnd.kafka.text+json", {"value": "t"}, b"t", None),
        *(
            (type_, {"value": "AP8="}, b"\x00\xff", None)
            for type_ in (
                "application/vnd.kafka.v2+json",
                "application/vnd.kafka.v1+json",
                "application/vnd.kafka+json",
                "application/json",
                "application/octet-stream",
                None,
            )
        ),
    ],
)
async def test_media_type_says_how_keys_and_values_are_written(
    type_: str | None, item: dict[str, Any], value: bytes, key: bytes | None
) -> None:
    producer = MemoryProducer()
    assert (await ask(post(records(item), type_), producer)).status == 200
    assert producer.records == [Record("orders", value, key)]


@pytest.mark.parametrize("count", [1, 5_000])
@pytest.mark.parametrize(
    ("written", "found"),
    [("AP8", b"\x00\xff"), ("AP\r\n8=\n", b"\x00\xff"), ("A\tA", b"\x00"), (" ", b"")],
)
async def test_base64_may_have_no_padding_and_white_space(written: str, found: bytes, count: int) -> None:
    item = {"key": "aw", "value": written, "headers": [{"key": "h", "value": written}, {"key": "n"}]}
    producer = MemoryProducer()
    answer = await ask(post(records(*[item] * count, {"value": "AP8="}), BINARY), producer)
    assert answer.status == 200
    headers = (("h", found), ("n", None))
    assert producer.records == [
        *[Record("orders", found, b"k", headers)] * count,
        Record("orders", b"\x00\xff"),
    ]
    # The headers of JSON and text are in base64 too, and their keys and values are not.
    for type_, value in ((JSON, json.dumps(written).encode()), (TEXT, written.encode())):
        producer = MemoryProducer()
        await ask(post(records(item), type_), producer)
        assert (producer.records[0].value, producer.records[0].headers) == (value, headers)


@pytest.mark.parametrize("count", [0, 5_000])
async def test_base64_that_is_none_is_named_by_its_place(count: int) -> None:
    many = [{"value": "AP8"}] * count
    for surplus in ("YWJj=", "YWJj====", "AA==="):
        assert (await ask(post(records(*many, {"value": surplus}), BINARY))).status == 400
    answer = await ask(post(records(*many, {"value": "AA"}, {"key": "AP8=="}), BINARY))
    assert answer.json["message"] == f"Invalid base64 encoded string - at `$.records[{count + 1}].key`"
    wrong = {"value": "AA", "headers": [{"key": "h"}, {"key": "h", "value": "*"}]}
    answer = await ask(post(records(*many, wrong), BINARY))
    place = f"`$.records[{count}].headers[1].value`"
    assert answer.json["message"] == f"Invalid base64 encoded string - at {place}"


async def test_path_can_name_the_partition() -> None:
    producer = MemoryProducer()
    answer = await ask(post(records({"value": 1}), target="/topics/orders/partitions/7"), producer)
    assert answer.json["offsets"][0]["partition"] == 7
    answer = await ask(post(records({"key": 2, "value": 1}), target="/topics/orders/partitions/7"), producer)
    assert answer.json["offsets"][0]["partition"] == 7
    assert producer.records == [
        Record("orders", b"1", partition=7),
        Record("orders", b"1", b"2", partition=7),
    ]
    for wrong in ("x", "-1", "4294967296", "%31"):
        answer = await ask(post(records({"value": 1}), target=f"/topics/orders/partitions/{wrong}"))
        assert (answer.status, answer.json["error_code"]) == (404, 40402)


async def test_any_route_takes_an_envelope_by_its_media_type_in_its_own_dialect() -> None:
    producer = MemoryProducer()
    config = Config(
        routes=[
            Route("/clicks", "clicks", v2_dialect="strimzi"),
            Route("/bridge/{topic}/{partition}", format="rest_v2", v2_dialect="karapace"),
        ]
    )
    envelope = records({"value": "AP8="})
    clicks = await ask(post(envelope, BINARY, target="/clicks"), producer, config)
    assert clicks.json == {"offsets": [{"partition": 0, "offset": 0}]}
    bridge = await ask(post(envelope, None, target="/bridge/orders/3"), producer, config)
    assert bridge.json["offsets"] == [{"partition": 3, "offset": 0}]
    orders = await ask(post(envelope, BINARY), producer, config)
    assert orders.json["offsets"][0]["error_code"] is None
    plain = await ask(post(envelope, "application/json", target="/clicks"), producer, config)
    assert plain.json["topic"] == "clicks"


async def test_a_route_with_the_path_has_its_own_dialect_and_promise() -> None:
    config = Config(routes=[Route("/topics/{topic}", v2_dialect="karapace", promise="queued")])
    producer = StallingProducer()
    answer = await ask(post(records({"value": 1}, {"value": 2})), producer, config)
    assert answer.status == 202
    assert answer.json["offsets"] == [{"partition": None, "offset": None}] * 2


async def test_paths_can_be_left_out() -> None:
    # With the native way the topic can still be looked up there.
    for http, status in (({"rest_proxy": False}, 405), ({"native": False}, 404)):
        answer = await ask(post(records({"value": 1})), config=Config(http=http))  # type: ignore[arg-type]
        assert answer.status == status


# What is wrong with the whole ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        pytest.param(post(b'{"records":[{"value":1}'), (400, 400, 400), id="bad JSON"),
        pytest.param(post(b'{"records":[{"value":"\xff"}]}'), (400, 400, 400), id="not UTF-8"),
        pytest.param(post(b'{"records":[{"value":' + 5000 * b"["), (400, 400, 400), id="deep"),
        pytest.param(post(b""), (400, 400, 400), id="no content"),
        pytest.param(post(b"[]"), (400, 400, 400), id="no object"),
        pytest.param(post({"records": [1]}), (400, 400, 400), id="record that is no object"),
        pytest.param(post(records({"value": 1, "partition": "1"})), (400, 400, 400), id="wrong type"),
        pytest.param(post(records({"value": 1}), TEXT), (400, 400, 400), id="no string"),
        pytest.param(post(records({"value": "AP8=="}), BINARY), (400, 400, 422), id="bad base64"),
        pytest.param(post(records({"value": "é"}), BINARY), (400, 400, 422), id="no base64"),
        pytest.param(post(records({"value": "a"}), BINARY), (400, 400, 422), id="one digit of base64"),
        pytest.param(
            post(records({"value": 1, "headers": [{"key": "h", "value": "?"}]})), (400, 400, 422), id="header"
        ),
        pytest.param(
            post(b'{"records":[{"value":"AP8"}],"records":null}', BINARY), (422, 422, 422), id="then null"
        ),
        pytest.param(post(records({"value": 1, "vlue": 1})), (422, 422, 400), id="unknown field"),
        pytest.param(post({"records": [{"value": 1}], "x": 1}), (422, 422, 400), id="unknown field outside"),
        pytest.param(post(records()), (422, 422, 422), id="no records"),
        pytest.param(post({}), (422, 422, 422), id="no array"),
        pytest.param(post({"records": None}), (422, 422, 422), id="null"),
        pytest.param(post(records({"value": 1, "partition": -1})), (422, 422, 422), id="partition below 0"),
        pytest.param(
            post(records({"value": 1, "partition": 1}), target="/topics/orders/partitions/1"),
            (422, 422, 422),
            id="two partitions",
        ),
        pytest.param(post(records({"value": 1}), "text/xml"), (415, 415, 400), id="media type"),
        pytest.param(
            post(records({"value": 1}), "application/vnd.kafka.avro.v2+json"), (415, 415, 400), id="Avro"
        ),
        pytest.param(post(records({"value": 1}), target="/topics/__x"), (403, 403, 403), id="internal topic"),
    ],
)
async def test_envelope_that_is_wrong_writes_nothing(data: bytes, statuses: tuple[int, int, int]) -> None:
    for name, status in zip(DIALECTS, statuses, strict=True):
        producer = MemoryProducer()
        answer = await ask(data, producer, dialect(name))
        assert answer.status == status
        assert set(answer.json) == {"error_code", "message", "outcome", "retriable"}
        assert answer.json["outcome"] == "not_written"
        assert producer.records == []


async def test_message_says_where() -> None:
    answer = await ask(post(records({"value": 1}, {"value": 1, "nope": 1})))
    assert answer.json["message"] == "Object contains unknown field `nope` - at `$.records[1]`"


async def test_other_methods_are_refused() -> None:
    answer = await ask(request("DELETE /topics/orders?key=k"))
    assert (answer.status, answer.fields["allow"]) == (405, "POST, GET, HEAD, OPTIONS")


# What becomes of each record -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "items"),
    [
        (
            "confluent",
            200,
            [
                {"partition": 0, "offset": 0, "error_code": None, "error": None},
                {"partition": None, "offset": None, "error_code": 50003, "error": "no report came in time"},
                {
                    "partition": None,
                    "offset": None,
                    "error_code": 50003,
                    "error": "there is no such partition",
                },
            ],
        ),
        (
            "karapace",
            422,
            [
                {"partition": 0, "offset": 0},
                {"error_code": 2, "error": "no report came in time"},
                {"error_code": 1, "error": "there is no such partition"},
            ],
        ),
        (
            "strimzi",
            200,
            [
                {"partition": 0, "offset": 0},
                {"error_code": 500, "message": "no report came in time"},
                {"error_code": 404, "message": "there is no such partition"},
            ],
        ),
    ],
)
async def test_failed_records_have_their_place_in_the_answer(
    name: Dialect, status: int, items: list[dict[str, Any]]
) -> None:
    answer = await ask(values("ok", "unknown", "partition"), ChoosyProducer(), dialect(name))
    assert (answer.status, answer.json["offsets"]) == (status, items)
    assert ("key_schema_id" in answer.json) == (name != "strimzi")
    expected = JSON if name == "karapace" else "application/vnd.kafka.v2+json"
    assert answer.fields["content-type"] == expected


@pytest.mark.parametrize("type_", [BINARY, TEXT, "application/json", "application/octet-stream", None])
async def test_karapaces_answers_have_one_media_type(type_: str | None) -> None:
    producer = ChoosyProducer()
    for value in ("AP8=", "é"):  # the second fails as base64, and the whole with it
        answer = await ask(post(records({"value": value}), type_), producer, dialect("karapace"))
        json_type = JSON if answer.status == 200 else "application/json"
        assert answer.fields["content-type"] == json_type


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["refused"], 400),
        (["partition", "refused"], 404),
        (["down", "partition"], 503),
        (["partition", "unknown", "down"], 504),
        (["failed"], 504),
    ],
)
@pytest.mark.parametrize("name", DIALECTS)
async def test_if_all_failed_the_status_is_a_failures_own(
    name: Dialect, names: list[str], status: int
) -> None:
    answer = await ask(values(*names), ChoosyProducer(), dialect(name))
    assert answer.status == status
    assert len(answer.json["offsets"]) == len(names)
    assert ("retry-after" in answer.fields) == (status == 503)
    strict = await ask(values(*names), ChoosyProducer(), dialect(name, v2_strict_200=True))
    assert strict.status == (422 if name == "karapace" else 200)
    assert strict.content == answer.content


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", DIALECTS)
async def test_partition_of_the_path_that_the_topic_lacks_refuses_the_whole_but_for_strimzi(
    name: Dialect, strict: bool
) -> None:
    producer = FailingProducer(UnknownPartition("the topic has no such partition"))
    config = dialect(name, v2_strict_200=strict)
    there = {"value": 1}
    answer = await ask(post(records(there, there), target="/topics/orders/partitions/7"), producer, config)
    if name == "strimzi":
        assert answer.status == (200 if strict else 404)
        assert [item["error_code"] for item in answer.json["offsets"]] == [404, 404]
    elif name == "confluent" and strict:  # as its versions since 6.0
        assert answer.status == 200
        assert [item["error_code"] for item in answer.json["offsets"]] == [50003, 50003]
    else:
        assert (answer.status, answer.json["error_code"]) == (404, 40402)
        assert answer.json["message"] == "the topic has no such partition"
        assert answer.fields["content-type"] == "application/json"
    # A record's own partition is that record's failure.
    own = records(there | {"partition": 7}, there | {"partition": 8})
    assert len((await ask(post(own), producer, config)).json["offsets"]) == 2


@pytest.mark.parametrize("name", DIALECTS)
async def test_unknown_topic_is_the_failure_of_each_record_but_for_karapace(name: Dialect) -> None:
    answer = await ask(post(records({"value": 1}, {"value": 2})), MemoryProducer(topics=["t"]), dialect(name))
    assert answer.status == 404
    if name == "karapace":
        assert answer.json["error_code"] == 40401
    else:
        code = 50003 if name == "confluent" else 404
        assert [item["error_code"] for item in answer.json["offsets"]] == [code, code]


async def test_record_that_is_too_large_fails_alone() -> None:
    producer = MemoryProducer(record_bytes=100)
    large, fits = {"value": 101 * "x"}, {"value": 98 * "x"}
    answer = await ask(post(records(fits, large, fits)), producer)
    assert answer.status == 200
    assert [item["error_code"] for item in answer.json["offsets"]] == [None, 50002, None]
    assert "100 is the most for this topic" in answer.json["offsets"][1]["error"]
    assert (await ask(post(records(large)), producer)).status == 413
    assert len(producer.records) == 2


async def test_record_with_too_much_beside_it_fails_alone() -> None:
    items: list[dict[str, Any]] = [
        {"headers": [{"key": ""}] * 101},
        {"headers": [{"key": "a\0b", "value": "aGk="}]},
        {"timestamp": 0},
        {"headers": [{"key": "a\1b", "value": "AA=="}] * 100, "timestamp": 1},
    ]
    producer = MemoryProducer()
    answer = await ask(post(records(*items)), producer)
    assert answer.status == 200
    *failed, good = answer.json["offsets"]
    for item, words in zip(failed, ("101 headers; 100 is the most", "NUL", "timestamp is 0"), strict=True):
        assert (item["error_code"], words in item["error"]) == (50002, True)
    assert (good["offset"], len(producer.records)) == (0, 1)
    assert (await ask(post(records(*items[:3])))).status == 400


@pytest.mark.parametrize("digits", [1_000, 5_000])
async def test_what_was_sent_is_not_sent_back_at_length(digits: int) -> None:
    for item, status in ((b'"partition":-' + digits * b"9", 400), (b'"' + digits * b"x" + b'":1', 422)):
        answer = await ask(post(b'{"records":[{%b}]}' % item))
        assert (answer.status, len(answer.content) < 400) == (status, True)


async def test_strimzis_async_does_not_wait() -> None:
    envelope = records({"value": 1})
    producer = StallingProducer()
    answer = await ask(post(envelope, target="/topics/orders?async=true"), producer, dialect("strimzi"))
    assert (answer.status, answer.content) == (204, b"")
    assert producer.ledger.accepted == 1
    answer = await ask(post(envelope, target="/topics/orders?async=true"))
    assert answer.status == 200  # nobody else knows it
    forbidden = Config(
        routes=[Route("/topics/{topic}", v2_dialect="strimzi", respond_async=False)],
    )
    answer = await ask(post(envelope, target="/topics/orders?async=true"), config=forbidden)
    assert answer.status == 200


async def test_strimzis_async_says_what_was_not_taken() -> None:
    data = post(records({"value": "s"}, {"value": "x" * 1_000_001}), TEXT, target="/topics/orders?async=true")
    answer = await ask(data, StallingProducer(), dialect("strimzi"))
    assert answer.status == 202
    taken, refused = answer.json["offsets"]
    assert (taken, refused["error_code"]) == (NOWHERE, 500)
    assert "limits.record_bytes" in refused["message"]


CE = [
    f"ce-{name}: {value}"
    for name, value in (("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t"))
]


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(
    ("type_", "fields", "content"),
    [
        ("application/x-ndjson", [], b'{"a":1}\n'),
        ("application/cloudevents+json", [], b"{}"),
        ("application/cloudevents-batch+json", [], b"[]"),
        ("application/json", CE, b'{"a":1}'),
        ("application/json", CE, b"[1]"),
        ("application/json", CE, b"{}"),
        ("application/json", CE, b'{"a":"%b"}' % (70_000 * b"x")),
        ("application/json", [], b'{"records":1}'),
        ("application/json", [], b'{"a":1}\n{"a":2}\n'),
        (None, [], b"text"),
    ],
)
async def test_what_is_no_envelope_is_told_where_it_is_written(
    type_: str | None,
    fields: list[str],
    content: bytes,
    name: Dialect,
    make_protocol: Callable[[], HTTPProtocol],
) -> None:
    hint = "such as NDJSON or a CloudEvent, is for /topics/{topic}/records"
    for target in ("/topics/orders", "/topics/orders/partitions/0"):
        data = post(content, type_, *fields, target=target)
        producer = MemoryProducer()
        async with open_exchanges(producer, dialect(name)) as exchanges:
            answer = await exchanges.connect(make_protocol=make_protocol).ask(data)
        assert answer.status in (400, 415, 422)
        assert hint in answer.json["message"]
        # Where there is no such path, or what is sent says that it is an envelope, nothing points there.
        nowhere = Config(compat=Compat(v2_dialect=name), http=HTTP(native=False, rest_proxy=True))
        assert hint not in (await ask(data, producer, nowhere)).json["message"]
        assert hint not in (await ask(post(content, target=target), producer)).json["message"]
        assert producer.records == []


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("kind", ["avro", "jsonschema", "protobuf"])
async def test_envelope_with_a_schema_is_told_why_it_is_refused_and_what_is_taken(
    kind: str, make_protocol: Callable[[], HTTPProtocol]
) -> None:
    config = Config(routes=[Route("/in/{topic}")])
    async with open_exchanges(MemoryProducer(), config) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        for target in ("/topics/orders", "/topics/orders/records", "/in/orders"):
            answer = await client.ask(
                post(records({"value": 1}), f"application/vnd.kafka.{kind}.v2+json", target=target)
            )
            assert answer.status == 415
            assert "there is no schema registry here" in answer.json["message"]
            assert JSON in answer.json["message"]
            answer = await client.ask(post(b"", "application/vnd.kafka.other.v2+json", target=target))
            assert "schema registry" not in answer.json["message"]
            assert JSON in answer.json["message"]


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("content", [b"", b" \r\n"])
async def test_empty_content_is_called_so(content: bytes, make_protocol: Callable[[], HTTPProtocol]) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.connect(make_protocol=make_protocol).ask(post(content))
    assert answer.status == 400
    assert answer.json["message"].startswith('the content is empty; an envelope is {"records":[')


NEVER: list[dict[str, Any]] = [{"value": 1, "timestamp": 0}, {"value": 2, "headers": [{"key": "a\0b"}]}]
"""Records that no producer can write."""


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("size", [1, 70_000], ids=["small", "large"])
@pytest.mark.parametrize("name", DIALECTS)
async def test_what_can_never_be_written_is_refused_before_an_answer_from_memory(
    name: Dialect, size: int, make_protocol: Callable[[], HTTPProtocol]
) -> None:
    producer = StallingProducer()
    asked = ("/topics/orders?async=true", "/topics/orders/records?key=k")
    config = dialect(name)
    async with open_exchanges(producer, config) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        for accepted, target in enumerate(asked, 1):
            mixed = post(
                records(NEVER[0], {"value": size * "x"}, NEVER[1]),
                JSON,
                "Prefer: respond-async",
                target=target,
            )
            answer = await client.ask(mixed)
            first, taken, last = answer.json["offsets"]
            assert answer.status == (422 if name == "karapace" else 202)
            assert taken["offset"] is None
            for item, words in ((first, "the timestamp is 0"), (last, "NUL")):
                assert words in item["message" if name == "strimzi" else "error"]
            assert producer.ledger.accepted == accepted
            beside = {"value": size * "x", "timestamp": 0}
            answer = await client.ask(
                post(records(beside, NEVER[1]), JSON, "Prefer: respond-async", target=target)
            )
            assert (answer.status, len(answer.json["offsets"])) == (400, 2)
    assert (producer.ledger.accepted, producer.ledger.lost) == (2, 0)


async def test_log_of_a_lost_record_does_not_say_what_it_was_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    producer = FailingProducer(RecordRefused("not today"))
    target = "/topics/orders?async=true"
    assert (await ask(post(records({"value": 1}), target=target), producer, dialect("strimzi"))).status == 204
    (line,) = [record for record in caplog.records if record.name == "ingest.delivery"]
    assert (line.getMessage(), vars(line)["lost"]) == ("queued record was not acknowledged", 1)


async def test_full_is_503_before_content_is_read() -> None:
    async with open_exchanges(StallingProducer(accepts=0)) as exchanges:
        answer = await exchanges.ask(
            request("POST /topics/orders", f"Content-Type: {JSON}", "Content-Length: 9")
        )
    assert (answer.status, answer.json["error_code"]) == (503, 50301)
    assert "retry-after" in answer.fields


# Large envelopes -------------------------------------------------------------------------------------------


async def test_large_envelope_keeps_its_order_and_holds_all_of_its_records() -> None:
    producer = StallingProducer()
    items = [{"value": {"n": number, "text": 60 * "x"}, "key": number % 7} for number in range(20_000)]
    content = json.dumps(records(*items)).encode()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect()
        await client.send(
            request("POST /topics/orders", f"Content-Type: {JSON}", "Transfer-Encoding: chunked")
        )
        for at in range(0, len(content), 50_000):
            await client.send(chunk(content[at : at + 50_000]))
        await client.send(chunk(b""))
        await trio.testing.wait_all_tasks_blocked()
        assert producer.pending == 20_000
        assert exchanges.budget.held_bytes > 20_000 * 512
        producer.release()
        answer = await client.answer()
    assert [item["offset"] for item in answer.json["offsets"]] == list(range(20_000))
    assert [json.loads(record.value or b"") for record in producer.records] == [
        item["value"] for item in items
    ]
    assert {record.key for record in producer.records} == {b"%d" % key for key in range(7)}


async def test_large_envelope_has_one_deadline_for_all_of_its_batches(autojump_clock: MockClock) -> None:
    producer = StallingProducer(accepts=1, answer_seconds=10)
    answer = await ask(post(records(*[{"value": 100 * "x"}] * 5_000)), producer)
    assert trio.current_time() == 10
    assert answer.status == 504
    # The first batch was taken and may be written, the second waited for room, and the others not even that.
    assert {item["error"] for item in answer.json["offsets"]} == {
        "the stalled producer gave no report in time",
        "the producer is full",
        "Kafka did not take the records within 10 seconds",
    }


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (b'{"records":[%b],"key_schema":null}', 200),
        (b'{"value_schema_id":7,"records":[%b]}', 200),
        (b'{"records":[%b],"x":1}', 422),
        (b'{"records":[%b],"records":[{"value":1}]}', 400),
        (b'{"records":[%b],"records":[]}', 422),
        (b'{"key_schema":{"records":[%b]}}', 422),
        (b'{"records":[%b],"records":["the array was here"]}', 400),
        (b'{"records":[%b],"rec\\u006frds":[]}', 422),
        (b'{"rec\\u006frds":[%b]}', 422),
        (b'{"key_schema":{"records":[{"value":1}]},"records":[%b]}', 413),
        (b'{"records":[%b,{"value":1,"y":2}]}', 422),
        (b'{"records":[%b,]}', 400),
        (b'{"records":[%b 1]}', 400),
        (b'{"records":[%b', 400),
        (b'{"records":[%b]', 400),
        (b'{"records":[%b]}}', 400),
        (b'{"records":[%b,{"value":"\xff"}]}', 400),
    ],
)
async def test_large_envelope_is_held_against_the_same_rules(frame: bytes, status: int) -> None:
    producer = MemoryProducer()
    many = b",".join([b'{"value":"%b"}' % (100 * b"x")] * 10_000)
    answer = await ask(post(frame % many), producer)
    assert answer.status == status
    assert len(producer.records) == (10_000 if status == 200 else 0)


@pytest.mark.parametrize(("depth", "status"), [(890, 200), (910, 400)])
async def test_one_object_of_a_large_envelope_may_be_nested_so_deep(depth: int, status: int) -> None:
    producer = MemoryProducer()
    deep = depth * b"[" + depth * b"]"
    many = b",".join([b'{"value":%b}' % deep] * 1_000)
    answer = await ask(post(b'{"records":[%b]}' % many), producer)
    assert answer.status == status
    if status == 200:
        assert [record.value for record in producer.records] == [deep] * 1_000
    else:
        assert (
            answer.json["message"]
            == "record 1: invalid JSON: nested too deeply; about 900 brackets in one another are the most"
        )
        assert producer.records == []


@pytest.mark.parametrize("type_", [JSON, TEXT])
async def test_one_object_of_a_large_envelope_has_a_limit(type_: str) -> None:
    config = Config(limits=Limits(record_bytes=40_000))
    for size, status in ((120_000, 413), (70_000, 413), (39_000, 200)):
        data = post(records({"value": size * "x"}, *[{"value": 1_000 * "y"}] * 40), type_)
        answer = await ask(data, config=config)
        first = answer.json.get("message") or answer.json["offsets"][0]["error"] or ""
        assert ("limits.record_bytes" in first) == (status == 413)
        # Beyond twice of what a record may have, nothing of the envelope is read.
        assert answer.status == (413 if size > 2 * 40_000 + 4_096 else 200)


async def test_number_of_records_has_a_limit() -> None:
    many = b",".join([b"{}"] * (MOST_RECORDS + 1))
    answer = await ask(post(b'{"records":[' + many + b"]}"))
    assert answer.status == 413
    assert f"more than {MOST_RECORDS} records" in answer.json["message"]


@pytest.mark.parametrize("topics", [None, ["another"]], ids=["written", "failed"])
async def test_answer_is_on_the_budget_until_it_is_sent(topics: list[str] | None) -> None:
    many = b",".join([b"{}"] * 10_000)
    async with open_exchanges(MemoryProducer(topics=topics)) as exchanges:
        client = exchanges.connect(pair=trio.testing.lockstep_stream_pair)
        await client.send(post(b'{"records":[' + many + b"]}"))
        await trio.testing.wait_all_tasks_blocked()
        held = exchanges.budget.held_bytes  # all of it for an answer that nobody takes
        answer = await client.answer()
        assert len(answer.content) == held > 500_000
        await trio.testing.wait_all_tasks_blocked()
        assert exchanges.budget.held_bytes == 0


async def test_content_has_a_limit() -> None:
    config = Config(limits=Limits(batch_bytes=1_000_000))
    answer = await ask(
        request("POST /topics/orders", f"Content-Type: {JSON}", "Content-Length: 1000001"), config=config
    )
    assert answer.status == 413
    assert "limits.batch_bytes is 1000000" in answer.json["message"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_items = st.fixed_dictionaries(
    {}, optional={"value": json_values, "key": json_values, "partition": st.integers(0, 9)}
)


def reader(type_: str = JSON) -> EnvelopeReader:
    format_ = RestV2(Compat(), paths=True)
    match = Match(Route("/topics/{topic}"), "t", None, None, False, False, True)
    asked = Request("POST", b"/topics/t", b"1.1", ((b"content-type", type_.encode()),), 0)
    opened = format_.open(read_intent(asked, match, [format_]), Bounds(10**6, 10**6, 10**7, 10**7))
    assert isinstance(opened, EnvelopeReader)
    return opened


def numbered(batches: list[Batch]) -> list[tuple[int, Record]]:
    return [pair for batch in batches for pair in zip(batch.numbers, batch.records, strict=True)]


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine, of making JSON
@given(st.lists(json_items, min_size=1, max_size=30), st.sampled_from([None, 1]), st.booleans())
def test_both_ways_of_reading_find_the_same_records(
    items: list[dict[str, Any]], indent: int | None, ascii_: bool
) -> None:
    content = json.dumps(records(*items), indent=indent, ensure_ascii=ascii_).encode(errors="surrogatepass")
    try:
        content.decode()
    except UnicodeDecodeError:
        return
    whole = numbered([reader().read(content)])
    assert numbered(list(reader().read_in_steps(content))) == whole
    assert [number for number, _ in whole] == list(range(1, len(items) + 1))
    for (_, record), item in zip(whole, items, strict=True):
        expected = item.get("value")
        assert (None if record.value is None else json.loads(record.value)) == expected


@pytest.mark.parametrize("begin", ["", '"records":null,'])
@pytest.mark.parametrize("in_steps", [False, True])
def test_records_inside_something_else_are_no_records(in_steps: bool, begin: str) -> None:
    content = ("{" + begin + '"key_schema":{"records":[{"value":1}]}}').encode()
    with pytest.raises(IngestError) as raised:
        list(reader().read_in_steps(content)) if in_steps else reader().read(content)
    assert raised.value.status == 422


@pytest.mark.parametrize(
    ("item", "place"),
    [
        (b'{"partition":"a"}', "`$.records[1500].partition`"),
        (b'{"headers":[{"key":"h","value":"*"}]}', "`$.records[1500].headers[0].value`"),
        (b'{"value":1 2}', "record 1501: invalid JSON: expected ',' or '}' (byte 11)"),
        (b'{"value":"\xff"}', "record 1501: invalid JSON: not UTF-8 at byte 10"),
        (b"5", "record 1501: invalid JSON"),
        (b'{"partition":-5}', "record 1501 has partition -5"),
        (b'{"value":"%b"}' % (2_010_000 * b"x"), "record 1501: an object has more than"),
    ],
)
def test_what_is_wrong_in_a_large_envelope_has_its_place_in_all_of_it(item: bytes, place: str) -> None:
    items = [b'{"value":"%b"}' % (100 * b"x")] * 2_000
    items[1_500] = item
    with pytest.raises(IngestError) as raised:
        list(reader().read_in_steps(b'{"records":[%b]}' % b",".join(items)))
    assert place in raised.value.message


@pytest.mark.parametrize("frame", [b'{"key_schema":1 2,"records":[%b]}', b'{"records":[%b]}x'])
def test_what_is_wrong_around_the_records_has_its_place(frame: bytes) -> None:
    content = frame % b",".join([b'{"value":1}'] * 2_000)
    with pytest.raises(IngestError) as whole:
        reader().read(content)
    with pytest.raises(IngestError) as in_steps:
        list(reader().read_in_steps(content))
    assert in_steps.value.message == whole.value.message


@pytest.mark.parametrize("content", [b'[{"records":[{"value":1}]}]', b' "records"', b"records=1", b"7", b" "])
def test_what_is_no_object_is_refused_alike_in_steps(content: bytes) -> None:
    for read in (reader().read, lambda content: list(reader().read_in_steps(content))):
        with pytest.raises(IngestError) as raised:
            read(content)
        assert raised.value.status == 400


@given(st.binary(max_size=60))
def test_nothing_but_an_answer_comes_of_any_content(content: bytes) -> None:
    for text in (content, b'{"records":[{"value":' + content, b'{"records":[' + content + b"]}"):
        for in_steps in (False, True):
            try:
                list(reader().read_in_steps(text)) if in_steps else reader().read(text)
            except IngestError as error:
                assert error.status in (400, 422)


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_every_value_can_be_sent_as_base64(given_values: list[bytes]) -> None:
    content = json.dumps(
        records(*({"value": base64.b64encode(value).decode()} for value in given_values))
    ).encode()
    batch = reader(BINARY).read(content)
    assert [record.value for record in batch.records] == given_values


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
async def test_each_engine_takes_envelopes(make_protocol: Callable[[], HTTPProtocol]) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        for offset in range(2):
            answer = await client.ask(post(records({"value": 1})))
            assert answer.json["offsets"][0]["offset"] == offset


async def test_failing_producer_is_told_in_words() -> None:
    answer = await ask(values("x"), FailingProducer(KafkaUnavailable('"brokers" are\ndown')))
    assert answer.status == 503
    assert answer.json["offsets"][0]["error"] == '"brokers" are\ndown'


def test_a_tombstone_is_never_an_envelope() -> None:
    match = Match(Route("/t", "t"), "t", b"k", None, True, False, True)
    head = Head(Request("DELETE", b"/t?key=k", b"1.1", (), 0), match, JSON)
    assert not RestV2(Compat(), paths=True).claims(head)
