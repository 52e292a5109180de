"""The strict reading of RFC 9112 by the table in tests/conformance, however the stream is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.errors import IngestError
from ingest.http.messages import Request
from tests.conformance.case import CANARY, Case, Read, chunked, head
from tests.conformance.cases import AT_ONCE, CASES, CUT_SHORT
from tests.conformance.reading import MakeProtocol, Outcome, bytewise, feed

SPLIT_EVERYWHERE_BELOW = 250
CONTROLS = [bytes([byte]) for byte in (*range(9), *range(10, 32), 127)]

one_engine_is_made_again = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def cuts(raw: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and, where that stays small, in two parts at each place."""
    places = range(1, len(raw)) if len(raw) < SPLIT_EVERYWHERE_BELOW else ()
    return [[raw], bytewise(raw), *([raw[:place], raw[place:]] for place in places)]


def named(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.parametrize("case", named(CASES))
def test_stream_is_read_as_the_rfc_says(make_protocol: MakeProtocol, case: Case) -> None:
    for pieces in cuts(case.raw + CANARY):
        outcome = feed(make_protocol(), pieces)
        assert (outcome.requests, outcome.refused) == (case.expected, case.refused), (case.rfc, pieces)


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


@pytest.mark.parametrize("case", named(AT_ONCE))
def test_stream_is_refused_as_soon_as_it_can_be_known(make_protocol: MakeProtocol, case: Case) -> None:
    for pieces in cuts(case.raw):
        assert feed(make_protocol(), pieces) == Outcome(list(case.requests), case.refused), pieces


def test_cases_have_names_of_their_own_and_a_section() -> None:
    cases = [*CASES, *CUT_SHORT, *AT_ONCE]
    names = [case.name for case in cases]
    assert sorted(set(names)) == sorted(names)
    assert all(case.rfc.startswith("RFC 9") for case in cases)


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
target_characters = [chr(code) for code in range(33, 127) if code != ord("#")]
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
        target = draw(
            st.text([chr(c) for c in range(33, 127) if chr(c) != "#"], min_size=1, max_size=12)
        ).encode()
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
