"""Every byte at every kind of position: put in, or in place of another, with what the grammar says of it.

The sets below are the oracle: written by hand from the ABNF of RFC 9110 and RFC 9112 (and of RFC 3986 for
hosts), as sets of bytes.  They share nothing with the expressions of `ingest.http`.  Where ingest is
stricter or wider than the grammar, the position says so.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.conformance.case import LAST, Case, Read, chunked, head

DIGIT = frozenset(string.digits.encode())
HEXDIG = frozenset(string.hexdigits.encode())
ALPHA = frozenset(string.ascii_letters.encode())
VCHAR = frozenset(range(0x21, 0x7F))
OBS_TEXT = frozenset(range(0x80, 0x100))
HTAB, SP, CR, LF = b"\t"[0], b" "[0], b"\r"[0], b"\n"[0]
WHITE = frozenset({HTAB, SP})
TCHAR = DIGIT | ALPHA | frozenset(b"!#$%&'*+-.^_`|~")
FIELD_CONTENT = VCHAR | OBS_TEXT | WHITE
QDTEXT = FIELD_CONTENT - frozenset(b'"\\')
UNRESERVED_AND_SUB_DELIMS = DIGIT | ALPHA | frozenset(b"-._~!$&'()*+,;=")
NONE: frozenset[int] = frozenset()


class Position(NamedTuple):
    """`before`, one byte, `behind`: read as `reads` says where the byte is `allowed`, else refused."""

    name: str
    rfc: str
    before: bytes
    behind: bytes
    allowed: frozenset[int]
    reads: Callable[[bytes], Read]
    refused: Callable[[int], int] = lambda _code: 400
    apart: frozenset[int] = NONE
    """Digits that make another length: `other_lengths` has them."""

    def cases(self) -> Iterator[Case]:
        """One case for each byte."""
        for code in sorted(frozenset(range(256)) - self.apart):
            byte = bytes([code])
            case = Case(f"{self.name}: {byte!r}", self.before + byte + self.behind, rfc=self.rfc)
            if code in self.allowed:
                yield case._replace(requests=(self.reads(byte),))
            else:
                yield case._replace(refused=self.refused(code))


def plain(_byte: bytes) -> Read:
    return Read("POST", b"/t", b"")


def abc(_byte: bytes) -> Read:
    return Read("POST", b"/t", b"abc")


REST = b"\r\nHost: a\r\n\r\n"
HEAD = head()[:-2]  # without its empty line
CHUNKED = chunked(b"")
ABC = b"abc\r\n" + LAST


def field(name: str, rfc: str, before: bytes, behind: bytes, allowed: frozenset[int]) -> Position:
    return Position(name, rfc, HEAD + before, behind + b"\r\n\r\n", allowed, plain)


def host(name: str, before: bytes, behind: bytes, allowed: frozenset[int]) -> Position:
    start = b"POST /t HTTP/1.1\r\nHost:"
    return Position(name, "RFC 9110, 7.2", start + before, behind + b"\r\n\r\n", allowed, plain)


def chunk_line(
    name: str, before: bytes, behind: bytes, allowed: frozenset[int], apart: frozenset[int] = NONE
) -> Position:
    start, end = CHUNKED + before, behind + b"\r\n" + ABC
    return Position(name, "RFC 9112, 7.1.1", start, end, allowed, abc, apart=apart)


def trailer(name: str, before: bytes, behind: bytes, allowed: frozenset[int]) -> Position:
    start = CHUNKED + b"0\r\n" + before
    return Position(name, "RFC 9112, 7.1.2", start, behind + b"\r\n\r\n", allowed, plain)


def old_version(code: int) -> int:
    return 505 if code in DIGIT else 400


POSITIONS = [
    # The request line.
    Position(
        "before the method",
        "RFC 9110, 9.1",
        b"",
        b"PUT /t HTTP/1.1" + REST,
        TCHAR,
        lambda byte: Read(byte.decode() + "PUT", b"/t", b""),
    ),
    Position(
        "in the method",
        "RFC 9110, 9.1",
        b"P",
        b"T /t HTTP/1.1" + REST,
        TCHAR,
        lambda byte: Read("P" + byte.decode() + "T", b"/t", b""),
    ),
    Position(
        "the space behind the method",
        "RFC 9112, 3",
        b"PUT",
        b"/t HTTP/1.1" + REST,
        frozenset({SP}),
        lambda _byte: Read("PUT", b"/t", b""),
    ),
    Position(
        "behind the space",
        "RFC 9112, 3.2",
        b"PUT ",
        b"/t HTTP/1.1" + REST,
        VCHAR - frozenset(b"#"),
        lambda byte: Read("PUT", byte + b"/t", b""),
    ),  # wider: whether it is a form of target is routing's
    Position(
        "in the target",
        "RFC 9112, 3.2",
        b"PUT /a",
        b"b HTTP/1.1" + REST,
        VCHAR - frozenset(b"#"),
        lambda byte: Read("PUT", b"/a" + byte + b"b", b""),
    ),  # wider than RFC 3986
    Position(
        "the space behind the target",
        "RFC 9112, 3",
        b"PUT /t",
        b"HTTP/1.1" + REST,
        frozenset({SP}),
        lambda _byte: Read("PUT", b"/t", b""),
    ),
    Position("before the version", "RFC 9112, 2.3", b"PUT /t ", b"HTTP/1.1" + REST, NONE, plain),
    Position(
        "the first letter of HTTP", "RFC 9112, 2.3", b"POST /t ", b"TTP/1.1" + REST, frozenset(b"H"), plain
    ),
    Position(
        "the last letter of HTTP", "RFC 9112, 2.3", b"POST /t HTT", b"/1.1" + REST, frozenset(b"P"), plain
    ),
    Position(
        "the slash of the version", "RFC 9112, 2.3", b"POST /t HTTP", b"1.1" + REST, frozenset(b"/"), plain
    ),
    Position(
        "the major version",
        "RFC 9112, 2.3",
        b"POST /t HTTP/",
        b".1" + REST,
        frozenset(b"1"),
        plain,
        old_version,
    ),
    Position(
        "the dot of the version", "RFC 9112, 2.3", b"POST /t HTTP/1", b"1" + REST, frozenset(b"."), plain
    ),
    Position(
        "the minor version",
        "RFC 9112, 2.3",
        b"POST /t HTTP/1.",
        b"\r\nHost: a\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
        frozenset(b"01"),
        plain,
        old_version,
    ),  # stricter: 1.2 and above could be read as 1.1
    Position("behind the version", "RFC 9112, 3", b"POST /t HTTP/1.1", REST, NONE, plain),
    Position(
        "the CR of the request line",
        "RFC 9112, 2.2",
        b"POST /t HTTP/1.1",
        b"\nHost: a\r\n\r\n",
        frozenset({CR}),
        plain,
    ),
    Position(
        "the LF of the request line",
        "RFC 9112, 2.2",
        b"POST /t HTTP/1.1\r",
        b"Host: a\r\n\r\n",
        frozenset({LF}),
        plain,
    ),
    # Field lines.
    field("before a name", "RFC 9110, 5.1", b"", b"a: b", TCHAR),
    field("in a name", "RFC 9110, 5.1", b"a", b"b: c", TCHAR | frozenset(b":")),
    field("before the colon", "RFC 9112, 5.1", b"a", b": b", TCHAR | frozenset(b":")),
    field("the colon", "RFC 9112, 5", b"a", b"", frozenset(b":")),
    field("behind the colon", "RFC 9110, 5.5", b"a:", b"b", FIELD_CONTENT),
    field("in a value", "RFC 9110, 5.5", b"a: b", b"c", FIELD_CONTENT),
    field("behind a value", "RFC 9110, 5.5", b"a: b", b"", FIELD_CONTENT),
    Position(
        "the CR of a field line", "RFC 9112, 2.2", HEAD + b"a: b", b"\nc: d\r\n\r\n", frozenset({CR}), plain
    ),
    Position(
        "the LF of a field line", "RFC 9112, 2.2", HEAD + b"a: b\r", b"c: d\r\n\r\n", frozenset({LF}), plain
    ),
    Position("at the start of a line without colon", "RFC 9112, 5", HEAD, b"\r\n\r\n", NONE, plain),
    Position("the CR of the empty line", "RFC 9112, 2.2", HEAD, b"\n", frozenset({CR}), plain),
    Position("the LF of the empty line", "RFC 9112, 2.2", HEAD + b"\r", b"", frozenset({LF}), plain),
    # Host.
    host("before the host", b"", b"a", WHITE | UNRESERVED_AND_SUB_DELIMS),
    host("in the host", b"a", b"b", UNRESERVED_AND_SUB_DELIMS),
    host("the first digit behind a percent sign", b"%", b"1", HEXDIG),
    host("the second digit behind a percent sign", b"%1", b"", HEXDIG),
    host("before the port's colon", b"a", b":1", UNRESERVED_AND_SUB_DELIMS),
    host("in the port", b"a:8", b"0", DIGIT),
    host("behind the port", b"a:80", b"", WHITE | DIGIT),
    host("before IPv6", b"", b"[::1]", WHITE),
    host("in IPv6", b"[::", b"]", HEXDIG),
    host("behind IPv6", b"[::1]", b"", WHITE | frozenset(b":")),
    # Lengths and codings.
    Position(
        "before the length",
        "RFC 9110, 8.6",
        HEAD + b"Content-Length:",
        b"0\r\n\r\n",
        WHITE | frozenset(b"0"),
        plain,
        apart=DIGIT - frozenset(b"0"),
    ),
    Position(
        "in the length",
        "RFC 9110, 8.6",
        HEAD + b"Content-Length: 0",
        b"3\r\n\r\nabc",
        frozenset(b"0"),
        abc,
        apart=DIGIT - frozenset(b"0"),
    ),
    Position(
        "behind the length",
        "RFC 9110, 8.6",
        HEAD + b"Content-Length: 3",
        b"\r\n\r\nabc",
        WHITE,
        abc,
        apart=DIGIT,
    ),
    Position(
        "before chunked",
        "RFC 9112, 6.1",
        HEAD + b"Transfer-Encoding:",
        b"chunked\r\n\r\n" + LAST,
        WHITE,
        plain,
    ),
    Position(
        "in chunked", "RFC 9112, 6.1", HEAD + b"Transfer-Encoding: chun", b"ked\r\n\r\n" + LAST, NONE, plain
    ),
    Position(
        "a letter of chunked",
        "RFC 9112, 6.1",
        HEAD + b"Transfer-Encoding: chun",
        b"ed\r\n\r\n" + LAST,
        frozenset(b"kK"),
        plain,
    ),
    Position(
        "behind chunked",
        "RFC 9112, 6.1",
        HEAD + b"Transfer-Encoding: chunked",
        b"\r\n\r\n" + LAST,
        WHITE,
        plain,
    ),
    # Chunk-size lines.
    chunk_line("before a size", b"", b"3", frozenset(b"0"), HEXDIG - frozenset(b"0")),
    chunk_line("behind a size", b"3", b"", NONE, HEXDIG),
    chunk_line("behind a size, before a name", b"3", b"x", frozenset(b";"), HEXDIG),
    chunk_line("before a semicolon", b"3", b";a", NONE, HEXDIG),  # stricter: no bad white space
    chunk_line("the semicolon", b"3", b"a=b", frozenset(b";")),
    chunk_line("before an extension's name", b"3;", b"a", TCHAR),
    chunk_line("in an extension's name", b"3;a", b"b", TCHAR | frozenset(b";=")),
    chunk_line("behind an extension's name", b"3;a", b"=b", TCHAR),
    chunk_line("before an extension's value", b"3;a=", b"b", TCHAR),
    chunk_line("in an extension's value", b"3;a=b", b"c", TCHAR | frozenset(b";")),
    chunk_line("behind an extension's value", b"3;a=b", b"", TCHAR),
    chunk_line("in quotes", b'3;a="b', b'c"', QDTEXT | frozenset(b"\\")),
    chunk_line("behind a backslash", b'3;a="\\', b'"', FIELD_CONTENT),
    chunk_line("behind quotes", b'3;a="b"', b"", NONE),
    chunk_line("behind quotes, before a name", b'3;a="b"', b"c", frozenset(b";")),
    Position(
        "the CR of a chunk-size line", "RFC 9112, 7.1", CHUNKED + b"3", b"\n" + ABC, frozenset({CR}), abc
    ),
    Position("the LF of a chunk-size line", "RFC 9112, 7.1", CHUNKED + b"3\r", ABC, frozenset({LF}), abc),
    Position(
        "the CR of a line with an extension",
        "RFC 9112, 7.1",
        CHUNKED + b"3;a",
        b"\n" + ABC,
        frozenset({CR}),
        abc,
    ),
    Position(
        "the LF of a line with an extension", "RFC 9112, 7.1", CHUNKED + b"3;a\r", ABC, frozenset({LF}), abc
    ),
    Position("the size of the last chunk", "RFC 9112, 7.1", CHUNKED, b"\r\n\r\n", frozenset(b"0"), plain),
    # Data and trailers.
    Position(
        "in the data",
        "RFC 9112, 7.1",
        CHUNKED + b"3\r\na",
        b"c\r\n" + LAST,
        frozenset(range(256)),
        lambda byte: Read("POST", b"/t", b"a" + byte + b"c"),
    ),
    Position("behind the data", "RFC 9112, 7.1", CHUNKED + b"3\r\nabc", b"\r\n" + LAST, NONE, abc),
    Position(
        "the CR behind the data", "RFC 9112, 7.1", CHUNKED + b"3\r\nabc", b"\n" + LAST, frozenset({CR}), abc
    ),
    Position("the LF behind the data", "RFC 9112, 7.1", CHUNKED + b"3\r\nabc\r", LAST, frozenset({LF}), abc),
    trailer("before a trailer's name", b"", b"a: b", TCHAR),
    trailer("in a trailer's name", b"a", b"b: c", TCHAR | frozenset(b":")),
    trailer("before a trailer's colon", b"a", b": b", TCHAR | frozenset(b":")),
    trailer("in a trailer's value", b"a: b", b"c", FIELD_CONTENT),
    trailer("behind a trailer's value", b"a: b", b"", FIELD_CONTENT),
    Position(
        "the CR behind a trailer",
        "RFC 9112, 7.1.2",
        CHUNKED + b"0\r\na: b",
        b"\n\r\n",
        frozenset({CR}),
        plain,
    ),
    Position(
        "the LF behind a trailer",
        "RFC 9112, 7.1.2",
        CHUNKED + b"0\r\na: b\r",
        b"\r\n",
        frozenset({LF}),
        plain,
    ),
    Position("behind the last chunk", "RFC 9112, 7.1", CHUNKED + b"0\r\n", b"\r\n", NONE, plain),
    Position(
        "the CR of the last empty line", "RFC 9112, 7.1", CHUNKED + b"0\r\n", b"\n", frozenset({CR}), plain
    ),
    Position(
        "the LF of the last empty line", "RFC 9112, 7.1", CHUNKED + b"0\r\n\r", b"", frozenset({LF}), plain
    ),
]


def other_lengths() -> Iterator[Case]:
    """Each digit where it makes another length, with content of that length."""
    for code in sorted(HEXDIG):
        digit = bytes([code])
        for place, size in (("before", digit + b"3"), ("behind", b"3" + digit)):
            for extension in (b"", b";x"):
                data = b"a" * int(size, 16)
                raw = chunked(size + extension + b"\r\n" + data + b"\r\n" + LAST)
                name = f"{digit!r} {place} a size, {extension!r}"
                yield Case(name, raw, (Read("POST", b"/t", data),), rfc="RFC 9112, 7.1")
            if code in DIGIT:
                data = b"a" * int(size)
                name = f"{digit!r} {place} a length"
                raw = head(b"Content-Length: " + size) + data
                yield Case(name, raw, (Read("POST", b"/t", data),), rfc="RFC 9110, 8.6")
