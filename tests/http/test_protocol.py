"""What a connection can rely on at the parser seam.  Responses are read by http.client and h11's client."""

from __future__ import annotations

import email.utils
import http.client
import io
from collections.abc import Callable
from typing import NamedTuple

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.errors import BadFraming, ExpectationFailed, HeadTooLarge, LengthRequired
from ingest.http.framing import CHUNKS_AT_ONCE
from ingest.http.messages import Content, Request, Response
from ingest.http.protocol import Event, HTTPProtocol, Signal

MakeProtocol = Callable[[], HTTPProtocol]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
OLD_GET = b"GET / HTTP/1.0\r\n\r\n"
OLD_KEEP_ALIVE = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"


def events(protocol: HTTPProtocol, data: bytes | None = None) -> list[Event]:
    """All events up to the first signal, which is the last of them."""
    if data is not None:
        protocol.receive_data(data)
    found = [protocol.next_event()]
    while not isinstance(found[-1], Signal):
        found.append(protocol.next_event())
    return found


def request_of(protocol: HTTPProtocol, data: bytes) -> Request:
    event = events(protocol, data)[0]
    assert isinstance(event, Request)
    return event


def answer(protocol: HTTPProtocol, response: Response) -> bytes:
    assert response.content is not None
    return protocol.send_head(response) + protocol.send_content(response.content) + protocol.end()


class Answer(NamedTuple):
    status: int
    reason: str
    fields: dict[str, str]
    content: bytes
    rest: bytes


class Wire(io.BytesIO):
    """What http.client takes for a socket: the bytes are there already."""

    def makefile(self, _mode: str) -> io.BytesIO:
        return self

    def close(self) -> None:
        """Stay open, so that what lies behind the response can be read."""


def read_by_http_client(raw: bytes, method: str = "GET") -> Answer:
    wire = Wire(raw)
    response = http.client.HTTPResponse(wire, method=method)  # type: ignore[arg-type]
    response.begin()
    fields = {name.lower(): value for name, value in response.getheaders()}
    assert len(fields) == len(response.getheaders()), "a field is there twice"
    return Answer(response.status, response.reason, fields, response.read(), wire.read())


def read_by_h11(raw: bytes, method: str = "GET") -> tuple[list[int], bytes]:
    """Statuses, informational ones too, and the content; the response must end."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    client.receive_data(b"")
    statuses, content = [], b""
    while True:
        event = client.next_event()
        if isinstance(event, (h11.InformationalResponse, h11.Response)):
            statuses.append(event.status_code)
        elif isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage):
            return statuses, content
        else:
            raise AssertionError(event)


# Reading --------------------------------------------------------------------------------------------


def test_request_has_its_fields_in_lower_case_and_values_without_white_space(
    make_protocol: MakeProtocol,
) -> None:
    raw = (
        b"PUT /a?b HTTP/1.1\r\nHOST: a\r\nX-Two: \t one \r\nx-two:two\r\nEmpty:\r\nContent-Length: 0\r\n\r\n"
    )
    request = request_of(make_protocol(), raw)
    assert (request.method, request.target, request.version) == ("PUT", b"/a?b", b"1.1")
    assert request.fields == (
        (b"host", b"a"),
        (b"x-two", b"one"),
        (b"x-two", b"two"),
        (b"empty", b""),
        (b"content-length", b"0"),
    )
    assert request.field(b"x-two") == b"one, two"


@pytest.mark.parametrize(
    ("raw", "length"),
    [(POST, 5), (CHUNKED, None), (GET, 0), (OLD_GET, 0)],
    ids=["length", "chunked", "no content", "no content on 1.0"],
)
def test_request_says_how_much_content_follows(
    make_protocol: MakeProtocol, raw: bytes, length: int | None
) -> None:
    assert request_of(make_protocol(), raw).content_length == length


@pytest.mark.parametrize(
    ("line", "connection", "kept"),
    [
        ("HTTP/1.1", None, True),
        ("HTTP/1.1", "keep-alive", True),
        ("HTTP/1.1", "close", False),
        ("HTTP/1.1", "foo, CLOSE ,bar", False),
        ("HTTP/1.1", "closed", True),
        ("HTTP/1.0", None, False),
        ("HTTP/1.0", "Keep-Alive", True),
        ("HTTP/1.0", "keep-alive, close", False),
    ],
)
def test_version_and_connection_field_decide_about_keep_alive(
    make_protocol: MakeProtocol, line: str, connection: str | None, kept: bool
) -> None:
    field = f"Connection: {connection}\r\n" if connection is not None else ""
    protocol = make_protocol()
    assert request_of(protocol, f"GET / {line}\r\nHost: a\r\n{field}\r\n".encode()).keep_alive is kept
    assert protocol.keeps_alive is kept
    answered = read_by_http_client(answer(protocol, Response(200)))
    assert (answered.fields.get("connection") == "close") is not kept


@pytest.mark.parametrize(
    ("line", "length", "expected"),
    [("HTTP/1.1", 5, True), ("HTTP/1.1", 0, False), ("HTTP/1.0", 5, False)],
)
def test_expectation_counts_on_1_1_where_content_follows(
    make_protocol: MakeProtocol, line: str, length: int, expected: bool
) -> None:
    raw = f"POST / {line}\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    assert request_of(make_protocol(), raw.encode()).expects_continue is expected


def test_content_is_given_in_the_pieces_that_came(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    pieces = [bytes([65 + i]) * 65536 for i in range(3)]
    request_of(protocol, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 196608\r\n\r\n")
    assert [events(protocol, piece)[0] for piece in pieces] == [Content(piece) for piece in pieces]
    assert protocol.next_event() is Signal.END_OF_MESSAGE


def test_small_chunks_become_one_piece_up_to_a_bound(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    request_of(protocol, CHUNKED)
    most = CHUNKS_AT_ONCE
    assert events(protocol, b"1\r\na\r\n" * (2 * most + 1)) == [
        Content(b"a" * most),
        Content(b"a" * most),
        Content(b"a"),
        Signal.NEED_DATA,
    ]
    assert events(protocol, b"0\r\n\r\n") == [Signal.END_OF_MESSAGE]


def test_chunk_is_given_before_it_is_complete(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    request_of(protocol, CHUNKED)
    assert events(protocol, b"ffffffff\r\nabc") == [Content(b"abc"), Signal.NEED_DATA]


def test_content_before_a_fault_is_given_before_the_refusal(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    request_of(protocol, CHUNKED)
    protocol.receive_data(b"3\r\nabc\r\n2\r\ndeX")
    assert protocol.next_event() == Content(b"abcde")
    for _ in range(2):
        with pytest.raises(BadFraming, match="followed by b'X'"):
            protocol.next_event()


def test_trailers_are_not_merged_into_fields(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    request, end = events(protocol, CHUNKED + b"0\r\nX-Late: 1\r\n\r\n")
    assert isinstance(request, Request)
    assert request.field(b"x-late") is None
    assert end is Signal.END_OF_MESSAGE


def test_next_request_waits_for_the_next_cycle(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    events(protocol, POST + b"not HTTP at all\r\n\r\n")
    assert events(protocol) == [Signal.END_OF_MESSAGE]
    protocol.receive_data(b"nor is this")
    assert events(protocol) == [Signal.END_OF_MESSAGE]
    answer(protocol, Response(200))
    protocol.start_next_cycle()
    with pytest.raises(BadFraming, match="not HTTP at all"):
        protocol.next_event()


def test_client_that_closes_between_requests_ends_the_stream(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    events(protocol, GET)
    protocol.receive_data(b"")
    assert protocol.next_event() is Signal.END_OF_MESSAGE
    answer(protocol, Response(200))
    protocol.start_next_cycle()
    assert [protocol.next_event(), protocol.next_event()] == [Signal.END_OF_STREAM] * 2


def test_bytes_after_the_end_of_the_stream_are_a_mistake(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    protocol.receive_data(b"")
    with pytest.raises(RuntimeError, match="after the end of the stream"):
        protocol.receive_data(b"x")


def test_next_cycle_needs_both_sides_to_be_done(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    with pytest.raises(RuntimeError):
        protocol.start_next_cycle()
    request_of(protocol, POST[:-1])
    answer(protocol, Response(200))
    with pytest.raises(RuntimeError, match="request was not read"):
        protocol.start_next_cycle()
    assert events(protocol, POST[-1:]) == [Content(b"o"), Signal.END_OF_MESSAGE]
    protocol.start_next_cycle()
    events(protocol, POST)
    protocol.send_head(Response(200))
    with pytest.raises(RuntimeError, match="response was not written"):
        protocol.start_next_cycle()


@pytest.mark.parametrize(
    ("request_bytes", "response"),
    [
        (OLD_GET, Response(200)),
        (GET, Response(200, closes=True)),
        (OLD_KEEP_ALIVE, Response(200, content=None)),
    ],
    ids=["the request closes", "the response closes", "the end of the connection ends the content"],
)
def test_next_cycle_needs_a_connection_that_stays(
    make_protocol: MakeProtocol, request_bytes: bytes, response: Response
) -> None:
    protocol = make_protocol()
    events(protocol, request_bytes)
    assert b"connection: close\r\n" in protocol.send_head(response)
    protocol.end()
    assert not protocol.keeps_alive
    with pytest.raises(RuntimeError, match="no further request"):
        protocol.start_next_cycle()


# Refusing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"nonsense\r\n\r\n", BadFraming),
        (b"GET /" + b"a" * 40000, HeadTooLarge),
        (b"POST / HTTP/1.0\r\n\r\n", LengthRequired),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\n", ExpectationFailed),
        (CHUNKED + b"X\r\n", BadFraming),
        (POST[:-1], BadFraming),
    ],
    ids=["400", "431", "411", "417", "400 in the content", "400 at the end of the stream"],
)
def test_refusal_is_answered_and_the_connection_closes(
    make_protocol: MakeProtocol, raw: bytes, error: type[BadFraming]
) -> None:
    protocol = make_protocol()
    protocol.receive_data(raw)
    protocol.receive_data(b"")
    with pytest.raises(error) as caught:
        events(protocol)
    answered = read_by_http_client(answer(protocol, Response(caught.value.status, content=b"no")))
    assert (answered.status, answered.content) == (caught.value.status, b"no")
    assert answered.fields["connection"] == "close"
    assert not protocol.keeps_alive


def test_answer_before_any_request_closes(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    protocol.receive_data(b"GET / HT")
    assert protocol.next_event() is Signal.NEED_DATA
    answered = read_by_http_client(answer(protocol, Response(408, content=b"too slow")))
    assert (answered.status, answered.fields["connection"]) == (408, "close")
    assert not protocol.keeps_alive


def test_error_after_the_head_was_sent_ends_keep_alive(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    request_of(protocol, CHUNKED)
    protocol.send_head(Response(200, content=None))
    assert protocol.keeps_alive
    protocol.receive_data(b"X\r\n")
    with pytest.raises(BadFraming):
        protocol.next_event()
    assert not protocol.keeps_alive
    assert protocol.send_content(b"last words") + protocol.end() == b"a\r\nlast words\r\n0\r\n\r\n"


# Writing --------------------------------------------------------------------------------------------

CONTENT_TYPE = (b"content-type", b"application/json")


def test_response_with_content_has_its_length_date_and_reason(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    events(protocol, GET)
    answered = read_by_http_client(answer(protocol, Response(200, (CONTENT_TYPE,), b"{}")) + b"rest")
    assert (answered.status, answered.reason, answered.content, answered.rest) == (200, "OK", b"{}", b"rest")
    assert sorted(answered.fields) == ["content-length", "content-type", "date"]
    assert answered.fields["content-length"] == "2"
    assert (
        email.utils.format_datetime(email.utils.parsedate_to_datetime(answered.fields["date"]), usegmt=True)
        == answered.fields["date"]
    )


def test_response_of_unknown_length_is_chunked(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    events(protocol, GET)
    raw = protocol.send_head(Response(200, content=None))
    for piece in (b"a", b"", b"bc" * 10):
        raw += protocol.send_content(piece)
    raw += protocol.end()
    answered = read_by_http_client(raw + b"rest")
    assert answered.content == b"a" + b"bc" * 10
    assert answered.fields["transfer-encoding"] == "chunked"
    assert "content-length" not in answered.fields
    assert answered.rest == b"rest"


def test_response_of_unknown_length_ends_with_the_connection_on_1_0(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    events(protocol, OLD_KEEP_ALIVE)
    raw = protocol.send_head(Response(200, content=None)) + protocol.send_content(b"abc") + protocol.end()
    answered = read_by_http_client(raw)
    assert answered.content == b"abc"
    assert answered.fields["connection"] == "close"
    assert "transfer-encoding" not in answered.fields


def test_keep_alive_is_said_to_a_1_0_client_that_asked_for_it(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    for _ in range(2):
        events(protocol, OLD_KEEP_ALIVE)
        raw = answer(protocol, Response(200, content=b"abc"))
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        assert read_by_http_client(raw).fields["connection"] == "keep-alive"
        protocol.start_next_cycle()


@pytest.mark.parametrize("content", [b"abc", None], ids=["length", "chunked"])
def test_answer_to_head_has_fields_and_no_content(make_protocol: MakeProtocol, content: bytes | None) -> None:
    protocol = make_protocol()
    events(protocol, HEAD)
    raw = protocol.send_head(Response(200, content=content)) + protocol.send_content(b"abc") + protocol.end()
    answered = read_by_http_client(raw + GET, "HEAD")
    assert (answered.content, answered.rest) == (b"", GET)
    assert answered.fields.get("content-length") == ("3" if content else None)
    assert protocol.keeps_alive


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_content_has_no_framing_fields(make_protocol: MakeProtocol, status: int) -> None:
    protocol = make_protocol()
    events(protocol, GET)
    answered = read_by_http_client(answer(protocol, Response(status)) + GET)
    assert (answered.content, answered.rest) == (b"", GET)
    assert not {"content-length", "transfer-encoding"} & set(answered.fields)


def test_informational_response_ends_nothing(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    request_of(protocol, b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    raw = protocol.send_head(Response(100))
    assert raw == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert events(protocol, b"hi") == [Content(b"hi"), Signal.END_OF_MESSAGE]
    raw += answer(protocol, Response(200, content=b"done"))
    assert read_by_h11(raw) == ([100, 200], b"done")


@pytest.mark.parametrize(("raw", "status"), [(OLD_GET, 100), (GET, 101)])
def test_informational_response_that_no_client_may_get_is_a_mistake(
    make_protocol: MakeProtocol, raw: bytes, status: int
) -> None:
    protocol = make_protocol()
    events(protocol, raw)
    with pytest.raises(RuntimeError, match=str(status)):
        protocol.send_head(Response(status))


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nSet-Cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x\r\ny", b"a"),
        (b"x y", b"a"),
        (b"", b"a"),
        (b"Content-Length", b"3"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
    ],
)
def test_field_that_could_reframe_the_answer_is_not_written(
    make_protocol: MakeProtocol, field: tuple[bytes, bytes]
) -> None:
    protocol = make_protocol()
    events(protocol, GET)
    with pytest.raises(ValueError, match="response field"):
        protocol.send_head(Response(200, (CONTENT_TYPE, field)))
    assert read_by_http_client(answer(protocol, Response(500))).status == 500


def test_calls_out_of_turn_are_mistakes(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    events(protocol, GET)
    with pytest.raises(RuntimeError, match="head"):
        protocol.send_content(b"x")
    with pytest.raises(RuntimeError, match="head"):
        protocol.end()
    protocol.send_head(Response(200, content=b"ab"))
    with pytest.raises(RuntimeError, match="content"):
        protocol.send_head(Response(200))
    with pytest.raises(RuntimeError, match="2 are left"):
        protocol.send_content(b"abc")
    protocol.send_content(b"a")
    with pytest.raises(RuntimeError, match="1 bytes before"):
        protocol.end()
    protocol.send_content(b"b")
    protocol.end()
    with pytest.raises(RuntimeError, match="complete"):
        protocol.end()


value_bytes = st.binary(max_size=30).map(lambda raw: bytes(b for b in raw if 32 < b != 127))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.sampled_from([200, 202, 207, 299, 400, 404, 413, 500, 503]),
    values=st.lists(value_bytes, max_size=4),
    pieces=st.lists(st.binary(max_size=50), max_size=5),
    known=st.booleans(),
    raw=st.sampled_from([GET, POST, OLD_GET, OLD_KEEP_ALIVE]),
)
def test_every_response_is_read_back_as_it_was_given(
    make_protocol: MakeProtocol,
    status: int,
    values: list[bytes],
    pieces: list[bytes],
    known: bool,
    raw: bytes,
) -> None:
    protocol = make_protocol()
    events(protocol, raw)
    content = b"".join(pieces)
    fields = tuple((b"x-%d" % i, value) for i, value in enumerate(values))
    written = protocol.send_head(Response(status, fields, content if known else None))
    written += b"".join(protocol.send_content(piece) for piece in pieces) + protocol.end()
    answered = read_by_http_client(written)
    assert (answered.status, answered.content, answered.rest) == (status, content, b"")
    assert [answered.fields[f"x-{i}"].encode("latin-1") for i in range(len(values))] == values
    assert read_by_h11(written) == ([status], content)
    assert (answered.fields.get("connection") == "close") is not protocol.keeps_alive
