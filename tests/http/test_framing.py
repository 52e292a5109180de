"""The strict reading of RFC 9112 by the table in tests/conformance, however the stream is cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.errors import IngestError
from ingest.http.messages import Content, Request, Response
from ingest.http.protocol import HTTPProtocol, Signal
from tests.conformance.cases import CANARY, CANARY_READ, CASES, CUT_SHORT, Case, Read, chunked, head

MakeProtocol = Callable[[], HTTPProtocol]
SPLIT_EVERYWHERE_BELOW = 250
CONTROLS = [bytes([byte]) for byte in (*range(9), *range(10, 32), 127)]

one_engine_is_made_again = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


class Outcome(NamedTuple):
    requests: list[Read]
    refused: int | None = None
    ended: bool = False
    """The stream was read to its end."""


def feed(protocol: HTTPProtocol, pieces: Iterable[bytes]) -> Outcome:
    """Read the pieces, and answer each request, as a connection would that never closes by itself."""
    requests: list[Read] = []
    request: Request | None = None
    content: list[bytes] = []
    waiting = iter(pieces)
    try:
        while True:
            event = protocol.next_event()
            if isinstance(event, Request):
                request, content = event, []
            elif isinstance(event, Content):
                assert event.data
                content.append(event.data)
            elif event is Signal.NEED_DATA:
                piece = next(waiting, None)
                if piece is None:
                    return Outcome(requests)
                protocol.receive_data(piece)
            elif event is Signal.END_OF_STREAM:
                return Outcome(requests, ended=True)
            else:
                assert request is not None
                requests.append(Read(request.method, request.target, b"".join(content)))
                request = None
                protocol.send_head(Response(204))
                protocol.end()
                if not protocol.keeps_alive:
                    return Outcome(requests, ended=True)
                protocol.start_next_cycle()
    except IngestError as error:
        return Outcome(requests, refused=error.status)


def bytewise(raw: bytes) -> list[bytes]:
    return [raw[i : i + 1] for i in range(len(raw))]


def cuts(raw: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and, where that stays small, in two parts at each place."""
    places = range(1, len(raw)) if len(raw) < SPLIT_EVERYWHERE_BELOW else ()
    return [[raw], bytewise(raw), *([raw[:place], raw[place:]] for place in places)]


def named(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.parametrize("case", named(CASES))
def test_stream_is_read_as_the_rfc_says(make_protocol: MakeProtocol, case: Case) -> None:
    expected = list(case.requests)
    closes = b"HTTP/1.0" in case.raw and b"keep-alive" not in case.raw
    if case.refused is None and not closes:
        expected.append(CANARY_READ)
    for pieces in cuts(case.raw + CANARY):
        outcome = feed(make_protocol(), pieces)
        assert (outcome.requests, outcome.refused) == (expected, case.refused), pieces


@pytest.mark.parametrize("case", named(CUT_SHORT))
def test_stream_that_ends_in_a_message_is_refused(make_protocol: MakeProtocol, case: Case) -> None:
    for pieces in cuts(case.raw):
        outcome = feed(make_protocol(), [*pieces, b""] if case.raw else [b""])
        assert outcome == Outcome(list(case.requests), case.refused, ended=case.refused is None), pieces


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(
    "raw",
    [
        head(b"Content-Type: a/b", b"Content-Length: 3"),
        chunked(b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n"),
    ],
    ids=["head", "chunks"],
)
def test_control_character_is_refused_at_every_position(
    make_protocol: MakeProtocol, raw: bytes, control: bytes
) -> None:
    for place in range(len(raw)):
        changed = raw[:place] + control + raw[place:]
        if not changed.startswith(raw):
            assert feed(make_protocol(), [changed + CANARY]) == Outcome([], 400), place


@pytest.mark.parametrize(
    "raw", [head(b"A: b"), chunked(b"3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n")], ids=["head", "chunks"]
)
def test_line_end_without_cr_or_lf_is_refused_at_every_line(make_protocol: MakeProtocol, raw: bytes) -> None:
    for place in range(len(raw)):
        if raw[place : place + 1] in (b"\r", b"\n"):
            outcome = feed(make_protocol(), [raw[:place] + raw[place + 1 :] + CANARY, b""])
            assert outcome == Outcome([], 400), place


def test_refusal_comes_before_the_end_of_the_head_where_it_can(make_protocol: MakeProtocol) -> None:
    assert feed(make_protocol(), [b"GET / HTTP/1.1\nHost: a\n\n"]).refused == 400
    assert feed(make_protocol(), [b"GET /\r\n"]).refused == 400
    assert feed(make_protocol(), [b"GET / HTTP/3.0\r\n"]).refused == 505
    assert feed(make_protocol(), [b"GET /" + b"a" * 33000]).refused == 431
    assert (
        feed(make_protocol(), [head(*[b"a: b"] * 50) + b"POST /t HTTP/1.1\r\n" + b"a: b\r\n" * 6000]).refused
        == 431
    )


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.refused is not None], ids=lambda case: case.name
)
def test_refusal_is_a_bounded_printable_sentence(make_protocol: MakeProtocol, case: Case) -> None:
    protocol = make_protocol()
    feed(protocol, [case.raw + CANARY])
    with pytest.raises(IngestError) as again:
        protocol.next_event()
    assert again.value.__cause__ is None, "the engine refused what the framing let through"
    message = again.value.message
    assert message.isprintable()
    assert 20 < len(message) < 400


# Any bytes at all -----------------------------------------------------------------------------------

fragments = st.sampled_from(
    [case.raw for case in CASES if len(case.raw) < 300]
    + [b"\r\n", b"\r", b"\n", b"\0", b" ", b":", b"0", b";", b"GET / HTTP/1.1", b"Host: a", b"HTTP/1.0"]
)
streams = st.one_of(
    st.binary(max_size=200), st.lists(st.one_of(fragments, st.binary(max_size=4)), max_size=8).map(b"".join)
)


def cut(draw: st.DrawFn, raw: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    bounds = [0, *places, len(raw)]
    return [raw[a:b] for a, b in itertools.pairwise(bounds) if a != b]


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    raw = draw(streams)
    return raw, cut(draw, raw)


@one_engine_is_made_again
@given(stream=cut_streams())
def test_any_bytes_are_read_alike_however_they_are_cut(
    make_protocol: MakeProtocol, stream: tuple[bytes, list[bytes]]
) -> None:
    raw, pieces = stream
    whole = feed(make_protocol(), [raw, b""] if raw else [b""])
    assert whole.ended or whole.refused is not None
    assert feed(make_protocol(), [*pieces, b""]) == whole
    assert feed(make_protocol(), [*bytewise(raw), b""]) == whole


token_characters = "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
values = st.binary(max_size=20).map(lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127))
deciding = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"}
names = (
    st.text(token_characters, min_size=1, max_size=12)
    .map(str.encode)
    .filter(lambda n: n.lower() not in deciding)
)


@st.composite
def valid_streams(draw: st.DrawFn) -> tuple[list[Read], list[list[tuple[bytes, bytes]]], list[bytes]]:
    """Requests, their fields, and their bytes in pieces."""
    raw, requests, fields_of = b"", [], []
    for _ in range(draw(st.integers(1, 3))):
        method = draw(st.text(token_characters, min_size=1, max_size=12))
        target = draw(st.text([chr(c) for c in range(33, 127)], min_size=1, max_size=12)).encode()
        fields = draw(st.lists(st.tuples(names, values), max_size=4))
        contents = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=3))
        if draw(st.booleans()):
            own = (b"Transfer-Encoding", b"chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in contents) + b"0\r\n\r\n"
        else:
            body = b"".join(contents)
            own = (b"Content-Length", b"%d" % len(body))
        fields = [(b"Host", b"a"), *fields, own]
        lines = [b"%b:%b" % field for field in fields]
        raw += head(*lines, line=f"{method} ".encode() + target + b" HTTP/1.1", host=b"") + body
        requests.append(Read(method, target, b"".join(contents)))
        fields_of.append([(name.lower(), value.strip(b" \t")) for name, value in fields])
    return requests, fields_of, cut(draw, raw)


@one_engine_is_made_again
@given(stream=valid_streams())
def test_every_valid_stream_is_read_as_it_was_written(
    make_protocol: MakeProtocol, stream: tuple[list[Read], list[list[tuple[bytes, bytes]]], list[bytes]]
) -> None:
    requests, fields_of, pieces = stream
    assert feed(make_protocol(), [*pieces, b""]) == Outcome(requests, ended=True)
    protocol = make_protocol()
    protocol.receive_data(b"".join(pieces))
    first = protocol.next_event()
    assert isinstance(first, Request)
    assert list(first.fields) == fields_of[0]
