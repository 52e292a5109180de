"""Raw HTTP/1 streams and what a strict reader makes of them, written by hand from RFC 9110 and RFC 9112.

Each case stands in front of `CANARY`, so that a frame read wrong shows as a missing, changed or
additional request.  The table knows no parser: it also serves for comparing other servers.
"""

from __future__ import annotations

from typing import NamedTuple

CANARY = b"GET /canary HTTP/1.1\r\nHost: canary\r\n\r\n"


class Read(NamedTuple):
    """One request that was read to its end."""

    method: str
    target: bytes
    content: bytes


CANARY_READ = Read("GET", b"/canary", b"")


class Case(NamedTuple):
    """`raw` is read as `requests`, and then refused with the status `refused`, or followed by the canary."""

    name: str
    raw: bytes
    requests: tuple[Read, ...] = ()
    refused: int | None = None


def head(*fields: bytes, line: bytes = b"POST /t HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def chunked(content: bytes) -> bytes:
    return head(b"Transfer-Encoding: chunked") + content


def read(content: bytes = b"", method: str = "POST", target: bytes = b"/t") -> tuple[Read, ...]:
    return (Read(method, target, content),)


LENGTH_3 = b"Content-Length: 3"
FILLER_FIELD = b"x: " + b"y" * 1000

REQUEST_LINES = [
    Case("origin form", head(line=b"GET /a?b=c HTTP/1.1"), read(b"", "GET", b"/a?b=c")),
    Case("absolute form", head(line=b"GET http://a/b HTTP/1.1"), read(b"", "GET", b"http://a/b")),
    Case("asterisk form", head(line=b"OPTIONS * HTTP/1.1"), read(b"", "OPTIONS", b"*")),
    Case("authority form", head(line=b"CONNECT a:1 HTTP/1.1"), read(b"", "CONNECT", b"a:1")),
    Case("method that nobody knows", head(line=b"M-SEARCH / HTTP/1.1"), read(b"", "M-SEARCH", b"/")),
    Case("method in lower case is another method", head(line=b"get / HTTP/1.1"), read(b"", "get", b"/")),
    Case("empty line before the request line", b"\r\n" + head(), read()),
    Case("two empty lines before the request line", b"\r\n\r\n" + head(), refused=400),
    Case("LF before the request line", b"\n" + head(), refused=400),
    Case("CR before the request line", b"\r" + head(), refused=400),
    Case("space before the request line", b" " + head(), refused=400),
    Case("two spaces behind the method", head(line=b"GET  / HTTP/1.1"), refused=400),
    Case("two spaces behind the target", head(line=b"GET /  HTTP/1.1"), refused=400),
    Case("tab in place of a space", head(line=b"GET\t/ HTTP/1.1"), refused=400),
    Case("space in the target", head(line=b"GET /a b HTTP/1.1"), refused=400),
    Case("space behind the version", head(line=b"GET / HTTP/1.1 "), refused=400),
    Case("no target", head(line=b"GET HTTP/1.1"), refused=400),
    Case("no method", head(line=b"/ HTTP/1.1"), refused=400),
    Case("method that is no token", head(line=b"G(T / HTTP/1.1"), refused=400),
    Case("method longer than any", head(line=b"G" * 33 + b" / HTTP/1.1"), refused=400),
    Case("target beyond ASCII", head(line=b"GET /\xc3\xa4 HTTP/1.1"), refused=400),
    Case("HTTP/0.9", b"GET /\r\n", refused=400),
    Case("HTTP/0.9 with fields", head(line=b"GET /"), refused=400),
    Case("HTTP/0.9 by number", head(line=b"GET / HTTP/0.9"), refused=505),
    Case("HTTP/1.2", head(line=b"GET / HTTP/1.2"), refused=505),
    Case("HTTP/2.0", head(line=b"GET / HTTP/2.0"), refused=505),
    Case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused=505),
    Case("HTTP/2", head(line=b"GET / HTTP/2"), refused=400),
    Case("HTTP/1.10", head(line=b"GET / HTTP/1.10"), refused=400),
    Case("HTTP/01.1", head(line=b"GET / HTTP/01.1"), refused=400),
    Case("HTTP/1,1", head(line=b"GET / HTTP/1,1"), refused=400),
    Case("HTTP/-1.1", head(line=b"GET / HTTP/-1.1"), refused=400),
    Case("http/1.1 in lower case", head(line=b"GET / http/1.1"), refused=400),
    Case("another protocol", head(line=b"GET / ICY/1.1"), refused=400),
    Case("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", refused=400),
]

FIELD_LINES = [
    Case("empty value", head(b"A:"), read()),
    Case("value of white space", head(b"A: \t "), read()),
    Case("no space behind the colon", head(b"A:b"), read()),
    Case("obs-text in a value", head(b"A: \xe4\xff\x80"), read()),
    Case("every character of a token", head(b"!#$%&'*+-.^_`|~09azAZ: b"), read()),
    Case("colons in a value", head(b"A: b:c: d"), read()),
    Case("space before the colon", head(b"A : b"), refused=400),
    Case("tab before the colon", head(b"A\t: b"), refused=400),
    Case("space before Content-Length's colon", head(b"Content-Length : 3") + b"abc", refused=400),
    Case("space before Transfer-Encoding's colon", head(b"Transfer-Encoding : chunked"), refused=400),
    Case("space in a name", head(b"A B: c"), refused=400),
    Case("space before a name", head(b" A: b"), refused=400),
    Case("first field line begins with a space", head(b"A: b", host=b" Host: a\r\n"), refused=400),
    Case("folded with a space", head(b"A: b", b" c"), refused=400),
    Case("folded with a tab", head(b"A: b", b"\tc"), refused=400),
    Case("folded Transfer-Encoding", head(b"Transfer-Encoding:", b" chunked"), refused=400),
    Case("empty name", head(b": b"), refused=400),
    Case("no colon", head(b"A"), refused=400),
    Case("name in brackets", head(b"(A): b"), refused=400),
    Case("name in quotes", head(b'"A": b'), refused=400),
    Case("name beyond ASCII", head(b"\xc3\xa4: b"), refused=400),
    Case("NUL in a name", head(b"A\0: b"), refused=400),
    Case("NUL in a value", head(b"A: b\0c"), refused=400),
    Case("DEL in a value", head(b"A: b\x7f"), refused=400),
    Case("vertical tab in front of chunked", head(b"Transfer-Encoding: \x0bchunked"), refused=400),
    Case("form feed behind a length", head(b"Content-Length: 3\x0c") + b"abc", refused=400),
    Case("CR in a value", head(b"A: b\rc"), refused=400),
    Case("CR in place of CRLF hides a field", head(b"A: b\rContent-Length: 3") + b"abc", refused=400),
    Case("LF in place of CRLF", b"GET / HTTP/1.1\nHost: a\n\n", refused=400),
    Case("LF ends one field line", b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n", refused=400),
    Case("LF ends the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", refused=400),
    Case("LF is the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", refused=400),
    Case("LF CR in place of CRLF", b"GET / HTTP/1.1\n\rHost: a\n\r\n\r", refused=400),
    Case("CR alone is the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\r", refused=400),
    Case("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", refused=400),
]

LIMITS = [
    Case("100 fields", head(*[b"x: y"] * 99), read()),
    Case("101 fields", head(*[b"x: y"] * 100), refused=431),
    Case("a head of 32 KiB", head(b"x: " + b"y" * (32768 - len(head(b"x: ")))), read()),
    Case("a head of 32 KiB and one byte", head(b"x: " + b"y" * (32769 - len(head(b"x: ")))), refused=431),
    Case("a request line without end", b"GET /" + b"a" * 40000, refused=431),
    Case("fields without end", head(*[FILLER_FIELD] * 40), refused=431),
    Case(
        "an old version, then fields without end",
        head(*[FILLER_FIELD] * 40, line=b"GET / HTTP/3.0"),
        refused=505,
    ),
    Case("LF behind 20 KiB, without end", b"GET /" + b"a" * 20000 + b"\n" + b"a" * 20000, refused=400),
]

HOSTS = [
    Case("host of letters", head(host=b"Host: example.com\r\n"), read()),
    Case("host and port", head(host=b"hOST: example.com:8080\r\n"), read()),
    Case("host and empty port", head(host=b"Host: example.com:\r\n"), read()),
    Case("IPv4", head(host=b"Host: 127.0.0.1:80\r\n"), read()),
    Case("IPv6", head(host=b"Host: [::1]:80\r\n"), read()),
    Case("host with underscore", head(host=b"Host: my_service\r\n"), read()),
    Case("host percent-encoded", head(host=b"Host: a%20b\r\n"), read()),
    Case("no Host on 1.1", head(host=b""), refused=400),
    Case("no Host on 1.0", head(host=b"", line=b"GET / HTTP/1.0"), read(b"", "GET", b"/")),
    Case("empty Host", head(host=b"Host:\r\n"), refused=400),
    Case("two Hosts", head(b"Host: b"), refused=400),
    Case("the same Host twice", head(b"Host: a"), refused=400),
    Case("two Hosts in two cases", head(b"hOsT: b"), refused=400),
    Case("two Hosts on 1.0", head(b"Host: b", line=b"GET / HTTP/1.0"), refused=400),
    Case("bad Host on 1.0", head(host=b"Host: a b\r\n", line=b"GET / HTTP/1.0"), refused=400),
    Case("two hosts in one", head(host=b"Host: a, b\r\n"), refused=400),
    Case("user information", head(host=b"Host: u@a\r\n"), refused=400),
    Case("a path", head(host=b"Host: a/b\r\n"), refused=400),
    Case("a URI", head(host=b"Host: http://a\r\n"), refused=400),
    Case("two ports", head(host=b"Host: a:1:2\r\n"), refused=400),
    Case("port of letters", head(host=b"Host: a:b\r\n"), refused=400),
    Case("port alone", head(host=b"Host: :80\r\n"), refused=400),
    Case("bad percent-encoding", head(host=b"Host: a%2\r\n"), refused=400),
    Case("IPv6 without brackets", head(host=b"Host: ::1\r\n"), refused=400),
    Case("IPv6 that is none", head(host=b"Host: [:::::1]\r\n"), refused=400),
    Case("IPv6 left open", head(host=b"Host: [::1\r\n"), refused=400),
    Case("IPv6 with something behind", head(host=b"Host: [::1]a\r\n"), refused=400),
    Case("host beyond ASCII", head(host=b"Host: \xe4\r\n"), refused=400),
]

LENGTHS = [
    Case("content by length", head(LENGTH_3) + b"abc", read(b"abc")),
    Case(
        "content that looks like a request", head(b"Content-Length: %d" % len(CANARY)) + CANARY, read(CANARY)
    ),
    Case("content of a GET", head(LENGTH_3, line=b"GET / HTTP/1.1") + b"abc", read(b"abc", "GET", b"/")),
    Case("length of nought", head(b"Content-Length: 0"), read()),
    Case("leading noughts", head(b"Content-Length: 0003") + b"abc", read(b"abc")),
    Case("white space around the length", head(b"Content-Length: \t3\t ") + b"abc", read(b"abc")),
    Case("neither length nor coding is no content", head(), read()),
    Case("CRLF behind the content, as old clients send it", head(LENGTH_3) + b"abc\r\n", read(b"abc")),
    Case("empty length", head(b"Content-Length:"), refused=400),
    Case("plus", head(b"Content-Length: +3") + b"abc", refused=400),
    Case("minus", head(b"Content-Length: -3") + b"abc", refused=400),
    Case("hexadecimal length", head(b"Content-Length: 0x3") + b"abc", refused=400),
    Case("underscore (CVE-2023-47627)", head(b"Content-Length: 1_0") + b"abcdefghij", refused=400),
    Case("fraction", head(b"Content-Length: 3.0") + b"abc", refused=400),
    Case("length in letters", head(b"Content-Length: three") + b"abc", refused=400),
    Case("digits beyond ASCII", head(b"Content-Length: \xb3") + b"abc", refused=400),
    Case("two words", head(b"Content-Length: 3 3") + b"abc", refused=400),
    Case("equal lengths in one", head(b"Content-Length: 3, 3") + b"abc", refused=400),
    Case("different lengths in one", head(b"Content-Length: 3, 4") + b"abc", refused=400),
    Case("equal lengths", head(LENGTH_3, LENGTH_3) + b"abc", refused=400),
    Case("different lengths", head(LENGTH_3, b"content-length: 0") + b"abc", refused=400),
    Case("a length and an empty one", head(LENGTH_3, b"Content-Length:") + b"abc", refused=400),
    Case("length of 19 digits", head(b"Content-Length: 9223372036854775808"), refused=400),
    Case("length of 5000 digits", head(b"Content-Length: " + b"9" * 5000), refused=400),
]

CODINGS = [
    Case("chunked", chunked(b"3\r\nabc\r\n0\r\n\r\n"), read(b"abc")),
    Case("chunked in capitals", head(b"TRANSFER-ENCODING: CHUNKED") + b"0\r\n\r\n", read()),
    Case("white space around chunked", head(b"Transfer-Encoding: \t chunked ") + b"0\r\n\r\n", read()),
    Case("chunked and a length", head(b"Transfer-Encoding: chunked", LENGTH_3) + b"0\r\n\r\n", refused=400),
    Case("a length and chunked", head(LENGTH_3, b"Transfer-Encoding: chunked") + b"abc", refused=400),
    Case("an unknown coding and a length", head(LENGTH_3, b"Transfer-Encoding: x") + b"abc", refused=400),
    Case("chunked, chunked", head(b"Transfer-Encoding: chunked, chunked"), refused=400),
    Case("chunked twice", head(*[b"Transfer-Encoding: chunked"] * 2), refused=400),
    Case("empty coding", head(b"Transfer-Encoding:"), refused=400),
    Case(
        "chunked and an empty line", head(b"Transfer-Encoding: chunked", b"Transfer-Encoding:"), refused=400
    ),
    Case("chunked and a comma", head(b"Transfer-Encoding: chunked,"), refused=400),
    Case("gzip, chunked", head(b"Transfer-Encoding: gzip, chunked"), refused=501),
    Case("chunked, gzip (CVE-2024-1135)", head(b"Transfer-Encoding: chunked, gzip"), refused=501),
    Case("chunked, identity", head(b"Transfer-Encoding: chunked, identity"), refused=501),
    Case("chunked, then another", head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"), refused=501),
    Case("another, then chunked", head(b"Transfer-Encoding: x", b"Transfer-Encoding: chunked"), refused=501),
    Case("gzip", head(b"Transfer-Encoding: gzip"), refused=501),
    Case("identity", head(b"Transfer-Encoding: identity"), refused=501),
    Case("xchunked", head(b"Transfer-Encoding: xchunked"), refused=501),
    Case("chunked in quotes", head(b'Transfer-Encoding: "chunked"'), refused=501),
    Case("chunked with a parameter", head(b"Transfer-Encoding: chunked;a=b"), refused=501),
    Case("Kelvin sign for k", head(b"Transfer-Encoding: chun\xe2\x84\xaaed"), refused=501),
    Case("a name that is not Transfer-Encoding", head(b"Transfer_Encoding: gzip"), read()),
    Case(
        "Content-Encoding frames nothing", head(b"Content-Encoding: chunked", LENGTH_3) + b"abc", read(b"abc")
    ),
]

OLD = b"POST /t HTTP/1.0"
HTTP_1_0 = [
    Case("1.0 with a length", head(LENGTH_3, b"Connection: keep-alive", line=OLD) + b"abc", read(b"abc")),
    Case("1.0 POST without length", head(line=OLD), refused=411),
    Case("1.0 PUT without length", head(line=b"PUT / HTTP/1.0"), refused=411),
    Case("1.0 PATCH without length", head(line=b"PATCH / HTTP/1.0"), refused=411),
    Case("1.0 chunked", head(b"Transfer-Encoding: chunked", line=OLD) + b"0\r\n\r\n", refused=400),
    Case("1.0 with another coding", head(b"Transfer-Encoding: gzip", line=OLD), refused=400),
    Case(
        "1.0 chunked and a length",
        head(b"Transfer-Encoding: chunked", LENGTH_3, line=OLD) + b"abc",
        refused=400,
    ),
    Case("1.0 ignores expectations", head(b"Expect: x", b"Content-Length: 0", line=OLD), read()),
]

EXPECTATIONS = [
    Case("100-continue", head(b"Expect: 100-continue", LENGTH_3) + b"abc", read(b"abc")),
    Case("100-Continue in capitals", head(b"Expect: 100-CONTINUE", LENGTH_3) + b"abc", read(b"abc")),
    Case("100-continue without content", head(b"Expect: 100-continue"), read()),
    Case("another expectation", head(b"Expect: 200-ok", LENGTH_3) + b"abc", refused=417),
    Case("one expectation more", head(b"Expect: 100-continue, x", LENGTH_3) + b"abc", refused=417),
    Case(
        "one expectation line more",
        head(b"Expect: 100-continue", b"Expect: x", LENGTH_3) + b"abc",
        refused=417,
    ),
    Case("empty expectation", head(b"Expect:", LENGTH_3) + b"abc", refused=417),
]

UPGRADES = [
    Case(
        "h2c is ignored",
        head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
        read(),
    ),
    Case(
        "websocket is ignored",
        head(b"Connection: Upgrade", b"Upgrade: websocket", LENGTH_3) + b"abc",
        read(b"abc"),
    ),
]

CHUNKS = [
    Case("no content", chunked(b"0\r\n\r\n"), read()),
    Case("two chunks", chunked(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), read(b"abcde")),
    Case("noughts for the last chunk", chunked(b"3\r\nabc\r\n000\r\n\r\n"), read(b"abc")),
    Case("leading noughts in a size", chunked(b"0003\r\nabc\r\n0\r\n\r\n"), read(b"abc")),
    Case(
        "digits in both cases",
        chunked(b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n"),
        read(b"01234567890123456789a"),
    ),
    Case("CRLF as data", chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), read(b"\r\n\r\n")),
    Case("last chunk as data", chunked(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"), read(b"0\r\n\r\n")),
    Case("extension", chunked(b"3;a\r\nabc\r\n0;b\r\n\r\n"), read(b"abc")),
    Case("extension with a value", chunked(b"3;a=b;c=d\r\nabc\r\n0\r\n\r\n"), read(b"abc")),
    Case("extension in quotes", chunked(b'3;a="b;\\"c\\\\ "\r\nabc\r\n0\r\n\r\n'), read(b"abc")),
    Case("a line of 256 bytes", chunked(b"3;" + b"a" * 252 + b"\r\nabc\r\n0\r\n\r\n"), read(b"abc")),
    Case("a line of 257 bytes", chunked(b"3;" + b"a" * 253 + b"\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("a line without end", chunked(b"3;" + b"a" * 5000), refused=400),
    Case("size of 16 digits", chunked(b"0000000000000003\r\nabc\r\n0\r\n\r\n"), read(b"abc")),
    Case("size of 17 digits", chunked(b"00000000000000003\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("size that wraps around at 64 bits", chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("empty size", chunked(b"\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("empty size with an extension", chunked(b";a\r\n\r\n"), refused=400),
    Case("0x before a size", chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("plus before a size", chunked(b"+3\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("minus before a size", chunked(b"-3\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("minus nought", chunked(b"-0\r\n\r\n"), refused=400),
    Case(
        "underscore in a size (CVE-2023-47627)", chunked(b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"), refused=400
    ),
    Case("letter in a size", chunked(b"3g\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("space before a size", chunked(b" 3\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("space behind a size", chunked(b"3 \r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("tab behind a size", chunked(b"3\t\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("space before an extension", chunked(b"3 ;a\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("space in an extension", chunked(b"3; a\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("space around an extension's value", chunked(b"3;a = b\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("extension without name", chunked(b"3;\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("extension without value", chunked(b"3;a=\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("extension without semicolon", chunked(b"3a=b\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("quotes left open", chunked(b'3;a="b\r\nabc\r\n0\r\n\r\n'), refused=400),
    Case("line break in quotes", chunked(b'3;a="\r\nb"\r\nabc\r\n0\r\n\r\n'), refused=400),
    Case("NUL in an extension", chunked(b"3;a\0\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("LF behind a size (CVE-2025-22871)", chunked(b"3\nabc\r\n0\r\n\r\n"), refused=400),
    Case("LF in an extension (CVE-2025-55315)", chunked(b"3;\nxx\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("LF behind an extension (CVE-2025-58056)", chunked(b"3;a\nabc\r\n0\r\n\r\n"), refused=400),
    Case("CR in an extension (CVE-2025-55315)", chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("CR behind a size", chunked(b"3\rabc\r\n0\r\n\r\n"), refused=400),
    Case("CR CR LF behind a size", chunked(b"3\r\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("LF behind the data", chunked(b"3\r\nabc\n0\r\n\r\n"), refused=400),
    Case("two other bytes behind the data (CVE-2025-43859)", chunked(b"3\r\nabcXX0\r\n\r\n"), refused=400),
    Case("CR and another byte behind the data", chunked(b"3\r\nabc\rX0\r\n\r\n"), refused=400),
    Case("LF CR behind the data", chunked(b"3\r\nabc\n\r0\r\n\r\n"), refused=400),
    Case("no CRLF behind the data", chunked(b"3\r\nabc0\r\n\r\n"), refused=400),
    Case("more data than the size", chunked(b"3\r\nabcd\r\n0\r\n\r\n"), refused=400),
    Case("less data than the size", chunked(b"4\r\nabc\r\n0\r\n\r\n"), refused=400),
    Case("a request behind a smuggled chunk", chunked(b"2d;\n" + b"x" * 43 + b"\r\n0\r\n\r\n"), refused=400),
    Case("LF behind the last chunk", chunked(b"0\n\r\n"), refused=400),
]

TRAILERS = [
    Case("a trailer", chunked(b"0\r\nA: b\r\n\r\n"), read()),
    Case("two trailers", chunked(b"3\r\nabc\r\n0\r\nA: b\r\nC:\r\n\r\n"), read(b"abc")),
    Case(
        "trailers frame nothing", chunked(b"0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n"), read()
    ),
    Case("trailer without colon", chunked(b"0\r\nA\r\n\r\n"), refused=400),
    Case("space before a trailer's colon", chunked(b"0\r\nA : b\r\n\r\n"), refused=400),
    Case("folded trailer", chunked(b"0\r\nA: b\r\n c\r\n\r\n"), refused=400),
    Case("LF behind a trailer", chunked(b"0\r\nA: b\n\r\n"), refused=400),
    Case("NUL in a trailer", chunked(b"0\r\nA: \0\r\n\r\n"), refused=400),
    Case("LF for the empty line", chunked(b"0\r\n\n"), refused=400),
    Case("CR for the empty line", chunked(b"0\r\n\rX"), refused=400),
    Case("no empty line: the next request line is no trailer", chunked(b"0\r\n"), refused=400),
    Case("100 trailers", chunked(b"0\r\n" + b"x: y\r\n" * 100 + b"\r\n"), read()),
    Case("101 trailers", chunked(b"0\r\n" + b"x: y\r\n" * 101 + b"\r\n"), refused=431),
    Case("trailers without end", chunked(b"0\r\n" + (FILLER_FIELD + b"\r\n") * 40), refused=431),
]

PIPELINES = [
    Case(
        "three ways to end in one stream",
        head(LENGTH_3) + b"abc" + chunked(b"1\r\nd\r\n0\r\n\r\n") + head(line=b"GET /g HTTP/1.1"),
        (Read("POST", b"/t", b"abc"), Read("POST", b"/t", b"d"), Read("GET", b"/g", b"")),
    ),
    Case("a good request before a bad one", head(LENGTH_3) + b"abc" + head(b"A : b"), read(b"abc"), 400),
    Case("content longer than its length", head(LENGTH_3) + b"abcd\r\n\r\n", read(b"abc"), 400),
    Case(
        "CL.TE: the second reading is never taken",
        head(b"Content-Length: 6", b"Transfer-Encoding: chunked") + b"0\r\n\r\nG",
        refused=400,
    ),
]

CASES = [
    *REQUEST_LINES,
    *FIELD_LINES,
    *LIMITS,
    *HOSTS,
    *LENGTHS,
    *CODINGS,
    *HTTP_1_0,
    *EXPECTATIONS,
    *UPGRADES,
    *CHUNKS,
    *TRAILERS,
    *PIPELINES,
]

CUT_SHORT = [
    Case("CR alone", b"\r", refused=400),
    Case("half a request line", b"GET / HT", refused=400),
    Case("half a head", b"GET / HTTP/1.1\r\nHost: a\r\n", refused=400),
    Case("no content where some was promised", head(LENGTH_3), refused=400),
    Case("half the content", head(LENGTH_3) + b"ab", refused=400),
    Case("no last chunk", chunked(b"3\r\nabc\r\n"), refused=400),
    Case("half a chunk", chunked(b"3\r\na"), refused=400),
    Case("half a chunk-size line", chunked(b"3"), refused=400),
    Case("no CRLF behind a chunk", chunked(b"3\r\nabc"), refused=400),
    Case("no end of trailers", chunked(b"0\r\n"), refused=400),
    Case("half a trailer", chunked(b"0\r\nA: b\r\n"), refused=400),
    Case("nothing", b""),
    Case("a whole request", head(LENGTH_3) + b"abc", read(b"abc")),
    Case("a whole request and an empty line", head() + b"\r\n", read()),
    Case("a whole request and half of one", head() + b"G", read(), 400),
]
"""Streams that end here: without the canary behind them."""
