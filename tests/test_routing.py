from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import BadRequest, IngestError, MethodNotAllowed, NotFound
from ingest.route import Route
from ingest.routing import Match, Router

CLICKS = Route("/clicks", topic="clicks", key_field="user.id")
ROOT = Route("/", topic="events")
NATIVE = Route("/topics/{topic}/records")
INBOX = Route("/in/{topic}", key_field="id")
ROUTER = Router([CLICKS, ROOT, NATIVE, INBOX])


def match(target: str, method: str = "POST") -> Match:
    return ROUTER.match(method, target.encode())


@pytest.mark.parametrize(
    ("target", "route", "topic"),
    [
        ("/", ROOT, "events"),
        ("/clicks", CLICKS, "clicks"),
        ("/topics/orders/records", NATIVE, "orders"),
        ("/topics/a%2Db/records", NATIVE, "a-b"),
        ("/in/a.b_c-D9", INBOX, "a.b_c-D9"),
        ("/topics/records/records", NATIVE, "records"),
        # What is no name of a topic is found, and refused by the rule for names.
        ("/in/a%2Fb", INBOX, "a/b"),
        ("/in/%C3%A9", INBOX, "\ufffd\ufffd"),
        ("/in/..", INBOX, ".."),
    ],
)
def test_the_path_finds_a_route_and_a_topic(target: str, route: Route, topic: str) -> None:
    found = match(target)
    assert (found.route, found.topic) == (route, topic)


@pytest.mark.parametrize(
    "target",
    ["/clicks/", "/Clicks", "/topics//records", "/topics/a/b/records", "/topics/records", "/in/", "/in",
     "//clicks", "*", "example.org:443", "/topics/a/records/",
     # Neither origin-form nor absolute-form, whatever stands further behind.
     "", "a?b://c/topics/events/records", "?x=://h/", "?x=http://h/", "1~!://h/", "://h/clicks", "1http://h/",
     "-a://h/", "a_b://h/", "h/x://h/clicks", "example.org:443://h/", "http:/clicks", "http:clicks", "a"],
)  # fmt: skip
def test_another_path_is_not_found(target: str) -> None:
    with pytest.raises(NotFound, match="nothing is served at"):
        match(target)


def test_a_long_path_is_not_repeated_whole() -> None:
    with pytest.raises(NotFound) as caught:
        match("/" + "x" * 30_000)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("absolute", "origin"),
    [
        ("http://example.org/clicks", "/clicks"),
        ("https://user@example.org:8080/in/a?key=k", "/in/a?key=k"),
        ("http://example.org", "/"),
        ("http://example.org/", "/"),
        ("http://example.org?key=k", "/?key=k"),
        ("http://example.org?key=/clicks", "/?key=/clicks"),
        ("http:///clicks", "/clicks"),
        ("HTTP://example.org/clicks", "/clicks"),
        ("a+B-1.0://example.org/clicks", "/clicks"),
        ("http://example.org?key=://h/clicks", "/?key=://h/clicks"),
    ],
)
def test_the_absolute_form_means_the_same_as_the_origin_form(absolute: str, origin: str) -> None:
    assert match(absolute) == match(origin)


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("", None),
        ("?key=k1", b"k1"),
        ("?key=", b""),
        ("?key=a+b%2Bc%20d", b"a b+c d"),
        ("?key=%ff%00", b"\xff\x00"),
        ("?key=a=b", b"a=b"),
        ("?key=100%", b"100%"),
    ],
)
def test_the_key_is_taken_from_the_query_as_a_form_writes_it(query: str, key: bytes | None) -> None:
    assert match(f"/topics/t/records{query}").key == key


@given(st.binary())
def test_every_key_can_be_written_in_a_query(key: bytes) -> None:
    written = "".join(f"%{byte:02x}" for byte in key)
    assert match(f"/topics/t/records?key={written}").key == key


@pytest.mark.parametrize(
    ("target", "key_field"),
    [
        ("/topics/t/records", None),
        ("/topics/t/records?key_field=user.id", "user.id"),
        ("/topics/t/records?key_field=%C3%A9", "é"),
        ("/topics/t/records?key_field=a.b.c.d.e.f.g.h", "a.b.c.d.e.f.g.h"),
        ("/clicks", "user.id"),  # the route's own
        ("/clicks?key_field=other", "other"),
        ("/clicks?key=k", None),
    ],
)
def test_the_key_field_comes_from_the_query_or_the_route(target: str, key_field: str | None) -> None:
    assert match(target).key_field == key_field


def test_lines_are_validated_and_not_answered_one_by_one_unless_the_query_says_so() -> None:
    plain, asked = match("/topics/t/records"), match("/topics/t/records?offsets=true&validate=false")
    assert (plain.offsets, plain.validate) == (False, True)
    assert (asked.offsets, asked.validate) == (True, False)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("key=a&key_field=b", "key and key_field are both given"),
        ("key=a&key=b", "query parameter key is given twice"),
        ("key_field=", "key_field='' names no field; write it like user.id"),
        ("key_field=a..b", r"key_field='a\.\.b' names no field"),
        ("key_field=a.b.c.d.e.f.g.h.i", "key_field has more than 8 names"),
        ("key_field=" + "%c3%a9" * 129, "key_field has 258 bytes; 256 is the most"),
        ("key_field=%ff", "query parameter key_field is not UTF-8"),
        ("offsets=1", "query parameter offsets is '1'; true or false is meant"),
        ("validate=", "query parameter validate is ''; true or false is meant"),
        ("kee=1", "query parameter 'kee' is not known here; there are key, key_field, offsets, validate"),
        ("%6bey=1", "query parameter '%6bey' is not known here"),
        ("validate=false&key_field=a", "validate=false leaves lines unread"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused_and_says_why(query: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        match(f"/topics/t/records?{query}")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("path", ["/clicks", "/in/t"])
def test_what_a_webhook_adds_to_a_configured_path_is_left_alone(path: str, method: str) -> None:
    assert match(f"{path}?signature=abc&=&x&key=k", method).key == b"k"


def test_unvalidated_lines_have_no_field_for_a_routes_key() -> None:
    with pytest.raises(BadRequest, match="validate=false"):
        match("/clicks?validate=false")


def test_delete_is_a_tombstone_for_its_key() -> None:
    found = match("/clicks?key=k", "DELETE")
    assert (found.tombstone, found.key, found.key_field) == (True, b"k", None)
    assert not match("/clicks?key=k").tombstone


@pytest.mark.parametrize("query", ["", "?key_field=a", "?key=k&offsets=true", "?key=k&validate=true"])
def test_delete_takes_a_key_and_nothing_else(query: str) -> None:
    with pytest.raises(BadRequest, match="DELETE"):
        match(f"/topics/t/records{query}", "DELETE")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "OPTIONS", "post"])
def test_another_method_is_refused_with_those_that_are_served(method: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        match("/clicks", method)
    assert caught.value.allow == "POST, DELETE, OPTIONS"
    with pytest.raises(NotFound):
        match("/nowhere", method)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)), st.sampled_from(["POST", "DELETE"]))
def test_any_target_of_visible_ascii_is_matched_or_refused(target: str, method: str) -> None:
    for prefix in ("", "/topics/", "/topics/t/records?", "http://"):
        try:
            match(prefix + target, method)
        except IngestError as error:
            assert error.message.isascii() or "…" in error.message
            assert len(error.message) < 400
