"""How long a message is: Content-Length, Transfer-Encoding, both, neither; and what keeps a connection."""

from __future__ import annotations

from tests.conformance.case import CANARY, LAST, LENGTH_3, Case, head, read, under
from tests.conformance.request_line import OLD

CHUNKED = b"Transfer-Encoding: chunked"


def bad_length(name: str, value: bytes) -> Case:
    return Case(name, head(b"Content-Length:" + value) + b"abc", refused=400)


LENGTHS = under(
    "RFC 9110, 8.6; RFC 9112, 6.3",
    Case("content by length", head(LENGTH_3) + b"abc", read(b"abc")),
    Case(
        "content that looks like a request", head(b"Content-Length: %d" % len(CANARY)) + CANARY, read(CANARY)
    ),
    Case(
        "content that looks like the end of a head",
        head(b"Content-Length: 4") + b"\r\n\r\n",
        read(b"\r\n\r\n"),
    ),
    Case("content of NUL and LF", head(LENGTH_3) + b"\0\n\0", read(b"\0\n\0")),
    Case("content of a GET", head(LENGTH_3, line=b"GET / HTTP/1.1") + b"abc", read(b"abc", "GET", b"/")),
    Case("content of a HEAD", head(LENGTH_3, line=b"HEAD /t HTTP/1.1") + b"abc", read(b"abc", "HEAD")),
    Case("content of a TRACE", head(LENGTH_3, line=b"TRACE /t HTTP/1.1") + b"abc", read(b"abc", "TRACE")),
    Case(
        "content of a CONNECT",
        head(LENGTH_3, line=b"CONNECT a:1 HTTP/1.1") + b"abc",
        read(b"abc", "CONNECT", b"a:1"),
    ),
    Case("length of nought", head(b"Content-Length: 0"), read()),
    Case("leading noughts", head(b"Content-Length: 0003") + b"abc", read(b"abc")),
    Case("length of 18 digits", head(b"Content-Length: 000000000000000003") + b"abc", read(b"abc")),
    Case("white space around the length", head(b"Content-Length: \t3\t ") + b"abc", read(b"abc")),
    Case("length in capitals", head(b"CONTENT-LENGTH: 3") + b"abc", read(b"abc")),
    Case("neither length nor coding is no content", head(), read()),
    Case("CRLF behind the content, as old clients send it", head(LENGTH_3) + b"abc\r\n", read(b"abc")),
    bad_length("empty length", b""),
    bad_length("length of white space", b" \t "),
    bad_length("plus", b" +3"),
    bad_length("minus", b" -3"),
    bad_length("minus nought", b" -0"),
    bad_length("hexadecimal length", b" 0x3"),
    bad_length("octal length", b" 0o3"),
    bad_length("underscore in a length", b" 0_3"),
    bad_length("exponent", b" 3e0"),
    bad_length("fraction", b" 3.0"),
    bad_length("length in letters", b" three"),
    bad_length("length in quotes", b' "3"'),
    bad_length("length and a parameter", b" 3;a=b"),
    bad_length("comma behind the length", b" 3,"),
    bad_length("comma before the length", b" ,3"),
    bad_length("digits beyond ASCII", b" \xb3"),
    bad_length("digits of another script", b" \xd9\xa3"),
    bad_length("full-width digits", b" \xef\xbc\x93"),
    bad_length("no-break space before the length", b" \xa03"),
    bad_length("two words", b" 3 3"),
    bad_length("tab in a length", b" 0\t3"),
    bad_length("equal lengths in one", b" 3, 3"),
    bad_length("different lengths in one", b" 3, 4"),
    Case("equal lengths", head(LENGTH_3, LENGTH_3) + b"abc", refused=400),
    Case("different lengths", head(LENGTH_3, b"content-length: 0") + b"abc", refused=400),
    Case("different lengths far apart", head(LENGTH_3, b"A: b", b"Content-Length: 0") + b"abc", refused=400),
    Case("a length and an empty one", head(LENGTH_3, b"Content-Length:") + b"abc", refused=400),
    Case("length of 19 digits", head(b"Content-Length: 0000000000000000003") + b"abc", refused=400),
    Case("length beyond 63 bits", head(b"Content-Length: 9223372036854775808"), refused=400),
    Case(
        "length that wraps around at 64 bits",
        head(b"Content-Length: 18446744073709551619") + b"abc",
        refused=400,
    ),
    Case("length of 5000 digits", head(b"Content-Length: " + b"9" * 5000), refused=400),
)


def bad_coding(name: str, *values: bytes, refused: int = 400) -> Case:
    fields = [b"Transfer-Encoding:" + value for value in values]
    return Case(name, head(*fields) + b"3\r\nabc\r\n" + LAST, refused=refused)


CODINGS = under(
    "RFC 9112, 6.1 and 6.3, item 4",
    Case("chunked", head(CHUNKED) + b"3\r\nabc\r\n" + LAST, read(b"abc")),
    Case("chunked in capitals", head(b"TRANSFER-ENCODING: CHUNKED") + LAST, read()),
    Case("white space around chunked", head(b"Transfer-Encoding: \t chunked ") + LAST, read()),
    Case("chunked without a space", head(b"Transfer-Encoding:chunked") + LAST, read()),
    Case("chunked GET", head(CHUNKED, line=b"GET / HTTP/1.1") + LAST, read(b"", "GET", b"/")),
    bad_coding("chunked, chunked", b" chunked, chunked"),
    bad_coding("chunked twice", b" chunked", b" chunked"),
    bad_coding("chunked around another", b" chunked, gzip, chunked"),
    bad_coding("empty coding", b""),
    bad_coding("coding of a comma", b","),
    bad_coding("chunked and an empty line", b" chunked", b""),
    bad_coding("an empty line and chunked", b"", b" chunked"),
    bad_coding("chunked and a comma", b" chunked,"),
    bad_coding("a comma and chunked", b" , chunked"),
    # 6.3: chunked is not the final coding, so that the end cannot be known.
    bad_coding("chunked, gzip", b" chunked, gzip"),
    bad_coding("chunked, identity", b" chunked, identity"),
    bad_coding("chunked, then another", b" chunked", b" x"),
    bad_coding("gzip", b" gzip"),
    bad_coding("identity", b" identity"),
    bad_coding("xchunked", b" xchunked"),
    bad_coding("chunkedx", b" chunkedx"),
    bad_coding("chunke", b" chunke"),
    bad_coding("chunked in quotes", b' "chunked"'),
    bad_coding("chunked in apostrophes", b" 'chunked'"),
    bad_coding("chunked in brackets", b" (chunked)"),
    bad_coding("colon before chunked", b" : chunked"),
    bad_coding("chunked and a word", b" chunked x"),
    bad_coding("a word and chunked", b" x chunked"),
    bad_coding("tab in chunked", b" chu\tnked"),
    bad_coding("Kelvin sign for k", b" chun\xe2\x84\xaaed"),
    bad_coding("no-break space before chunked", b" \xa0chunked"),
    bad_coding("obs-text behind chunked", b" chunked\xff"),
    # 7.1: no parameters are defined, their presence is an error.
    bad_coding("chunked with a parameter", b" chunked;a=b"),
    bad_coding("chunked with a semicolon", b" chunked;"),
    bad_coding("gzip and chunked with a parameter", b" gzip, chunked;q=1"),
    # 6.1: a coding that is not understood, and the end is known.
    bad_coding("gzip, chunked", b" gzip, chunked", refused=501),
    bad_coding("identity, chunked", b" identity, chunked", refused=501),
    bad_coding("another, then chunked", b" x", b" chunked", refused=501),
    bad_coding("gzip, deflate, chunked", b" gzip, deflate", b" CHUNKED", refused=501),
    Case(
        "Content-Encoding frames nothing",
        head(b"Content-Encoding: chunked", LENGTH_3, line=b"PUT /t HTTP/1.1") + b"abc",
        read(b"abc", "PUT"),
    ),
    Case("TE frames nothing", head(b"TE: chunked", LENGTH_3) + b"abc", read(b"abc")),
)

BOTH = under(
    "RFC 9112, 6.3, item 3",
    Case("chunked and a length", head(CHUNKED, LENGTH_3) + LAST, refused=400),
    Case("a length and chunked", head(LENGTH_3, CHUNKED) + b"abc", refused=400),
    Case("chunked and a length of nought", head(CHUNKED, b"Content-Length: 0") + LAST, refused=400),
    Case("chunked and the length of its chunks", head(CHUNKED, b"Content-Length: 5") + LAST, refused=400),
    Case("chunked and an empty length", head(CHUNKED, b"Content-Length:") + LAST, refused=400),
    Case("an empty coding and a length", head(b"Transfer-Encoding:", LENGTH_3) + b"abc", refused=400),
    Case("an unknown coding and a length", head(LENGTH_3, b"Transfer-Encoding: x") + b"abc", refused=400),
    Case("identity and a length", head(LENGTH_3, b"Transfer-Encoding: identity") + b"abc", refused=400),
    Case("gzip, chunked and a length", head(LENGTH_3, b"Transfer-Encoding: gzip, chunked"), refused=400),
)

KEEP = b"Connection: keep-alive"
HTTP_1_0 = under(
    "RFC 9112, 6.1 and 9.3; RFC 9110, 10.1.1 and 15.5.12",
    Case("1.0 with a length", head(LENGTH_3, KEEP, line=OLD) + b"abc", read(b"abc")),
    Case(
        "1.0 that says nothing about the connection",
        head(LENGTH_3, line=OLD) + b"abc",
        read(b"abc"),
        closes=True,
    ),
    Case(
        "1.0 with another option than keep-alive",
        head(LENGTH_3, b"Connection: a", line=OLD) + b"abc",
        read(b"abc"),
        closes=True,
    ),
    Case("1.0 POST without length", head(line=OLD), refused=411),
    Case("1.0 PUT without length", head(line=b"PUT / HTTP/1.0"), refused=411),
    Case("1.0 PATCH without length", head(line=b"PATCH / HTTP/1.0"), refused=411),
    Case("1.0 DELETE without length", head(KEEP, line=b"DELETE / HTTP/1.0"), read(b"", "DELETE", b"/")),
    Case("1.0 chunked", head(CHUNKED, line=OLD) + LAST, refused=400),
    Case("1.0 GET chunked", head(CHUNKED, KEEP, line=b"GET / HTTP/1.0") + LAST, refused=400),
    Case("1.0 with another coding", head(b"Transfer-Encoding: gzip", line=OLD), refused=400),
    Case("1.0 with gzip, chunked", head(b"Transfer-Encoding: gzip, chunked", line=OLD), refused=400),
    Case("1.0 chunked and a length", head(CHUNKED, LENGTH_3, line=OLD) + b"abc", refused=400),
    Case("1.0 ignores expectations", head(b"Expect: x", b"Content-Length: 0", KEEP, line=OLD), read()),
    Case(
        "1.0 ignores 100-continue",
        head(b"Expect: 100-continue", LENGTH_3, KEEP, line=OLD) + b"abc",
        read(b"abc"),
    ),
    Case("1.0 with a bad length", head(b"Content-Length: x", line=OLD), refused=400),
)

EXPECTATIONS = under(
    "RFC 9110, 10.1.1",
    Case("100-continue", head(b"Expect: 100-continue", LENGTH_3) + b"abc", read(b"abc")),
    Case("100-Continue in capitals", head(b"Expect: 100-CONTINUE", LENGTH_3) + b"abc", read(b"abc")),
    Case("100-continue in white space", head(b"Expect: \t100-continue ", LENGTH_3) + b"abc", read(b"abc")),
    Case("100-continue twice", head(*[b"Expect: 100-continue"] * 2, LENGTH_3) + b"abc", read(b"abc")),
    Case("100-continue without content", head(b"Expect: 100-continue"), read()),
    Case("100-continue and a length of nought", head(b"Expect: 100-continue", b"Content-Length: 0"), read()),
    Case(
        "100-continue and chunks",
        head(b"Expect: 100-continue", CHUNKED) + b"3\r\nabc\r\n" + LAST,
        read(b"abc"),
    ),
    Case("another expectation", head(b"Expect: 200-ok", LENGTH_3) + b"abc", refused=417),
    Case("one expectation more", head(b"Expect: 100-continue, x", LENGTH_3) + b"abc", refused=417),
    Case(
        "one expectation line more",
        head(b"Expect: 100-continue", b"Expect: x", LENGTH_3) + b"abc",
        refused=417,
    ),
    Case("another expectation without content", head(b"Expect: x"), refused=417),
    Case("expectation with a parameter", head(b"Expect: 100-continue;a=b", LENGTH_3) + b"abc", refused=417),
    Case("100-continue and a comma", head(b"Expect: 100-continue,", LENGTH_3) + b"abc", refused=417),
    Case("empty expectation", head(b"Expect:", LENGTH_3) + b"abc", refused=417),
)

CONNECTIONS = under(
    "RFC 9112, 9.3 and 9.6; RFC 9110, 7.6.1 and 7.8",
    Case("close", head(b"Connection: close"), read(), closes=True),
    Case("close in capitals", head(b"CONNECTION: CLOSE"), read(), closes=True),
    Case("close among others", head(b"Connection: a,\tclose , b"), read(), closes=True),
    Case("close in a second line", head(KEEP, b"Connection: close"), read(), closes=True),
    Case("close behind content", head(b"Connection: close", LENGTH_3) + b"abc", read(b"abc"), closes=True),
    Case(
        "close on 1.0",
        head(b"Connection: keep-alive, close", LENGTH_3, line=OLD) + b"abc",
        read(b"abc"),
        closes=True,
    ),
    Case("keep-alive on 1.1", head(KEEP), read()),
    Case(
        "keep-alive among others on 1.0",
        head(b"Connection: a, Keep-Alive", LENGTH_3, line=OLD) + b"abc",
        read(b"abc"),
    ),
    Case("a word that begins like close", head(b"Connection: closed"), read()),
    Case("an empty option", head(b"Connection:"), read()),
    Case(
        "Content-Length named as hop by hop",
        head(b"Connection: Content-Length", LENGTH_3) + b"abc",
        read(b"abc"),
    ),
    Case(
        "Transfer-Encoding named as hop by hop",
        head(b"Connection: Transfer-Encoding", CHUNKED) + LAST,
        read(),
    ),
    Case(
        "Keep-Alive and Proxy-Connection are ignored",
        head(b"Keep-Alive: max=1", b"Proxy-Connection: close"),
        read(),
    ),
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
)

LENGTHS_AND_CODINGS = [*LENGTHS, *CODINGS, *BOTH, *HTTP_1_0, *EXPECTATIONS, *CONNECTIONS]
