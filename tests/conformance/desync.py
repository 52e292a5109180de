"""The desync lists: tricks by which two readers of one stream come to differ, as attackers collect them.

CL.TE, TE.CL, TE.TE, CL.0, 0.CL and Expect are from PortSwigger's research of 2019, 2022 and 2025.  In the
names of the chunked ones (2025), TERM is a terminator that only one reader takes, EXT what the other
takes for an extension, SPILL bytes beyond a chunk's data.
"""

from __future__ import annotations

from tests.conformance.case import (
    HIDDEN,
    LAST,
    LENGTH_3,
    Case,
    both,
    chunked,
    head,
    length,
    read,
    refused,
    under,
)

CHUNKED = b"Transfer-Encoding: chunked"

LISTS = [
    *under(
        "RFC 9112, 6.3, item 3",
        both("CL.TE: a request behind the last chunk", CHUNKED),
        both("CL.TE: the first byte of the next request", CHUNKED, content=LAST + b"G"),
        refused(
            "TE.CL: a chunk that holds a request",
            head(CHUNKED, b"Content-Length: 4") + b"%x\r\n%b\r\n" % (len(HIDDEN), HIDDEN) + LAST,
        ),
        refused(
            "TE.CL: with the fields the other way round",
            head(b"Content-Length: 4", CHUNKED) + b"%x\r\n%b\r\n" % (len(HIDDEN), HIDDEN) + LAST,
        ),
    ),
    *under(
        "RFC 9112, 2.2, 5.1 and 6.1",
        *(
            both(f"TE.TE: {field!r}", field)
            for field in (
                b"Transfer-Encoding: xchunked",
                b"Transfer-Encoding : chunked",
                b"Transfer-Encoding:\tchunked",
                b"Transfer-Encoding:chunked",
                b"Transfer-Encoding:\x0bchunked",
                b"Transfer-Encoding: chunked\x0b",
                b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
                b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
                b" Transfer-Encoding: chunked",
                b"\tTransfer-Encoding: chunked",
                b"X: X\nTransfer-Encoding: chunked",
                b"X: X\rTransfer-Encoding: chunked",
                b"Transfer-Encoding\n : chunked",
                b"Transfer-Encoding\r\n : chunked",
                b"Transfer-Encoding:\n chunked",
                b"Transfer-Encoding: chunked, cow",
                b"Transfer-Encoding: cow, chunked",
                b"Transfer-Encoding: cow chunked bar",
                b'Transfer-Encoding: "chunked"',
                b"Transfer-Encoding: 'chunked'",
                b"Transfer-Encoding: chunked;x=y",
                b"Transfer-Encoding: c\xc8\x68unked",
                b"Transfer-Encoding:\xffchunked",
                b"Transfer-Encoding: \x00chunked",
                b"Transfer-Encoding: chunked\x00",
                b"Transfer-Encoding\x00: chunked",
                b"Transfer\x00-Encoding: chunked",
                b"Transfer Encoding: chunked",
                b"transfer-encoding: CHUNKED",
                b"Foo: bar\r\n\rTransfer-Encoding: chunked",
                b"Foo\r\nTransfer-Encoding: chunked",
                b": x\r\nTransfer-Encoding: chunked",
            )
        ),
        Case(
            "TE.TE: an underscore is another field, and the length counts",
            head(b"Transfer_Encoding: chunked", length(len(LAST + HIDDEN))) + LAST + HIDDEN,
            read(LAST + HIDDEN),
        ),
        Case(
            "TE.TE: X- is another field, and the length counts",
            head(b"X-Transfer-Encoding: chunked", length(len(LAST + HIDDEN))) + LAST + HIDDEN,
            read(LAST + HIDDEN),
        ),
    ),
    *under(
        "RFC 9112, 6.3; RFC 9110, 8.6",
        *(
            Case(
                f"CL.0: the content of a {method} is not the next request",
                head(length(len(HIDDEN)), line=f"{method} /t HTTP/1.1".encode()) + HIDDEN,
                read(HIDDEN, method),
            )
            for method in ("GET", "HEAD", "OPTIONS", "DELETE", "CONNECT", "POST")
        ),
        *(
            refused(f"CL.0 and 0.CL: {field!r}", head(field) + HIDDEN)
            for field in (
                b"Content-Length : %d" % len(HIDDEN),
                b"Content-Length\x0b: %d" % len(HIDDEN),
                b" Content-Length: %d" % len(HIDDEN),
                b"\tContent-Length: %d" % len(HIDDEN),
                b"Content-Length:\n %d" % len(HIDDEN),
                b"Content-Length:\r\n %d" % len(HIDDEN),
                b"X: X\nContent-Length: %d" % len(HIDDEN),
                b"X: X\rContent-Length: %d" % len(HIDDEN),
                b"Content-Length: 0%x" % 0xAB,
                b"Content-Length: %d\x00" % len(HIDDEN),
                b"Content-Length: 0, %d" % len(HIDDEN),
                b"Content-Length: %d-0" % len(HIDDEN),
                b"Foo: bar\r\n Content-Length: %d" % len(HIDDEN),
            )
        ),
        refused(
            "0.CL: the length in the first field line behind a space",
            head(host=b" Content-Length: 3\r\nHost: a\r\n") + b"abc",
        ),
    ),
    *under(
        "RFC 9110, 10.1.1",
        Case(
            "Expect: the content is read where it was announced",
            head(b"Expect: 100-continue", length(len(HIDDEN))) + HIDDEN,
            read(HIDDEN),
        ),
        Case(
            "Expect on a GET with content",
            head(b"Expect: 100-continue", length(len(HIDDEN)), line=b"GET /t HTTP/1.1") + HIDDEN,
            read(HIDDEN, "GET"),
        ),
        refused(
            "Expect, obfuscated: a word before it",
            head(b"Expect: y 100-continue", length(len(HIDDEN))) + HIDDEN,
            417,
        ),
        refused(
            "Expect, obfuscated: a word behind it",
            head(b"Expect: 100-continue y", length(len(HIDDEN))) + HIDDEN,
            417,
        ),
        refused(
            "Expect, obfuscated: folded", head(b"Expect:", b" 100-continue", length(len(HIDDEN))) + HIDDEN
        ),
        refused(
            "Expect, obfuscated: space before the colon", head(b"Expect : 100-continue", LENGTH_3) + b"abc"
        ),
        refused("Expect, obfuscated: LF before it", head(b"Expect:\n100-continue", LENGTH_3) + b"abc"),
        refused("Expect with both", head(b"Expect: 100-continue", CHUNKED, LENGTH_3) + LAST),
    ),
    *under(
        "RFC 9112, 3.2; RFC 9110, 7.2",
        refused("host: a second one behind a space", head(b" Host: b")),
        refused("host: a second one behind LF", head(b"X: y\nHost: b")),
        refused("host: space before the colon", head(b"Host : b")),
        refused("host: a path in it", head(host=b"Host: a/b?c=\r\n")),
        refused("host: a comma and a space", head(host=b"Host: a, b\r\n")),
    ),
]

FUNKY = under(
    "RFC 9112, 2.2 and 7.1",
    refused("TERM.EXT: LF is a line's end or in an extension", chunked(b"2;\nxx\r\n30\r\n" + LAST + HIDDEN)),
    refused("EXT.TERM: the other way round", chunked(b"30;\nab\r\n0\r\n\r\n" + HIDDEN + b"\r\n" + LAST)),
    refused("TERM.EXT: CR is a line's end or in an extension", chunked(b"2;\rxx\r\n30\r\n" + LAST + HIDDEN)),
    refused("TERM.EXT: CR and a byte", chunked(b"2;\rXxx\r\n30\r\n" + LAST + HIDDEN)),
    refused("TERM.EXT: without a semicolon", chunked(b"2\nxx\r\n30\r\n" + LAST + HIDDEN)),
    refused("TERM.SPILL: LF ends the data", chunked(b"5\r\nAAAAA\n2\r\n30\r\n" + LAST + HIDDEN)),
    refused("TERM.SPILL: CR ends the data", chunked(b"5\r\nAAAAA\r2\r\n30\r\n" + LAST + HIDDEN)),
    refused("SPILL.TERM: bytes beyond the data", chunked(b"5\r\nAAAAAX\n2\r\n30\r\n" + LAST + HIDDEN)),
    refused("SPILL.TERM: bytes beyond the data up to CRLF", chunked(b"5\r\nAAAAAxx\r\n" + LAST + HIDDEN)),
    refused("TERM.SPILL: nothing ends the data", chunked(b"5\r\nAAAAA0\r\n\r\n" + HIDDEN)),
    refused("ONE.TWO: one byte ends the data for one", chunked(b"2\r\nxx\n0\r\n\r\n" + HIDDEN)),
    refused("TWO.ONE: two bytes end the data, whichever", chunked(b"2\r\nxx\n\n" + LAST + HIDDEN)),
    refused("ZERO.TWO: no byte ends the data for one", chunked(b"2\r\nxx12\r\n" + LAST + HIDDEN)),
    refused("TWO.ZERO: the other way round", chunked(b"2\r\nxxyy0\r\n\r\n" + HIDDEN)),
    refused("a trailer section that LF ends", chunked(b"0\r\n\n" + HIDDEN)),
    refused("a trailer section that CR CR ends", chunked(b"0\r\n\r\r" + HIDDEN)),
    refused("a trailer that LF ends", chunked(b"0\r\nA: b\n\n" + HIDDEN)),
    refused("a request as trailers", chunked(b"0\r\n" + HIDDEN)),
)

DESYNC = [*LISTS, *FUNKY]
