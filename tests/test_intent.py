from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.config import Config
from ingest.errors import BadRequest, IngestError, UnsupportedMediaType
from ingest.formats.ndjson import NDJSON_TYPES
from ingest.formats.seam import Intent
from ingest.formats.table import built_in
from ingest.http.messages import Request
from ingest.intent import read_intent, request_id
from ingest.records import Record
from ingest.route import Route
from ingest.routing import Router


def post(*fields: tuple[str, bytes], method: str = "POST", target: bytes = b"/t?key=k") -> Request:
    """A request with fields; their names in lower case, as the framing rules leave them."""
    return Request(method, target, b"1.1", tuple((name.encode(), value) for name, value in fields), 0)


def intent(request: Request, route: Route | None = None) -> Intent:
    router = Router([route or Route("/t", topic="t")])
    return read_intent(request, router.match(request.method, request.target), built_in(Config()))


def test_the_fields_say_what_every_record_is_like() -> None:
    found = intent(
        post(
            ("content-type", b"Application/JSON; charset=utf-8"),
            ("kafka-header-trace", b"abc"),
            ("kafka-header-trace", b"\xff"),
            ("traceparent", b"00-1-2-01"),
            ("tracestate", b"a=b"),
            ("idempotency-key", b"i"),
            ("kafka-partition", b"7"),
            ("kafka-timestamp", b"1591897790000"),
            ("user-agent", b"curl"),
        )
    )
    assert found.like == Record(
        "t",
        None,
        b"k",
        (
            ("content-type", b"Application/JSON; charset=utf-8"),
            ("trace", b"abc"),
            ("trace", b"\xff"),
            ("traceparent", b"00-1-2-01"),
            ("tracestate", b"a=b"),
            ("idempotency-key", b"i"),
        ),
        7,
        1591897790000,
    )
    assert found.media_type == "application/json"


def test_a_request_without_fields_asks_for_nothing_special() -> None:
    found = intent(post())
    assert found.like == Record("t", None, b"k")
    assert (found.media_type, found.queued, found.minimal, found.key_path) == ("", False, False, None)


@pytest.mark.parametrize("media_type", sorted(NDJSON_TYPES))
def test_the_type_of_lines_is_not_the_type_of_a_record(media_type: str) -> None:
    assert intent(post(("content-type", media_type.encode()))).like.headers == ()


def test_a_tombstone_has_no_content_and_no_type_of_it() -> None:
    found = intent(post(("content-type", b"text/plain"), ("kafka-header-a", b"b"), method="DELETE"))
    assert found.like.headers == (("a", b"b"),)


@pytest.mark.parametrize(
    "fields",
    [
        [("content-type", b"application/vnd.kafka.avro.v2+json")],
        [("content-type", b"Application/Vnd.Kafka.Protobuf+json; x=y")],
        [("content-type", b"application/cloudevents+avro")],
        [("content-type", b"application/cloudevents-batch+protobuf")],
        [("content-encoding", b"br")],
        [("content-encoding", b"identity, gzip")],
        [("content-encoding", b"identity"), ("content-encoding", b"zstd")],
    ],
)
def test_content_that_would_change_its_meaning_is_refused(fields: list[tuple[str, bytes]]) -> None:
    with pytest.raises(UnsupportedMediaType, match="not read here"):
        intent(post(*fields))


@pytest.mark.parametrize("coding", [b"identity", b"Identity", b""])
def test_no_coding_is_no_coding(coding: bytes) -> None:
    assert intent(post(("content-encoding", coding))).like.headers == ()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kafka-partition", b"-1", "Kafka-Partition is '-1'; a whole number from 0 to 2147483647 is meant"),
        ("kafka-partition", b"2147483648", "from 0 to 2147483647"),
        ("kafka-partition", b"", "Kafka-Partition is ''"),
        ("kafka-partition", b"1.0", "whole number"),
        ("kafka-partition", b"\xb2", "whole number"),
        ("kafka-timestamp", b"0", "from 1 to 9223372036854775807"),
        ("kafka-timestamp", b"9223372036854775808", "from 1 to 9223372036854775807"),
        ("kafka-timestamp", b"2021-02-05T19:14:42Z", "whole number"),
        ("kafka-timestamp", b"9" * 30_000, "whole number"),
        ("kafka-header-", b"x", "names no header"),
    ],
)
def test_a_field_that_cannot_be_meant_is_refused_and_says_why(name: str, value: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        intent(post((name, value)))
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["kafka-partition", "kafka-timestamp"])
def test_a_number_given_twice_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="is given twice"):
        intent(post((name, b"1"), (name, b"1")))


@pytest.mark.parametrize(
    ("values", "queued", "minimal"),
    [
        ([b"return=minimal"], False, True),
        ([b"respond-async"], True, False),
        ([b"Respond-Async, Return = \"minimal\""], True, True),
        ([b"respond-async; wait=10", b"return=minimal; x"], True, True),
        ([b"return=representation"], False, False),
        ([b"handling=lenient, wait=5"], False, False),
        ([b"\xff"], False, False),
    ],
)  # fmt: skip
def test_preferences_are_read_as_rfc_7240_writes_them(
    values: list[bytes], queued: bool, minimal: bool
) -> None:
    found = intent(post(*(("prefer", value) for value in values)))
    assert (found.queued, found.minimal) == (queued, minimal)


def test_a_route_can_promise_less_and_can_refuse_to() -> None:
    asks = post(("prefer", b"respond-async"))
    assert intent(post(), Route("/t", topic="t", promise="queued")).queued
    assert not intent(asks, Route("/t", topic="t", respond_async=False)).queued


def test_only_a_route_that_waits_has_a_wait() -> None:
    assert intent(post(), Route("/t", topic="t", when_full="wait", wait_seconds=3)).wait_seconds == 3
    assert intent(post(), Route("/t", topic="t", wait_seconds=3)).wait_seconds == 0


def test_the_key_field_is_a_path() -> None:
    assert intent(post(target=b"/t?key_field=user.id")).key_path == ("user", "id")


@pytest.mark.parametrize(
    ("given_id", "taken"),
    [
        (b"a-1", True),
        (b"x" * 128, True),
        (b"x" * 129, False),
        (b"", False),
        (b"a b", False),
        (b"\xff", False),
    ],
)
def test_a_request_id_is_taken_if_it_can_be_logged(given_id: bytes, taken: bool) -> None:
    assert request_id(post(("x-request-id", given_id))) == (given_id if taken else None)


FIELD_NAMES = st.sampled_from(
    ["content-type", "content-encoding", "prefer", "kafka-partition", "kafka-timestamp", "kafka-header-x",
     "kafka-x", "traceparent", "ce-id", "x-request-id"]
)  # fmt: skip


@given(st.lists(st.tuples(FIELD_NAMES, st.binary())))
def test_any_fields_are_understood_or_refused(fields: list[tuple[str, bytes]]) -> None:
    request = post(*fields)
    request_id(request)
    try:
        assert intent(request).like.topic == "t"
    except IngestError as error:
        assert error.status in (400, 415)
        assert len(error.message) < 400
