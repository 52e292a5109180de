"""Streams by which published bugs of other parsers were found or can be shown.

The bytes are written from the descriptions, for this table.  Where a request is hidden, it is for
`/hidden`, so that whoever reads it shows it.
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

PYTHON = [
    *under(
        "RFC 9112, 7.1",
        refused("h11 CVE-2025-43859: any two bytes end a chunk", chunked(b"3\r\nabcXX" + LAST + HIDDEN)),
        refused(
            "h11 CVE-2025-43859: a chunk swallows the next size", chunked(b"5\r\nAAAAAXX2\r\n45\r\n" + LAST)
        ),
        refused("aiohttp CVE-2023-47627: underscore in a chunk's size", chunked(b"0_3\r\nabc\r\n" + LAST)),
        refused("aiohttp CVE-2024-52304: LF in a chunk's extension", chunked(b"3;a\nb\r\nabc\r\n" + LAST)),
        refused(
            "aiohttp CVE-2025-53643: trailers that are not parsed",
            chunked(b"0\r\nGET /hidden HTTP/1.1\r\n\r\n"),
        ),
        refused("Twisted CVE-2022-24801: 0x in a chunk's size", chunked(b"0x3\r\nabc\r\n" + LAST)),
        refused("Twisted CVE-2022-24801: LF behind a chunk's size", chunked(b"3\nabc\r\n" + LAST)),
        refused("waitress CVE-2022-24761: plus in a chunk's size", chunked(b"+3\r\nabc\r\n" + LAST)),
    ),
    *under(
        "RFC 9112, 6.1 and 6.3",
        refused(
            "gunicorn CVE-2024-1135: chunked is not the last coding",
            head(b"Transfer-Encoding: chunked, gzip") + LAST + HIDDEN,
        ),
        refused(
            "gunicorn CVE-2024-1135: chunked, then a second line",
            head(CHUNKED, b"Transfer-Encoding: identity") + LAST + HIDDEN,
        ),
        both("gunicorn CVE-2024-1135: back to the length", b"Transfer-Encoding: chunked, gzip"),
        both(
            "gunicorn CVE-2024-6827: an unknown coding falls back to the length",
            b"Transfer-Encoding: chunked,gzip",
        ),
        both("gunicorn CVE-2024-6827: a coding in quotes", b'Transfer-Encoding: "chunked"'),
        both("aiohttp CVE-2023-47641: both", CHUNKED),
        both("Twisted CVE-2020-10109: both", CHUNKED),
        both("waitress CVE-2019-16786: chunked is not the only coding", b"Transfer-Encoding: gzip, chunked"),
        refused(
            "waitress CVE-2019-16789: vertical tab before chunked",
            head(b"Transfer-Encoding: \x0bchunked", LENGTH_3) + b"abc",
        ),
        refused("Twisted CVE-2020-10108: two lengths", head(LENGTH_3, b"Content-Length: 0") + b"abc"),
    ),
    *under(
        "RFC 9110, 8.6",
        *(
            refused(f"aiohttp CVE-2023-47627: length {value!r}", head(b"Content-Length: " + value) + b"abc")
            for value in (b"+3", b"-0", b"0_3", b"\xd9\xa3")
        ),
        refused("Twisted CVE-2022-24801: plus before a length", head(b"Content-Length: +3") + b"abc"),
    ),
    *under(
        "RFC 9110, 5.1 and 5.6.2; RFC 9112, 2.3 and 3",
        refused("aiohttp CVE-2023-47627: NUL in a field's name", head(b"Content-Length\0: 3") + b"abc"),
        refused("aiohttp CVE-2023-47627: tab before the colon", head(b"Content-Length\t: 3") + b"abc"),
        refused("aiohttp CVE-2023-49081: LF in the version", head(line=b"GET / HTTP/1.1\nA: b")),
        refused(
            "aiohttp CVE-2023-49082: a request in the method",
            b"GET /hidden HTTP/1.1\nA: b POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        refused("aiohttp CVE-2024-23829: method in brackets", head(line=b"(GET) / HTTP/1.1")),
        refused(
            "aiohttp CVE-2024-23829: digits of another script in the version",
            head(line="GET / HTTP/1.\u0661".encode()),
        ),
        refused(
            "waitress CVE-2019-16785: LF ends a line",
            b"GET / HTTP/1.1\nHost: a\n" + CHUNKED + b"\r\n\r\n" + LAST,
        ),
        Case(
            "aiohttp CVE-2024-23334: a path upwards is bytes like others",
            head(line=b"GET /../../etc/passwd HTTP/1.1"),
            read(b"", "GET", b"/../../etc/passwd"),
        ),
    ),
]

NODE = [
    *under(
        "RFC 9112, 6.1 and 6.3",
        both("llhttp CVE-2022-32213: a coding that ends in chunked", b"Transfer-Encoding: xchunked"),
        refused(
            "llhttp CVE-2022-32213: a coding that begins with chunked",
            head(b"Transfer-Encoding: chunkedchunked") + LAST,
        ),
        refused(
            "llhttp CVE-2022-32213: a comma before chunked", head(b"Transfer-Encoding: , chunked") + LAST
        ),
        refused(
            "Node CVE-2020-8287: two codings, the first counts",
            head(CHUNKED, b"Transfer-Encoding: eee") + LAST + HIDDEN,
        ),
        refused(
            "Node CVE-2020-8287: two codings, the second counts",
            head(b"Transfer-Encoding: eee", CHUNKED) + LAST,
            501,
        ),
    ),
    *under(
        "RFC 9112, 2.2 and 5.2",
        refused(
            "llhttp CVE-2022-32214: LF ends a field",
            b"GET / HTTP/1.1\r\nHost: a\r\nDummy: x\nContent-Length: 3\r\n\r\nabc",
        ),
        refused(
            "llhttp CVE-2022-32215: folded coding", head(b"Transfer-Encoding: chunked", b" , identity") + LAST
        ),
        refused(
            "llhttp CVE-2022-32215: coding on its second line",
            head(b"Transfer-Encoding:", b" chunked") + LAST,
        ),
        refused(
            "llhttp CVE-2022-35256: the last field without CRLF",
            b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\r\n\r\n",
        ),
        refused("llhttp CVE-2022-35256: LF behind the last field", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\n\n"),
        refused(
            "llhttp CVE-2023-30589: CR ends a field",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \rTransfer-Encoding: chunked\r\n\r\n" + LAST,
        ),
        refused(
            "llhttp CVE-2024-27982: space before a length",
            head(b" Content-Length: %d" % len(HIDDEN)) + HIDDEN,
        ),
        refused(
            "llhttp CVE-2025-23167: CRLF CR and any byte end a head",
            b"GET / HTTP/1.1\r\nHost: a\r\n\rX" + HIDDEN,
        ),
    ),
    *under(
        "RFC 9112, 5.1 and 7.1",
        refused(
            "llhttp CVE-2021-22959: space before the colon",
            head(b"Content-Length : %d" % len(HIDDEN)) + HIDDEN,
        ),
        refused("llhttp CVE-2021-22960: what stands in an extension", chunked(b"3;\nabc\r\n" + LAST)),
        refused("llhttp CVE-2024-22019: an extension without end", chunked(b"3;a=" + b"b" * 100_000)),
    ),
    *under(
        "RFC 9112, 3.2",
        refused(
            "Vite CVE-2025-32395: number sign in the target",
            head(line=b"GET /@fs/x#/../../etc/passwd HTTP/1.1"),
        ),
    ),
]

OTHERS = [
    *under(
        "RFC 9112, 2.2 and 7.1",
        refused("Kestrel CVE-2025-55315: LF in an extension", chunked(b"3;\nxx\r\nabc\r\n" + LAST)),
        refused("Kestrel CVE-2025-55315: CR in an extension", chunked(b"3;\rxx\r\nabc\r\n" + LAST)),
        refused("Kestrel CVE-2025-55315: CR in an extension's value", chunked(b"3;a=b\rc\r\nabc\r\n" + LAST)),
        refused(
            "Kestrel CVE-2025-55315: a request behind the LF",
            chunked(b"2;\n" + b"x" * 2 + b"\r\n31\r\n" + LAST + HIDDEN),
        ),
        refused("Netty CVE-2025-58056: LF ends an extension", chunked(b"3;a=b\nabc\r\n" + LAST)),
        refused("Go CVE-2025-22871: LF ends a chunk's size", chunked(b"3\nabc\r\n" + LAST)),
        refused("Go CVE-2025-22871: LF ends the last chunk's size", chunked(b"3\r\nabc\r\n0\n\r\n")),
        refused(
            "Go CVE-2023-39326: an extension of 16 KiB", chunked(b"1;a=" + b"b" * 16384 + b"\r\nx\r\n" + LAST)
        ),
        refused("Falcon CVE-2023-38697: 0x in a chunk's size", chunked(b"0x3\r\nabc\r\n" + LAST)),
        refused("Falcon CVE-2023-38697: LF in an extension", chunked(b"3;a\nb\r\nabc\r\n" + LAST)),
        refused(
            "hyper CVE-2021-32714: a size beyond 64 bits", chunked(b"f0000000000000003\r\nabc\r\n" + LAST)
        ),
        refused("Puma CVE-2023-40175: something behind the last chunk", chunked(b"0\r\nX\r\n\r\n")),
        refused("Puma CVE-2024-21647: extensions without end", chunked(b"1" + b";a" * 20_000)),
        refused("Squid CVE-2023-46846: white space behind a size", chunked(b"3 \r\nabc\r\n" + LAST)),
        refused(
            "Tomcat CVE-2023-46589: trailers beyond the limit",
            chunked(b"0\r\nA: " + b"b" * 33000 + b"\r\n\r\n") + HIDDEN,
            431,
        ),
    ),
    *under(
        "RFC 9112, 6.1 and 6.3; RFC 9110, 8.6",
        both("Netty CVE-2019-20445: both", CHUNKED),
        both("WEBrick CVE-2024-47220: both", CHUNKED),
        both("Puma CVE-2022-24790: both, a list", b"Transfer-Encoding: gzip, chunked"),
        both("WEBrick CVE-2020-25613: a value that contains chunked", b"Transfer-Encoding: \x00chunked"),
        both("Go CVE-2022-1705: a coding that is not a token", b"Transfer-Encoding: \x0cchunked"),
        both("Jetty CVE-2017-7658: both", CHUNKED),
        refused("Jetty CVE-2017-7658: two lengths", head(LENGTH_3, b"Content-Length: 0") + b"abc"),
        refused("Jetty CVE-2023-40167: plus before a length", head(b"Content-Length: +3") + b"abc"),
        refused("hyper CVE-2021-32715: plus before a length", head(b"Content-Length: +3") + b"abc"),
        refused("Tomcat CVE-2022-42252: an invalid length", head(b"Content-Length: a3") + b"abc"),
        refused("HAProxy CVE-2023-40225: an empty length", head(b"Content-Length:") + HIDDEN),
        refused(
            "HAProxy CVE-2023-40225: an empty length and one more",
            head(b"Content-Length:", LENGTH_3) + b"abc",
        ),
        refused(
            "Puma CVE-2023-40175: an empty length beside chunked", head(b"Content-Length:", CHUNKED) + LAST
        ),
        Case(
            "HAProxy CVE-2021-40346: a name as long as its length's overflow",
            head(b"Content-Length0" + b"a" * 255 + b":", length(len(HIDDEN))) + HIDDEN,
            read(HIDDEN),
        ),
        refused(
            "HAProxy CVE-2021-40346: with the length twice",
            head(b"Content-Length0" + b"a" * 255 + b":", length(len(HIDDEN)), b"Content-Length: 0") + HIDDEN,
        ),
    ),
    *under(
        "RFC 9110, 5.1; RFC 9112, 5.1",
        refused("HAProxy CVE-2023-25725: an empty name", head(b":", LENGTH_3) + b"abc"),
        refused("HAProxy CVE-2023-25725: an empty name hides the rest", head(b": x", CHUNKED) + LAST),
        refused(
            "Netty CVE-2019-16869: space before the colon",
            head(b"Transfer-Encoding : chunked", LENGTH_3) + b"abc",
        ),
        refused(
            "Netty CVE-2019-20444: a field without a colon",
            head(b"Transfer-Encoding chunked", LENGTH_3) + b"abc",
        ),
        refused("Go CVE-2019-16276: space before the colon", head(b"Transfer-Encoding : chunked") + LAST),
        refused("WEBrick CVE-2025-6442: CR hides a length", head(b"A: b\rContent-Length: 3") + b"abc"),
        refused("Apache CVE-2016-8743: white space of every kind", head(b"A\x0b\x0c : b")),
    ),
    *under(
        "RFC 9112, 3 and 3.2",
        refused(
            "Netty CVE-2025-67735: CRLF in the target",
            head(line=b"GET /x HTTP/1.1\r\nHost: b\r\n\r\nGET /hidden HTTP/1.1").replace(
                b"Host: b\r\n", b"Host: b\r\nHost: c\r\n", 1
            ),
        ),
        refused("Netty CVE-2025-67735: LF in the target", head(line=b"GET /x\nA: b HTTP/1.1")),
        refused(
            "Apache CVE-2023-25690: a request in the target",
            head(line=b"GET /x HTTP/1.1\rHost: b\r\rGET /hidden HTTP/1.1"),
        ),
        refused("Apache CVE-2016-8743: tab in the request line", head(line=b"GET\t/\tHTTP/1.1")),
        refused("Jetty CVE-2017-7656: HTTP/0.9 with a version", b"GET /hidden HTTP/0.9\r\n\r\n", 505),
        refused(
            "HAProxy CVE-2023-45539: number sign in the target",
            head(line=b"GET /topics/t/records#.png HTTP/1.1"),
        ),
    ),
]

PUBLISHED = [*PYTHON, *NODE, *OTHERS]
