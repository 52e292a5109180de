"""The chunked coding: sizes, extensions, the ends of lines and of data, trailers."""

from __future__ import annotations

from tests.conformance.case import LAST, Case, chunked, read, under
from tests.conformance.fields import FILLER_FIELD

ABC = b"3\r\nabc\r\n" + LAST


def bad(name: str, content: bytes) -> Case:
    return Case(name, chunked(content), refused=400)


def line(name: str, chunk_line: bytes, *, good: bool = False) -> Case:
    """`chunk_line` in front of the data abc."""
    case = Case(name, chunked(chunk_line + b"abc\r\n" + LAST))
    return case._replace(requests=read(b"abc")) if good else case._replace(refused=400)


SIZES = under(
    "RFC 9112, 7.1",
    Case("no content", chunked(LAST), read()),
    Case("two chunks", chunked(b"3\r\nabc\r\n2\r\nde\r\n" + LAST), read(b"abcde")),
    Case("chunks of one byte", chunked(b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n" + LAST), read(b"abc")),
    Case("noughts for the last chunk", chunked(b"3\r\nabc\r\n000\r\n\r\n"), read(b"abc")),
    line("leading noughts in a size", b"0003\r\n", good=True),
    Case(
        "digits in both cases",
        chunked(b"a\r\n0123456789\r\nB\r\n0123456789a\r\n" + LAST),
        read(b"01234567890123456789a"),
    ),
    Case("CRLF as data", chunked(b"4\r\n\r\n\r\n\r\n" + LAST), read(b"\r\n\r\n")),
    Case("last chunk as data", chunked(b"5\r\n0\r\n\r\n\r\n" + LAST), read(b"0\r\n\r\n")),
    Case(
        "every byte as data",
        chunked(b"100\r\n" + bytes(range(256)) + b"\r\n" + LAST),
        read(bytes(range(256))),
    ),
    line("size of 16 digits", b"0000000000000003\r\n", good=True),
    line("size of 17 digits", b"00000000000000003\r\n"),
    line("size that wraps around at 64 bits", b"10000000000000003\r\n"),
    bad("last chunk of 17 digits", b"00000000000000000\r\n\r\n"),
    line("empty size", b"\r\n"),
    bad("empty size with an extension", b";a\r\n\r\n"),
    line("0x before a size", b"0x3\r\n"),
    line("x before a size", b"x3\r\n"),
    line("h behind a size", b"3h\r\n"),
    line("plus before a size", b"+3\r\n"),
    line("minus before a size", b"-3\r\n"),
    bad("minus nought as a size", b"-0\r\n\r\n"),
    bad("underscore in a size", b"1_0\r\n0123456789abcdef\r\n" + LAST),
    line("letter in a size", b"3g\r\n"),
    line("fraction as a size", b"3.0\r\n"),
    line("size in quotes", b'"3"\r\n'),
    line("full-width digit", b"\xef\xbc\x93\r\n"),
    line("digit beyond ASCII", b"\xb3\r\n"),
    line("NUL behind a size", b"3\0\r\n"),
    line("NUL before a size", b"\x003\r\n"),
    line("space before a size", b" 3\r\n"),
    line("space behind a size", b"3 \r\n"),
    line("tab behind a size", b"3\t\r\n"),
    line("vertical tab behind a size", b"3\x0b\r\n"),
    line("comma behind a size", b"3,3\r\n"),
    bad("space behind the last size", b"0 \r\n\r\n"),
    bad("CRLF before the first size", b"\r\n" + ABC),
    bad("an empty line between two chunks", b"3\r\nabc\r\n\r\n" + LAST),
)

EXTENSIONS = under(
    "RFC 9112, 7.1.1",
    Case("extension", chunked(b"3;a\r\nabc\r\n0;b\r\n\r\n"), read(b"abc")),
    Case("extensions with values", chunked(b"3;a=b;c=d\r\nabc\r\n0;e=f\r\n\r\n"), read(b"abc")),
    line("extension in quotes", b'3;a="b;\\"c\\\\ "\r\n', good=True),
    line("extension of empty quotes", b'3;a=""\r\n', good=True),
    line("obs-text in quotes", b'3;a="\xe4\\\xe4"\r\n', good=True),
    line("a size in quotes", b'3;a="\t0 "\r\n', good=True),
    line(
        "extension of every character of a token",
        b"3;!#$%&'*+-.^_`|~09azAZ=!#$%&'*+-.^_`|~09azAZ\r\n",
        good=True,
    ),
    line("a line of 256 bytes", b"3;" + b"a" * 252 + b"\r\n", good=True),
    line("a line of 257 bytes", b"3;" + b"a" * 253 + b"\r\n"),
    bad("a line without end", b"3;" + b"a" * 5000),
    # Bad white space, which the grammar lets a recipient take: this one does not.
    line("space before an extension", b"3 ;a\r\n"),
    line("tab before an extension", b"3\t;a\r\n"),
    line("space in an extension", b"3; a\r\n"),
    line("space behind an extension", b"3;a \r\n"),
    line("space before an extension's equals sign", b"3;a =b\r\n"),
    line("space before an extension's value", b"3;a= b\r\n"),
    line("space behind an extension's value", b"3;a=b \r\n"),
    line("extension without name", b"3;\r\n"),
    line("extension without name, but a value", b"3;=b\r\n"),
    line("extension without value", b"3;a=\r\n"),
    line("extension without semicolon", b"3a=b\r\n"),
    line("two semicolons", b"3;;a\r\n"),
    line("semicolon at the end", b"3;a;\r\n"),
    line("two equals signs", b"3;a==b\r\n"),
    line("two values", b"3;a=b=c\r\n"),
    line("extension's name in quotes", b'3;"a"=b\r\n'),
    line("extension's name in brackets", b"3;(a)\r\n"),
    line("extension's name beyond ASCII", b"3;\xe4\r\n"),
    line("extension's value beyond ASCII", b"3;a=\xe4\r\n"),
    line("quotes left open", b'3;a="b\r\n'),
    line("quotes left open by a backslash", b'3;a="b\\"\r\n'),
    line("something behind the quotes", b'3;a="b"c\r\n'),
    line("two quoted values", b'3;a="b""c"\r\n'),
    line("line break in quotes", b'3;a="\r\nb"\r\n'),
    line("LF in quotes", b'3;a="\nb"\r\n'),
    line("CR in quotes", b'3;a="\rb"\r\n'),
    line("LF behind a backslash in quotes", b'3;a="\\\nb"\r\n'),
    line("NUL in quotes", b'3;a="\0"\r\n'),
    line("NUL behind a backslash", b'3;a="\\\0"\r\n'),
    line("DEL in quotes", b'3;a="\x7f"\r\n'),
    line("NUL in an extension", b"3;a\0\r\n"),
    line("tab in an extension", b"3;a\tb\r\n"),
)

LINE_ENDS = under(
    "RFC 9112, 2.2 and 7.1",
    line("LF behind a size", b"3\n"),
    line("LF LF behind a size", b"3\n\n"),
    line("LF CR behind a size", b"3\n\r"),
    line("CR behind a size", b"3\r"),
    line("CR CR LF behind a size", b"3\r\r\n"),
    line("CR behind an extension", b"3;a\r"),
    line("LF behind an extension", b"3;a\n"),
    line("CR in an extension", b"3;a\rb\r\n"),
    line("CR before an extension", b"3\r;a\r\n"),
    line("LF before an extension", b"3\n;a\r\n"),
    line("CR CR LF behind an extension", b"3;a\r\r\n"),
    bad("LF behind the last size", b"0\n\r\n"),
    bad("CR behind the last size", b"0\r\r\n"),
    bad("LF behind the last extension", b"0;a\n\r\n"),
)

DATA_ENDS = under(
    "RFC 9112, 7.1",
    bad("LF behind the data", b"3\r\nabc\n" + LAST),
    bad("CR behind the data", b"3\r\nabc\r" + LAST),
    bad("two other bytes behind the data", b"3\r\nabcXX" + LAST),
    bad("CR and another byte behind the data", b"3\r\nabc\rX" + LAST),
    bad("another byte and LF behind the data", b"3\r\nabcX\n" + LAST),
    bad("LF CR behind the data", b"3\r\nabc\n\r" + LAST),
    bad("CR CR LF behind the data", b"3\r\nabc\r\r\n" + LAST),
    bad("space before the CRLF behind the data", b"3\r\nabc \r\n" + LAST),
    bad("no CRLF behind the data", b"3\r\nabc" + LAST),
    bad("no CRLF between two chunks", b"3\r\nabc3\r\ndef\r\n" + LAST),
    bad("one byte of data more than the size", b"3\r\nabcd\r\n" + LAST),
    bad("two bytes of data more than the size", b"3\r\nabcde\r\n" + LAST),
    bad("one byte of data less than the size", b"4\r\nabc\r\n" + LAST),
    bad("two bytes of data less than the size", b"5\r\nabc\r\n" + LAST),
)

TRAILERS = under(
    "RFC 9112, 7.1.2; RFC 9110, 6.5",
    Case("a trailer", chunked(b"0\r\nA: b\r\n\r\n"), read()),
    Case("two trailers", chunked(b"3\r\nabc\r\n0\r\nA: b\r\nC:\r\n\r\n"), read(b"abc")),
    Case("obs-text in a trailer", chunked(b"0\r\nA: \xe4\r\n\r\n"), read()),
    Case(
        "trailers frame nothing", chunked(b"0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n"), read()
    ),
    Case(
        "trailers say nothing about host and connection",
        chunked(b"0\r\nHost: b\r\nConnection: close\r\n\r\n"),
        read(),
    ),
    Case("a trailer that was announced", chunked(b"0\r\nA: b\r\n\r\n", b"Trailer: A"), read()),
    bad("trailer without colon", b"0\r\nA\r\n\r\n"),
    bad("trailer without name", b"0\r\n: b\r\n\r\n"),
    bad("space before a trailer's colon", b"0\r\nA : b\r\n\r\n"),
    bad("space before a trailer", b"0\r\n A: b\r\n\r\n"),
    bad("folded trailer", b"0\r\nA: b\r\n c\r\n\r\n"),
    bad("LF behind a trailer", b"0\r\nA: b\n\r\n"),
    bad("CR behind a trailer", b"0\r\nA: b\r\r\n\r\n"),
    bad("LF in a trailer", b"0\r\nA: b\nC: d\r\n\r\n"),
    bad("CR in a trailer", b"0\r\nA: b\rC: d\r\n\r\n"),
    bad("NUL in a trailer", b"0\r\nA: \0\r\n\r\n"),
    bad("DEL in a trailer", b"0\r\nA: \x7f\r\n\r\n"),
    bad("name of a trailer beyond ASCII", b"0\r\n\xe4: b\r\n\r\n"),
    bad("a good trailer before a bad one", b"0\r\nA: b\r\nC\r\n\r\n"),
    bad("LF for the empty line", b"0\r\n\n"),
    bad("LF for the empty line behind a trailer", b"0\r\nA: b\r\n\n"),
    bad("CR for the empty line", b"0\r\n\rX"),
    bad("two other bytes for the empty line", b"0\r\nXX"),
    bad("no empty line: the next request line is no trailer", b"0\r\n"),
    Case("100 trailers", chunked(b"0\r\n" + b"x: y\r\n" * 100 + b"\r\n"), read()),
    Case("101 trailers", chunked(b"0\r\n" + b"x: y\r\n" * 101 + b"\r\n"), refused=431),
    Case("trailers of 32 KiB", chunked(b"0\r\nx: " + b"y" * 32761 + b"\r\n\r\n"), read()),
    Case("trailers of 32 KiB and one byte", chunked(b"0\r\nx: " + b"y" * 32762 + b"\r\n\r\n"), refused=431),
    Case("trailers without end", chunked(b"0\r\n" + (FILLER_FIELD + b"\r\n") * 40), refused=431),
)

CHUNKS = [*SIZES, *EXTENSIONS, *LINE_ENDS, *DATA_ENDS, *TRAILERS]
