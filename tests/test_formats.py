from __future__ import annotations

import contextlib
import itertools
import json
import tracemalloc
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.errors import IngestError, InvalidRecord, TooLarge
from ingest.formats import plain
from ingest.formats.keys import check_json, key_at
from ingest.formats.ndjson import LineDecoder
from ingest.formats.seam import BATCH_RECORDS, Batch
from ingest.records import Record

LIKE = Record("t", None, None, (("h", b"v"),), 3, 99)
LIMIT = 40
FIXED = LIKE.size()


def decode(
    pieces: Iterable[bytes],
    *,
    key_field: tuple[str, ...] | None = None,
    validate: bool = True,
    limit: int = LIMIT,
) -> tuple[list[tuple[int, Record]], list[tuple[int, str]]]:
    """Numbered records and numbered failures of content that comes in `pieces`."""
    decoder = LineDecoder(LIKE, record_bytes=limit, key_field=key_field, validate=validate)
    batches: list[Batch] = []
    for piece in pieces:
        batches += decoder.feed(piece)
        assert 0 <= decoder.held_bytes <= limit
    batches += decoder.end()
    assert all(len(lines.records) + len(lines.failures) <= BATCH_RECORDS for lines in batches)
    return (
        [pair for lines in batches for pair in zip(lines.numbers, lines.records, strict=True)],
        [
            (number, f"{type(error).__name__}: {error}")
            for lines in batches
            for number, error in lines.failures
        ],
    )


def values(*pieces: bytes, **options: Any) -> list[tuple[int, bytes | None]]:
    """Numbered values, where nothing fails."""
    records, failures = decode(pieces, **options)
    assert failures == []
    return [(number, record.value) for number, record in records]


# NDJSON -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b'{"a":1}\n{"a":2}\n', [(1, b'{"a":1}'), (2, b'{"a":2}')]),
        (b"1\n2", [(1, b"1"), (2, b"2")]),
        (b"1\r\n2\r\n", [(1, b"1"), (2, b"2")]),
        (b"1\n2\r", [(1, b"1"), (2, b"2")]),
        (b"\n1\n\n \t\n\r\n2\n\n", [(2, b"1"), (6, b"2")]),
        (b' {"b" : 1.0e1 , "a":"\\u00e9"} \n', [(1, b' {"b" : 1.0e1 , "a":"\\u00e9"} ')]),
        (b"\n", []),
        (b"\r", []),
    ],
)
def test_each_line_is_a_record_byte_for_byte(content: bytes, expected: list[tuple[int, bytes]]) -> None:
    assert values(content) == expected


def test_every_record_has_what_the_request_says() -> None:
    records, _ = decode([b'{"k":"x"}\n'], key_field=("k",))
    assert records == [(1, Record("t", b'{"k":"x"}', b"x", (("h", b"v"),), 3, 99))]


def test_a_line_that_is_not_json_fails_alone() -> None:
    records, failures = decode([b'1\n{"a":\n"\xff"\n2 3\n4\n"\\ud800"\n'])
    assert [number for number, _ in records] == [1, 5]
    assert [number for number, _ in failures] == [2, 3, 4, 6]
    assert failures[1][1] == "InvalidRecord: invalid JSON: not UTF-8 at byte 1"
    assert failures[0][1] == failures[3][1]
    assert "ends too early, or has half of a surrogate pair" in failures[0][1]
    assert all(message.startswith("InvalidRecord: invalid JSON: ") for _, message in failures)


def test_a_line_without_its_key_fails_alone() -> None:
    records, failures = decode([b'{"k":"a"}\n{}\n{"k":"b"}'], key_field=("k",))
    assert [(number, record.key) for number, record in records] == [(1, b"a"), (3, b"b")]
    assert failures == [(2, "InvalidRecord: there is no field 'k' to take the key from")]


def test_unvalidated_lines_pass_as_they_are() -> None:
    assert values(b"no json\n\xff\n\r\n  \n\nx", validate=False) == [
        (1, b"no json"), (2, b"\xff"), (4, b"  "), (6, b"x"),
    ]  # fmt: skip


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("validate", [True, False])
def test_the_longest_line_passes_and_a_byte_more_fails_alone(end: bytes, validate: bool) -> None:
    longest = b"1" * (LIMIT - FIXED)
    assert values(b"2\n" + longest + end, validate=validate) == [(1, b"2"), (2, longest)]
    for pieces in ([longest + b"1" + end], [longest, b"1", end], [longest[:5], longest[5:] + b"1" + end]):
        records, failures = decode([b"2\n", *pieces, b"" if end else b"\n", b"3\n"], validate=validate)
        assert [number for number, _ in records] == [1, 3]
        assert failures == [
            (2, (f"TooLarge: the line makes a record of more than {LIMIT} bytes with key and headers, "
                 "the most for this topic by limits.record_bytes or its own max.message.bytes")),
        ]  # fmt: skip


def test_the_key_counts_for_the_length_of_a_line() -> None:
    line = b'{"k":"%s"}'
    fits = (LIMIT - FIXED - len(line) + 2) // 2
    assert len(values(line % (b"x" * fits), key_field=("k",))) == 1
    _, failures = decode([line % (b"x" * (fits + 1))], key_field=("k",))
    assert [number for number, _ in failures] == [1]


def test_a_line_without_end_is_not_held() -> None:
    decoder = LineDecoder(LIKE, record_bytes=LIMIT)
    for _ in range(1000):
        assert not list(decoder.feed(b"x" * 1000))
        assert decoder.held_bytes <= LIMIT
    (lines,) = decoder.feed(b"\n5\n")
    assert [(number, type(error)) for number, error in lines.failures] == [(1, TooLarge)]
    assert [record.value for record in lines.records] == [b"5"]


def test_many_short_lines_come_in_batches() -> None:
    decoder = LineDecoder(LIKE, record_bytes=LIMIT)
    batches = list(decoder.feed(b"1\n" * (2 * BATCH_RECORDS + 1)))
    assert [len(lines.records) for lines in batches] == [BATCH_RECORDS, BATCH_RECORDS, 1]
    assert [lines.numbers[0] for lines in batches] == [1, BATCH_RECORDS + 1, 2 * BATCH_RECORDS + 1]


@pytest.mark.parametrize(
    ("blank", "validate"),
    [(b"\n", True), (b" \t\r\n", True), (b"\n", False)],
    ids=["empty", "white", "unread"],
)
def test_blank_lines_in_a_row_are_skipped_together(blank: bytes, validate: bool) -> None:
    decoder = LineDecoder(LIKE, record_bytes=LIMIT, validate=validate)
    batches = list(decoder.feed(10 * BATCH_RECORDS * blank + b"1\n" + blank))
    assert [(list(lines.numbers), len(lines.failures)) for lines in batches if lines.numbers] == [
        ([10 * BATCH_RECORDS + 1], 0)
    ]
    assert len(batches) == 1


def test_where_headers_leave_no_room_every_line_is_too_long() -> None:
    records, failures = decode([b"1\n", b"2"], limit=FIXED)
    assert (records, [number for number, _ in failures]) == ([], [1, 2])


LINES = st.one_of(
    st.sampled_from(
        [b"", b"1", b'{"k":"v"}', b'{"k":1}', b"{", b"\r", b" ", b"\xff", b"x" * LIMIT, b"1" * 60]
    ),
    st.binary(max_size=LIMIT + 5),
)
CONTENT = st.builds(
    lambda lines, ends, last: (
        b"".join(line + (b"\r\n" if crlf else b"\n") for line, crlf in zip(lines, ends, strict=False)) + last
    ),
    st.lists(LINES, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
    LINES,
)


@given(CONTENT, st.lists(st.integers(0, 400), max_size=20), st.booleans(), st.booleans())
@example(b"1" * (LIMIT - FIXED) + b"\r\n2", [LIMIT - FIXED, LIMIT - FIXED + 1], True, False)
@example(b"1" * (LIMIT - FIXED) + b"\r2", [LIMIT - FIXED + 1], True, False)
def test_however_content_is_cut_the_records_and_failures_are_the_same(
    content: bytes, cuts: list[int], validate: bool, keyed: bool
) -> None:
    key_field = ("k",) if keyed and validate else None
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    pieces = [content[start:end] for start, end in itertools.pairwise(places)]
    whole = decode([content], key_field=key_field, validate=validate)
    assert decode(pieces, key_field=key_field, validate=validate) == whole
    single = [content[at : at + 1] for at in range(len(content))]
    assert decode(single, key_field=key_field, validate=validate) == whole


@given(CONTENT, st.booleans())
def test_every_line_becomes_a_record_with_its_bytes_or_a_failure_or_is_blank(
    content: bytes, validate: bool
) -> None:
    records, failures = decode([content], validate=validate)
    found = {number: record.value for number, record in records}
    failed = {number for number, _ in failures}
    assert len(found) + len(failed) == len(records) + len(failures)
    assert [number for number, _ in records] == sorted(found)
    for number, line in enumerate(content.split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if number in found:
            assert found[number] == line
        else:
            assert (number in failed) == bool(
                line.strip() if validate and len(line) <= LIMIT - FIXED else line
            )
    if validate:
        for value in found.values():
            assert value is not None
            json.loads(value)


PARTS = st.sampled_from(
    [
        b"{",
        b"}",
        b"[1",
        b",",
        b"]",
        b"1",
        b'"a',
        b'"',
        b" ",
        b"\t1 ",
        b'{"k":1}',
        b"1 2",
        b"\xff",
        b'"\xc3',
        b'\xa9"',
    ]
)


@given(st.lists(PARTS, max_size=12))
@example([b"{", b"}"])
@example([b"[1", b"]", b"1 2"])
@example([b'"\xc3', b'\xa9"'])
def test_no_value_goes_on_in_the_next_line(lines: list[bytes]) -> None:
    fit = []
    for number, line in enumerate(lines, 1):
        with contextlib.suppress(InvalidRecord):
            if line.strip():
                check_json(line)
                fit.append((number, line))
    records, _ = decode([b"\n".join(lines)])
    assert [(number, record.value) for number, record in records] == fit


# One record -------------------------------------------------------------------------------------------


@given(st.binary(max_size=LIMIT - FIXED))
def test_the_content_is_the_value_byte_for_byte(content: bytes) -> None:
    record = plain.read(content, LIKE, None, LIMIT)
    assert record == Record("t", content, None, (("h", b"v"),), 3, 99)


def test_a_record_above_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(TooLarge, match=r"has 41 bytes with key and headers; 40 is the most for this topic"):
        plain.read(b"x" * (LIMIT - FIXED + 1), LIKE, None, LIMIT)


def test_the_key_of_a_record_comes_from_its_content_and_counts() -> None:
    content = b'{"user":{"id":7}}'
    like = Record("t")
    record = plain.read(content, like, ("user", "id"), len(content) + 1)
    assert (record.key, record.value) == (b"7", content)
    with pytest.raises(TooLarge):
        plain.read(content, like, ("user", "id"), len(content))
    with pytest.raises(InvalidRecord, match="invalid JSON"):
        plain.read(b"", like, ("user", "id"), LIMIT)


def test_nothing_is_made_of_a_value_that_is_passed_over() -> None:
    content = b'{"k":"a","v":[' + 100_000 * b'1.5,{},"b",' + b"1]}"
    tracemalloc.start()
    key_at(content, ("k",))
    _, traced = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert traced <= 2 * len(content)  # of which its text is one


# Keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b'{"k":"\\u00e9"}', "é".encode()),
        (b'{"k":""}', b""),
        (b'{"k":"a\\u0000"}', b"a\0"),
        (b'{"k":7}', b"7"),
        (b'{"k":-1.5}', b"-1.5"),
        (b' {"k" :\t-1.50E+3 } ', b"-1.50E+3"),
        (b'{"\\u006b":"a"}', b"a"),
        (b'{"k":{},"k":1}', b"1"),
        (b'{"k":123456789012345678901234567890}', b"123456789012345678901234567890"),
        (b'{"k":true}', b"true"),
        (b'{"k":false}', b"false"),
        (b'{"k":1,"k":2}', b"2"),
    ],
)
def test_a_key_is_the_text_of_a_string_or_the_json_of_a_number(content: bytes, key: bytes) -> None:
    assert key_at(content, ("k",)) == key


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"k":null}', "field 'k.l' cannot be a key|no field 'k.l'"),
        (b'{"k":{"l":null}}', "field 'k.l' cannot be a key: it is not a string, number or boolean"),
        (b'{"k":{"l":[]}}', "cannot be a key"),
        (b'{"k":{"l":{}}}', "cannot be a key"),
        (b'{"k":"l"}', "there is no field 'k.l' to take the key from"),
        (b'{"k.l":1}', "there is no field"),
        (b"[]", "there is no field"),
        (b"null", "there is no field"),
    ],
)
def test_what_cannot_be_a_key_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InvalidRecord, match=message):
        key_at(content, ("k", "l"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_as_the_standard_library_writes_it_is_json(value: object) -> None:
    check_json(json.dumps(value).encode())
    check_json(json.dumps(value, ensure_ascii=False, indent=1).encode())


@given(st.dictionaries(st.text(), VALUES), st.text(min_size=1), st.integers() | st.text(), st.booleans())
@example({}, "\u00e9", 1, True)
@example({}, 'a"\\\n', 1, False)
def test_a_key_is_found_under_any_name_among_any_others(
    others: dict[str, object], name: str, value: int | str, ascii_only: bool
) -> None:
    content = json.dumps({**others, name: {**others, name: value}}, ensure_ascii=ascii_only).encode()
    assert key_at(content, (name, name)) == str(value).encode()


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_that_are_not_read_have_the_common_key(end: bytes) -> None:
    records, _ = decode([b'{"k":1}' + end], key_field=("k",), validate=False)
    assert [record.key for _, record in records] == [LIKE.key]


KEYS = st.text(st.characters(codec=None)) | st.integers() | st.floats(allow_nan=False) | st.booleans()


@given(st.lists(st.dictionaries(st.sampled_from(["k", "l"]), KEYS | VALUES), min_size=1, max_size=5))
@example([{"k": "a"}, {"k": "\u00e9\\"}])
@example([{"k": "a"}, {"k": 1}])
@example([{"k": "a"}, {"l": 1}])
@example([{"k": "a"}, {"k": None}])
@example([{"k": "a"}, {"k": "\ud800"}])
def test_keys_of_lines_together_are_those_of_each_alone(objects: list[dict[str, object]]) -> None:
    lines = [json.dumps(each).encode() for each in objects]
    records, failures = decode([b"\n".join(lines)], key_field=("k",), limit=1_000_000)
    expected: list[tuple[int, bytes]] = []
    refused: list[int] = []
    for number, line in enumerate(lines, 1):
        try:
            expected.append((number, key_at(line, ("k",))))
        except InvalidRecord:
            refused.append(number)
    assert [(number, record.key) for number, record in records] == expected
    assert [number for number, _ in failures] == refused


@pytest.mark.parametrize("key_field", [None, ("k",)])
@pytest.mark.parametrize(
    "content",
    [
        b'   \n{"k":"good"}\n{"k":"EVIL"}{"k":"x"}\n',
        b'{"k":1}{"k":2}\n{"k":\n3}',
        b'{"k":1} {"k":2}\n\t\n',
        b'{"k":1}\n {"k":2}\n{"k":3} \n',
    ],
)
def test_a_line_is_one_value_whatever_other_lines_are(
    content: bytes, key_field: tuple[str, ...] | None
) -> None:
    together = decode([content], key_field=key_field, limit=1_000_000)
    values: list[tuple[int, bytes, bytes | None]] = []
    refused: list[int] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        records, failures = decode([line + b" "], key_field=key_field, limit=1_000_000)
        values += [(number, (record.value or b"")[:-1], record.key) for _, record in records]
        refused += [number for _ in failures]
    assert [(number, record.value, record.key) for number, record in together[0]] == values
    assert [number for number, _ in together[1]] == refused


@given(st.binary(min_size=1, max_size=3), st.integers(0, 200))
@example(b"\xff", 30)
@example(b"\\ud800", 30)
def test_what_is_passed_over_is_read_no_less_strictly(noise: bytes, at: int) -> None:
    content = json.dumps({"a": ["\u00e9\n", -1.5e3, True, {"b": None}], "k": 1}, ensure_ascii=False).encode()
    at %= len(content)
    content = content[:at] + noise + content[at:]
    try:
        check_json(content)
    except InvalidRecord:
        with pytest.raises(InvalidRecord, match="invalid JSON"):
            key_at(content, ("k",))
    else:
        msgspec.json.Decoder(float_hook=str).decode(content)  # which makes something of everything
        json.loads(content)


@given(st.text(st.characters(codec=None), min_size=1))
def test_any_escape_in_a_string_is_a_key_or_refused(text: str) -> None:
    content = json.dumps({"k": text}).encode()  # lone surrogates are written as escapes
    try:
        key = key_at(content, ("k",))
    except InvalidRecord:
        assert any(0xD800 <= ord(character) <= 0xDFFF for character in text)
    else:
        assert key == text.encode()


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"", b"\xef\xbb\xbf1"])
def test_what_no_one_should_send_is_refused_as_any_other(content: bytes) -> None:
    with pytest.raises(InvalidRecord, match="invalid JSON: "):
        check_json(content)


@given(st.binary())
def test_any_bytes_are_json_or_refused(content: bytes) -> None:
    try:
        check_json(content)
    except IngestError as error:
        assert len(error.message) < 200
    else:
        json.loads(content)
