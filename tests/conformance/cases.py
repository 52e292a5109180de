"""The whole table: every theme's cases, and those that stand between the themes."""

from __future__ import annotations

from tests.conformance.case import CANARY, CANARY_READ, LAST, LENGTH_3, Case, Read, chunked, head, read, under
from tests.conformance.chunks import CHUNKS
from tests.conformance.desync import DESYNC
from tests.conformance.fields import FIELD_LINES
from tests.conformance.host import HOSTS
from tests.conformance.length import LENGTHS_AND_CODINGS
from tests.conformance.published import PUBLISHED
from tests.conformance.request_line import REQUEST_LINES

PIPELINES = under(
    "RFC 9112, 6.3 and 9.3.2",
    Case(
        "three ways to end in one stream",
        head(LENGTH_3) + b"abc" + chunked(b"1\r\nd\r\n" + LAST) + head(line=b"GET /g HTTP/1.1"),
        (Read("POST", b"/t", b"abc"), Read("POST", b"/t", b"d"), Read("GET", b"/g", b"")),
    ),
    Case("twenty requests", (head(LENGTH_3) + b"abc") * 20, read(b"abc") * 20),
    Case("a good request before a bad one", head(LENGTH_3) + b"abc" + head(b"A : b"), read(b"abc"), 400),
    Case("chunks before a bad request", chunked(LAST) + head(b"A : b"), read(), 400),
    Case("content longer than its length", head(LENGTH_3) + b"abcd\r\n\r\n", read(b"abc"), 400),
    Case("something behind the trailer section", chunked(LAST + b"\0"), read(), 400),
    Case("a good request before an old version", head() + head(line=b"GET / HTTP/3.0"), read(), 505),
    Case(
        "a request behind one that closes", head(b"Connection: close") + head(b"A : b"), read(), closes=True
    ),
)

CASES = [
    *REQUEST_LINES,
    *FIELD_LINES,
    *HOSTS,
    *LENGTHS_AND_CODINGS,
    *CHUNKS,
    *PIPELINES,
    *PUBLISHED,
    *DESYNC,
]

CUT_SHORT = under(
    "RFC 9112, 8",
    Case("CR and the end", b"\r", refused=400),
    Case("half a request line", b"GET / HT", refused=400),
    Case("a request line", b"GET / HTTP/1.1\r\n", refused=400),
    Case("half a head", b"GET / HTTP/1.1\r\nHost: a\r\n", refused=400),
    Case("a head but for its last byte", b"GET / HTTP/1.1\r\nHost: a\r\n\r", refused=400),
    Case("an old version and no more of a head", b"GET / HTTP/3.0\r\n", refused=505),
    Case("no content where some was promised", head(LENGTH_3), refused=400),
    Case("half the content", head(LENGTH_3) + b"ab", refused=400),
    Case("no chunks", chunked(b""), refused=400),
    Case("no last chunk", chunked(b"3\r\nabc\r\n"), refused=400),
    Case("half a chunk", chunked(b"3\r\na"), refused=400),
    Case("half a chunk-size line", chunked(b"3"), refused=400),
    Case("a chunk-size line but for its LF", chunked(b"3\r"), refused=400),
    Case("a chunk-size line and no data", chunked(b"3\r\n"), refused=400),
    Case("no CRLF behind a chunk", chunked(b"3\r\nabc"), refused=400),
    Case("half a CRLF behind a chunk", chunked(b"3\r\nabc\r"), refused=400),
    Case("no end of trailers", chunked(b"0\r\n"), refused=400),
    Case("half an end of trailers", chunked(b"0\r\n\r"), refused=400),
    Case("half a trailer", chunked(b"0\r\nA: b\r\n"), refused=400),
    Case("nothing", b""),
    Case("an empty line and nothing", b"\r\n"),
    Case("a whole request", head(LENGTH_3) + b"abc", read(b"abc")),
    Case("whole chunks", chunked(b"3\r\nabc\r\n" + LAST), read(b"abc")),
    Case("a whole request and an empty line", head() + b"\r\n", read()),
    Case("a whole request and half of one", head() + b"G", read(), 400),
)
"""Streams that end here: without the canary behind them."""

IN_PIECES = [
    ("one request after the other", [CANARY] * 3, [CANARY_READ] * 3, None),
    ("two requests at once", [CANARY, CANARY + CANARY], [CANARY_READ] * 3, None),
    ("a request behind half a head", [CANARY, b"GET / HTTP/1.1\r\nHost: a\r\n", CANARY], [CANARY_READ], 400),
    ("an empty line before each", [CANARY, b"\r\n", CANARY, b"\r\n", CANARY], [CANARY_READ] * 3, None),
    (
        "a request that is content",
        [head(b"Content-Length: %d" % len(CANARY)), CANARY, CANARY],
        [*read(CANARY), CANARY_READ],
        None,
    ),
]
"""Streams that are cut between requests, or where it seems so: pieces, requests, refusal."""

AT_ONCE = under(
    "RFC 9112, 2.2; RFC 9110, 15.5.1",
    Case("lines that end with LF", b"GET / HTTP/1.1\nHost: a\n\n", refused=400),
    Case("a control character as the first byte", b"\0", refused=400),
    Case("a control character in half a line", b"GET /\0", refused=400),
    Case("CR and another byte in half a head", b"GET / HTTP/1.1\r\nA: b\rc", refused=400),
    Case("HTTP/0.9 and no more", b"GET /\r\n", refused=400),
    Case("an old version and no fields yet", b"GET / HTTP/3.0\r\n", refused=505),
    Case("a request line beyond the limit", b"GET /" + b"a" * 32763, refused=431),
    Case("a request line at the limit without its end", b"GET /" + b"a" * 32762),
    Case(
        "fields beyond the limit behind a request",
        head() + b"POST /t HTTP/1.1\r\n" + b"a: b\r\n" * 6000,
        read(),
        431,
    ),
    Case("a chunk-size line beyond the limit", chunked(b"3;" + b"a" * 254), refused=400),
    Case("a chunk-size line at the limit without its end", chunked(b"3;" + b"a" * 253)),
    Case("a bad byte behind a chunk's data", chunked(b"3\r\nabcX"), refused=400),
    Case("LF in half a trailer", chunked(b"0\r\nA: b\n"), refused=400),
    Case("a control character in half a trailer", chunked(b"0\r\nA: \0"), refused=400),
    Case("trailers beyond the limit", chunked(b"0\r\nA: " + b"b" * 32765), refused=431),
    Case("trailers at the limit without their end", chunked(b"0\r\nA: " + b"b" * 32764)),
    Case("half a head, to be gone on with", b"GET / HTTP/1.1\r\nHost: a\r\n"),
    Case("half a chunk, to be gone on with", chunked(b"3\r\nab")),
    # Were a size cut off at 32 bits, the canary would show.
    Case("Jetty CVE-2017-7657: a size beyond 32 bits", chunked(b"100000003\r\nabc\r\n" + LAST + CANARY)),
    Case("the largest size", chunked(b"f" * 16 + b"\r\nabc\r\n" + LAST + CANARY)),
    Case("a length beyond 32 bits", head(b"Content-Length: 4294967299") + b"abc" + CANARY),
    Case("the largest length", head(b"Content-Length: " + b"9" * 18) + b"abc" + CANARY),
)
"""Streams that are refused without waiting for more, or that are not yet refused: nothing is behind them."""
