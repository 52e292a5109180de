"""CloudEvents over HTTP: binary, structured and batch in, records as the Kafka binding has them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.config import Config
from ingest.errors import BadRequest, DeliveryFailed
from ingest.formats.cloudevents import BATCH, STRUCTURED, CloudEvents
from ingest.formats.seam import MOST_RECORDS, Batch, Bounds, Reader
from ingest.http.engines import ENGINES
from ingest.http.messages import Request
from ingest.http.protocol import HTTPProtocol
from ingest.intent import read_intent
from ingest.records import Record
from ingest.route import Route
from ingest.routing import Match
from ingest.sections import Compat, Limits
from ingest.testing import FailingProducer, MemoryProducer, StallingProducer
from tests.client import Answer, request
from tests.exchange import open_exchanges

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
FIELDS = tuple(f"ce-{name}: {value}" for name, value in EVENT.items())
HEADERS = tuple((f"ce_{name}", value.encode()) for name, value in EVENT.items())
JSON = "Content-Type: application/json"
NO_KEYS = Config(compat=Compat(cloudevents_key=False))


async def ask(
    data: bytes,
    producer: MemoryProducer | None = None,
    config: Config = Config(),  # noqa: B008  # frozen
) -> Answer:
    async with open_exchanges(producer or MemoryProducer(), config) as exchanges:
        return await exchanges.ask(data)


def structured(event: object, *fields: str, target: str = "/") -> bytes:
    content = event if isinstance(event, bytes) else json.dumps(event).encode()
    return request(f"POST {target}", f"Content-Type: {STRUCTURED}", *fields, content=content)


def batch(*events: object) -> bytes:
    return request("POST /", f"Content-Type: {BATCH}", content=json.dumps(events).encode())


# Binary --------------------------------------------------------------------------------------------------


async def test_binary_event_becomes_a_record_with_its_attributes_as_headers() -> None:
    producer = MemoryProducer()
    fields = "CE-Subject: a%20b", "ce-comment: %E2%82%AC %2541", JSON, "Traceparent: 00-1-2-01"
    answer = await ask(request("POST /", *FIELDS, *fields, content=b'{"a": 1}'), producer)
    assert (answer.status, answer.json["topic"]) == (200, "events")
    assert producer.records == [
        Record(
            "events",
            b'{"a": 1}',
            None,
            (
                *HEADERS,
                ("ce_subject", b"a b"),
                ("ce_comment", "€ %41".encode()),
                ("content-type", b"application/json"),
                ("traceparent", b"00-1-2-01"),
            ),
        )
    ]


@pytest.mark.parametrize("type_", ["application/x-ndjson", "application/vnd.kafka.json.v2+json"])
async def test_media_type_of_a_binary_event_is_that_of_its_data(type_: str) -> None:
    producer = MemoryProducer()
    answer = await ask(request("POST /", *FIELDS, f"Content-Type: {type_}", content=b"1\n2"), producer)
    assert answer.status == 200
    assert producer.records == [Record("events", b"1\n2", None, (*HEADERS, ("content-type", type_.encode())))]


async def test_no_data_is_a_null_value() -> None:
    producer = MemoryProducer()
    await ask(request("POST /", *FIELDS), producer)
    assert producer.records == [Record("events", None, None, HEADERS)]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("plain", "plain"),
        ('"quoted \\"text\\""', 'quoted "text"'),
        ('"%22"', '"'),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%2541", "%41"),
        ("100%", "100%"),
    ],
)
async def test_attribute_is_unquoted_and_then_percent_decoded_once(written: str, value: str) -> None:
    producer = MemoryProducer()
    await ask(request("POST /", *FIELDS, f"ce-x: {written}", content=b"1"), producer)
    assert dict(producer.records[0].headers)["ce_x"] == value.encode()


@given(st.text(min_size=1))
def test_every_attribute_can_be_written(value: str) -> None:
    fields = [(f"ce-{name}".encode(), text.encode()) for name, text in EVENT.items()]
    opened = reader(*fields, (b"ce-x", quote(value, safe="").encode()))
    assert dict(opened.intent.like.headers)["ce_x"] == value.encode()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        *(
            pytest.param(
                [field for field in FIELDS if not field.startswith(f"ce-{name}:")], f"ce-{name}", id=name
            )
            for name in EVENT
        ),
        pytest.param([*FIELDS[:1], "ce-id:", *FIELDS[2:]], "ce-id", id="empty"),
        pytest.param(["ce-specversion: 0.3", *FIELDS[1:]], "version '0.3'", id="version"),
        pytest.param([*FIELDS, "ce-x: %FF"], "ce-x is not UTF-8", id="not UTF-8"),
        pytest.param([*FIELDS, "ce-id: 2"], "ce-id is given twice", id="twice"),
        pytest.param(["ce-x: 1"], "ce-specversion", id="any ce- field"),
    ],
)
async def test_binary_event_that_is_wrong_is_refused(fields: list[str], said: str) -> None:
    producer = MemoryProducer()
    answer = await ask(request("POST /", *fields, content=b"1"), producer)
    assert (answer.status, answer.json["outcome"]) == (400, "not_written")
    assert said in answer.json["message"]
    assert producer.records == []


async def test_a_tombstone_is_no_event() -> None:
    assert (await ask(request("DELETE /?key=k", *FIELDS))).status == 415


# Structured ----------------------------------------------------------------------------------------------


async def test_structured_event_is_the_value_as_it_is() -> None:
    producer = MemoryProducer()
    content = b' {"specversion":"1.0", "id":"1","source":"/s","type":"t", "data":{"x" : 1.0}}\n'
    for type_ in (STRUCTURED, "Application/CloudEvents+JSON; charset=utf-8"):
        asked = request("POST /", f"Content-Type: {type_}", "ce-id: ignored", content=content)
        assert (await ask(asked, producer)).status == 200
    assert producer.records == [
        Record("events", content, None, (("content-type", type_.encode()),))
        for type_ in (STRUCTURED, "Application/CloudEvents+JSON; charset=utf-8")
    ]


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"{",
        b"[]",
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"\xff"}',
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":' + 5000 * b"[",
        *({name: value for name, value in EVENT.items() if name != missing} for missing in EVENT),
        EVENT | {"id": ""},
        EVENT | {"id": 1},
        EVENT | {"specversion": "0.3"},
        EVENT | {"partitionkey": 1},
    ],
)
async def test_structured_event_that_is_wrong_is_refused(event: object) -> None:
    producer = MemoryProducer()
    answer = await ask(structured(event), producer)
    assert (answer.status, answer.json["error_code"], answer.json["outcome"]) == (400, 42206, "not_written")
    assert producer.records == []


@pytest.mark.parametrize("type_", ["application/cloudevents+avro", "application/cloudevents-batch+xml"])
async def test_event_in_another_form_is_415(type_: str) -> None:
    assert (await ask(request("POST /", f"Content-Type: {type_}", content=b"x"))).status == 415


# Batch ---------------------------------------------------------------------------------------------------


async def test_batch_becomes_one_structured_record_an_item() -> None:
    producer = MemoryProducer()
    answer = await ask(batch(EVENT, EVENT | {"id": "2", "data": [1]}), producer)
    assert (answer.status, answer.json) == (200, {"accepted": 2, "failed": 0})
    headers = (("content-type", STRUCTURED.encode()),)
    assert [json.loads(record.value or b"") for record in producer.records] == [
        EVENT,
        EVENT | {"id": "2", "data": [1]},
    ]
    assert {record.headers for record in producer.records} == {headers}


async def test_item_that_is_no_event_fails_alone() -> None:
    producer = MemoryProducer()
    answer = await ask(batch(EVENT, {"id": "2"}, EVENT), producer)
    assert (answer.status, answer.json["accepted"], answer.json["failed"]) == (207, 2, 1)
    (result,) = answer.json["results"]
    assert (result["item"], result["error_code"]) == (2, 42206)
    assert (await ask(batch({"id": "2"}))).status == 400
    assert len(producer.records) == 2


async def test_empty_batch_is_fine() -> None:
    answer = await ask(batch())
    assert (answer.status, answer.json) == (200, {"accepted": 0, "failed": 0})


@pytest.mark.parametrize("count", [1, 20_000])
@pytest.mark.parametrize("content", [b"", b"{}", b"[%b", b"[%b,]", b"[%b]]", b"[%b,1]", b"[%b %b]"])
async def test_what_is_no_batch_is_refused_whole(content: bytes, count: int) -> None:
    producer = MemoryProducer()
    events = b",".join([json.dumps(EVENT).encode()] * count)
    for _ in range(content.count(b"%b")):
        content = content.replace(b"%b", events, 1)
    answer = await ask(request("POST /", f"Content-Type: {BATCH}", content=content), producer)
    assert answer.status == 400
    assert producer.records == []


async def test_large_batch_keeps_its_order() -> None:
    producer = MemoryProducer()
    events = [EVENT | {"id": str(number), "partitionkey": str(number % 5)} for number in range(20_000)]
    events[7] = {"id": "7"}
    answer = await ask(batch(*events), producer)
    assert (answer.status, answer.json["accepted"]) == (207, 19_999)
    assert answer.json["results"][0]["item"] == 8
    written = [json.loads(record.value or b"")["id"] for record in producer.records]
    assert written == [event["id"] for number, event in enumerate(events) if number != 7]
    assert {record.key for record in producer.records} == {b"0", b"1", b"2", b"3", b"4"}


async def test_batch_can_be_queued() -> None:
    producer = StallingProducer()
    asked = request("POST /", f"Content-Type: {BATCH}", "Prefer: respond-async", content=b"[%b]")
    answer = await ask(asked.replace(b"[%b]", b"[]  "), producer)
    assert (answer.status, answer.json) == (202, {"accepted": 0, "failed": 0})


async def test_batch_has_the_limit_of_many_records() -> None:
    config = Config(limits=Limits(batch_bytes=1000))
    asked = request("POST /", f"Content-Type: {BATCH}", "Content-Length: 1001")
    answer = await ask(asked, config=config)
    assert answer.status == 413
    assert "limits.batch_bytes is 1000" in answer.json["message"]


def reader(*fields: tuple[bytes, bytes]) -> Reader:
    format_ = CloudEvents(Compat())
    match = Match(Route("/", "t"), "t", None, None, False, False, True)
    asked = Request("POST", b"/", b"1.1", fields, 0)
    opened = format_.open(read_intent(asked, match, [format_]), Bounds(10**6, 10**6, 10**7, 10**7))
    assert isinstance(opened, Reader)
    return opened


def numbered(batches: list[Batch]) -> list[tuple[int, Record]]:
    return [pair for batch in batches for pair in zip(batch.numbers, batch.records, strict=True)]


@given(st.lists(st.sampled_from([EVENT, EVENT | {"data": '"}]{['}, {"id": "1"}]), max_size=20))
def test_both_ways_of_reading_a_batch_find_the_same(events: list[Any]) -> None:
    content = json.dumps(events).encode()
    whole = reader((b"content-type", BATCH.encode())).read(content)
    steps = list(reader((b"content-type", BATCH.encode())).read_in_steps(content))
    assert numbered(steps) == numbered([whole])
    assert [number for step in steps for number, _ in step.failures] == [n for n, _ in whole.failures]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (b"{1}", "item 1501: expected '\"' (byte 1)"),
        (b'{"id":5,"x":tru}', "item 1501: invalid character (byte 13)"),
        (b"5", "item 1501: invalid JSON: '5,"),
    ],
)
def test_what_is_no_json_in_a_large_batch_has_its_place_and_fails_all(item: bytes, message: str) -> None:
    items = [json.dumps(EVENT).encode()] * 2_000
    items[1_500] = item
    content = b"[%b]" % b",".join(items)
    with pytest.raises(BadRequest):
        reader((b"content-type", BATCH.encode())).read(content)
    with pytest.raises(BadRequest) as raised:
        list(reader((b"content-type", BATCH.encode())).read_in_steps(content))
    assert message in raised.value.message


# Keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        (request("POST /", *FIELDS, "ce-partitionkey: k%C3%A9", content=b'{"a":7}'), "ké".encode()),
        (structured(EVENT | {"partitionkey": "ké"}), "ké".encode()),
        (batch(EVENT | {"partitionkey": "ké"}), "ké".encode()),
        (request("POST /?key=mine", *FIELDS, "ce-partitionkey: k", content=b"{}"), b"mine"),
        (structured(EVENT | {"partitionkey": "k"}, target="/?key=mine"), b"mine"),
        (request("POST /?key_field=a", *FIELDS, "ce-partitionkey: k", content=b'{"a":7}'), b"7"),
        (structured(EVENT | {"partitionkey": "k", "a": 7}, target="/?key_field=a"), b"7"),
        (structured(EVENT), None),
    ],
)
async def test_partitionkey_is_the_key_unless_the_request_has_another(
    asked: bytes, key: bytes | None
) -> None:
    producer = MemoryProducer()
    assert (await ask(asked, producer)).status == 200
    assert [record.key for record in producer.records] == [key]


async def test_partitionkey_stays_a_header_and_can_be_left_at_that() -> None:
    asked = request("POST /", *FIELDS, "ce-partitionkey: k", content=b"1")
    for config, key in ((Config(), b"k"), (NO_KEYS, None)):
        producer = MemoryProducer()
        await ask(asked, producer, config)
        assert producer.records == [Record("events", b"1", key, (*HEADERS, ("ce_partitionkey", b"k")))]
    producer = MemoryProducer()
    await ask(structured(EVENT | {"partitionkey": "k"}), producer, NO_KEYS)
    assert producer.records[0].key is None


async def test_number_of_events_in_a_batch_has_a_limit() -> None:
    many = b",".join([b"{}"] * (MOST_RECORDS + 1))
    answer = await ask(request("POST /", f"Content-Type: {BATCH}", content=b"[" + many + b"]"))
    assert answer.status == 413
    assert f"more than {MOST_RECORDS} events" in answer.json["message"]


async def test_events_that_fail_are_on_the_budget() -> None:
    config = Config(limits=Limits(request_bytes=200_000, record_bytes=200_000, held_bytes=1_000_000))
    for count, status in ((100, 400), (1_500, 503), (30_000, 413)):
        many = b",".join([b"{}"] * count)
        answer = await ask(
            request("POST /", f"Content-Type: {BATCH}", content=b"[" + many + b"]"), None, config
        )
        assert answer.status == status


async def test_large_batch_is_answered_as_a_small_one_is() -> None:
    producer = MemoryProducer()
    events = [EVENT | {"id": str(number)} if number % 3 else {} for number in range(3_000)]
    answer = await ask(batch(*events), producer)
    assert (answer.status, answer.json["accepted"], answer.json["failed"]) == (207, 2_000, 1_000)
    assert [each["item"] for each in answer.json["results"]] == list(range(1, 300, 3))


async def test_batch_of_which_nothing_was_written_is_504_if_anything_may_have_been() -> None:
    answer = await ask(batch(EVENT, {}), FailingProducer(DeliveryFailed("Kafka says something else")))
    assert (answer.status, answer.json["error_code"], answer.json["outcome"]) == (504, 50003, "unknown")
    assert answer.json["message"] == "Kafka says something else"
    codes = [(each["item"], each["error_code"], each["outcome"]) for each in answer.json["results"]]
    assert codes == [(1, 50002, "unknown"), (2, 42206, "not_written")]


async def test_field_without_an_attributes_name_is_refused() -> None:
    answer = await ask(request("POST /", *FIELDS, "ce-: x", content=b"1"))
    assert (answer.status, "names no attribute" in answer.json["message"]) == (400, True)


async def test_nul_in_an_attribute_is_kept_as_it_is() -> None:
    producer = MemoryProducer()
    assert (await ask(request("POST /", *FIELDS, "ce-ext: a%00b", content=b"1"), producer)).status == 200
    assert producer.records[0].headers[-1] == ("ce_ext", b"a\0b")


async def test_no_data_has_no_field_to_take_a_key_from() -> None:
    assert (await ask(request("POST /?key_field=a", *FIELDS))).json["error_code"] == 42206


# The handshake of webhooks ---------------------------------------------------------------------------------

ORIGIN = "WebHook-Request-Origin: eventemitter.example.com"


@pytest.mark.parametrize("target", ["/", "/topics/orders/records"])
async def test_webhooks_sender_is_told_that_it_may_send(target: str) -> None:
    answer = await ask(request(f"OPTIONS {target}", ORIGIN, "WebHook-Request-Rate: 120"))
    assert answer.status == 200
    assert answer.fields["allow"] == "POST"
    assert answer.fields["webhook-allowed-origin"] == "*"
    assert answer.fields["webhook-allowed-rate"] == "*"
    assert answer.content == b""


async def test_only_configured_senders_are_told_so() -> None:
    config = Config(compat=Compat(webhook_origins=["eventemitter.example.com"]))
    answer = await ask(request("OPTIONS /", ORIGIN), config=config)
    assert answer.fields["webhook-allowed-origin"] == "eventemitter.example.com"
    answer = await ask(request("OPTIONS /", ORIGIN + ".evil"), config=config)
    assert (answer.status, "webhook-allowed-origin" in answer.fields) == (204, False)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request("OPTIONS /"), 204),
        (request("OPTIONS /nowhere", ORIGIN), 404),
        (request("OPTIONS /topics/orders", ORIGIN), 204),
    ],
)
async def test_other_options_are_no_handshake(asked: bytes, status: int) -> None:
    answer = await ask(asked)
    assert answer.status == status
    assert "webhook-allowed-origin" not in answer.fields


@pytest.mark.parametrize("make_protocol", ENGINES.values(), ids=ENGINES.keys())
async def test_each_engine_takes_events(make_protocol: Callable[[], HTTPProtocol]) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        for asked in (
            request("POST /", *FIELDS, content=b"1"),
            structured(EVENT),
            batch(EVENT),
            request("OPTIONS /", ORIGIN),
        ):
            assert (await client.ask(asked)).status == 200
    assert len(producer.records) == 3


async def test_route_can_take_nothing_but_events() -> None:
    config = Config(routes=[Route("/", "events", format="cloudevents")])
    answer = await ask(request("POST /", JSON, content=b"{}"), config=config)
    assert (answer.status, "ce-specversion" in answer.json["message"]) == (400, True)
