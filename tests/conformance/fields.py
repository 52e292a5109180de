"""Field lines: names, values, how they and the head end, and how many there may be."""

from __future__ import annotations

from tests.conformance.case import LENGTH_3, Case, head, read, under

FILLER_FIELD = b"x: " + b"y" * 1000

NAMES = under(
    "RFC 9110, 5.1 and 5.6.2",
    Case("every character of a token", head(b"!#$%&'*+-.^_`|~09azAZ: b"), read()),
    Case("name of one character", head(b"A:b"), read()),
    Case("name of 30,000 characters", head(b"a" * 30000 + b": b"), read()),
    Case("a name that only resembles Transfer-Encoding", head(b"Transfer_Encoding: chunked"), read()),
    Case("a name that only resembles Content-Length", head(b"Content_Length: 3"), read()),
    Case("a name that begins like Content-Length", head(b"Content-Length-: 3"), read()),
    Case("a name that ends like Content-Length", head(b"X-Content-Length: 3"), read()),
    Case("a name that ends like Transfer-Encoding", head(b"X-Transfer-Encoding: chunked"), read()),
    Case("a name that begins like Transfer-Encoding", head(b"Transfer-Encodings: chunked"), read()),
    Case("a name that ends like Host", head(b"X-Host: b"), read()),
    Case("a name that ends like Expect", head(b"X-Expect: b"), read()),
    Case("a field in the value of another", head(b"A: Content-Length: 3"), read()),
    Case("space in a name", head(b"A B: c"), refused=400),
    Case("name in brackets", head(b"(A): b"), refused=400),
    Case("name in quotes", head(b'"A": b'), refused=400),
    Case("slash in a name", head(b"A/B: c"), refused=400),
    Case("name beyond ASCII", head(b"\xc3\xa4: b"), refused=400),
    Case("NUL in a name", head(b"A\0: b"), refused=400),
    Case("NUL before a name", head(b"\0A: b"), refused=400),
    Case("DEL in a name", head(b"A\x7f: b"), refused=400),
    Case("CR in a name", head(b"A\rB: c"), refused=400),
    Case("LF in a name", head(b"A\nB: c"), refused=400),
    Case("empty name", head(b": b"), refused=400),
    Case("colon alone", head(b":"), refused=400),
    Case("two colons before the name", head(b"::A: b"), refused=400),
)

COLONS = under(
    "RFC 9112, 5.1",
    Case("no space behind the colon", head(b"A:b"), read()),
    Case("tab behind the colon", head(b"A:\tb"), read()),
    Case("two colons", head(b"A::b"), read()),
    Case("space before the colon", head(b"A : b"), refused=400),
    Case("tab before the colon", head(b"A\t: b"), refused=400),
    Case("vertical tab before the colon", head(b"A\x0b: b"), refused=400),
    Case("space before Content-Length's colon", head(b"Content-Length : 3") + b"abc", refused=400),
    Case("tab before Content-Length's colon", head(b"Content-Length\t: 3") + b"abc", refused=400),
    Case("space before Transfer-Encoding's colon", head(b"Transfer-Encoding : chunked"), refused=400),
    Case("space before Host's colon", head(host=b"Host : a\r\n"), refused=400),
    Case("no colon", head(b"A"), refused=400),
    Case("no colon, but a value", head(b"A b"), refused=400),
    Case("equals sign for the colon", head(b"A= b"), refused=400),
    Case("no colon in the last line", head(b"A: b", b"Content-Length 3"), refused=400),
)

VALUES = under(
    "RFC 9110, 5.5",
    Case("empty value", head(b"A:"), read()),
    Case("value of white space", head(b"A: \t "), read()),
    Case("white space in a value", head(b"A: b \t c"), read()),
    Case("obs-text in a value", head(b"A: \xe4\xff\x80"), read()),
    Case("colons in a value", head(b"A: b:c: d"), read()),
    Case("quotes left open in a value", head(b'A: "b'), read()),
    Case("value of 30,000 characters", head(b"A: " + b"b" * 30000), read()),
    Case("NUL in a value", head(b"A: b\0c"), refused=400),
    Case("NUL ends a value", head(b"A: b\0"), refused=400),
    Case("DEL in a value", head(b"A: b\x7f"), refused=400),
    Case("ESC in a value", head(b"A: \x1b[31m"), refused=400),
    Case("vertical tab in a value", head(b"A: b\x0bc"), refused=400),
    Case("form feed in a value", head(b"A: b\x0cc"), refused=400),
    Case("vertical tab in front of chunked", head(b"Transfer-Encoding: \x0bchunked"), refused=400),
    Case("form feed behind a length", head(b"Content-Length: 3\x0c") + b"abc", refused=400),
    Case("CR in a value", head(b"A: b\rc"), refused=400),
    Case("CR ends a value", head(b"A: b\r"), refused=400),
    Case("CR in place of CRLF hides a field", head(b"A: b\rContent-Length: 3") + b"abc", refused=400),
    Case("LF in a value hides a field", head(b"A: b\nContent-Length: 3") + b"abc", refused=400),
)

FOLDS = under(
    "RFC 9112, 5.2",
    Case("folded with a space", head(b"A: b", b" c"), refused=400),
    Case("folded with a tab", head(b"A: b", b"\tc"), refused=400),
    Case("folded, and then empty", head(b"A: b", b" "), refused=400),
    Case("folded behind an empty value", head(b"A:", b" b"), refused=400),
    Case("folded twice", head(b"A: b", b" c", b" d"), refused=400),
    Case("folded Host", head(host=b"Host:\r\n a\r\n"), refused=400),
    Case("folded Content-Length", head(b"Content-Length:", b" 3") + b"abc", refused=400),
    Case("folded Transfer-Encoding", head(b"Transfer-Encoding:", b" chunked"), refused=400),
    Case("a length folded away", head(b"A: b", b" Content-Length: 3") + b"abc", refused=400),
    Case("space before a name", head(b" A: b"), refused=400),
    Case("first field line begins with a space", head(b"A: b", host=b" Host: a\r\n"), refused=400),
)

LINE_ENDS = under(
    "RFC 9112, 2.2",
    Case("LF ends one field line", b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n", refused=400),
    Case("LF ends the last field line", b"GET / HTTP/1.1\r\nHost: a\n\r\n", refused=400),
    Case("LF is the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", refused=400),
    Case("LF LF ends the head", b"GET / HTTP/1.1\r\nHost: a\n\n", refused=400),
    Case("CR ends one field line", b"GET / HTTP/1.1\r\nHost: a\rA: b\r\n\r\n", refused=400),
    Case("CR alone is the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\r", refused=400),
    Case("CR CR ends the head", b"GET / HTTP/1.1\r\nHost: a\r\r", refused=400),
    Case("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", refused=400),
    Case("CR CR LF is the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", refused=400),
    Case("LF CR ends one field line", b"GET / HTTP/1.1\r\nHost: a\n\rA: b\r\n\r\n", refused=400),
    Case("LF CR LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n\r\n", refused=400),
    Case("next line in Unicode", b"GET / HTTP/1.1\r\nHost: a\x85A: b\r\n\r\n", refused=400),
    Case("NUL before the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\0\r\n", refused=400),
    Case("space before the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n \r\n", refused=400),
    Case("no fields at all", b"GET / HTTP/1.1\r\n\r\n", refused=400),
)

LIMITS = under(
    "RFC 9110, 5.4; RFC 6585, 5",
    Case("100 fields", head(*[b"x: y"] * 99), read()),
    Case("101 fields", head(*[b"x: y"] * 100), refused=431),
    Case("a head of 32 KiB", head(b"x: " + b"y" * (32768 - len(head(b"x: ")))), read()),
    Case("a head of 32 KiB and one byte", head(b"x: " + b"y" * (32769 - len(head(b"x: ")))), refused=431),
    Case(
        "a head of 32 KiB behind an empty line",
        b"\r\n" + head(b"x: " + b"y" * (32768 - len(head(b"x: ")))),
        read(),
    ),
    Case(
        "a head of 32 KiB behind content",
        head(LENGTH_3) + b"abc" + head(b"x: " + b"y" * (32768 - len(head(b"x: ")))),
        (*read(b"abc"), *read()),
    ),
    Case("a request line without end", b"GET /" + b"a" * 40000, refused=431),
    Case("a name without end", b"GET / HTTP/1.1\r\n" + b"a" * 40000, refused=431),
    Case("fields without end", head(*[FILLER_FIELD] * 40), refused=431),
    Case(
        "an old version, then fields without end",
        head(*[FILLER_FIELD] * 40, line=b"GET / HTTP/3.0"),
        refused=505,
    ),
    Case("LF behind 20 KiB, without end", b"GET /" + b"a" * 20000 + b"\n" + b"a" * 20000, refused=400),
)

FIELD_LINES = [*NAMES, *COLONS, *VALUES, *FOLDS, *LINE_ENDS, *LIMITS]
