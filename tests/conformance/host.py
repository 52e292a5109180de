"""The Host field: how often, and what it may say."""

from __future__ import annotations

from tests.conformance.case import Case, head, read, under

GET_1_0 = b"GET / HTTP/1.0"
GOT = read(b"", "GET", b"/")

HOW_OFTEN = under(
    "RFC 9112, 3.2",
    Case("no Host on 1.1", head(host=b""), refused=400),
    Case("no Host but other fields on 1.1", head(b"A: b", host=b""), refused=400),
    Case("no Host in absolute form", head(host=b"", line=b"GET http://a/ HTTP/1.1"), refused=400),
    Case("no Host on 1.0", head(host=b"", line=GET_1_0), GOT, closes=True),
    Case("one Host on 1.0", head(line=GET_1_0), GOT, closes=True),
    Case("Host as the last field", head(b"A: b", b"HOST: a", host=b""), read()),
    Case("two Hosts", head(b"Host: b"), refused=400),
    Case("the same Host twice", head(b"Host: a"), refused=400),
    Case("three Hosts", head(b"Host: b", b"Host: c"), refused=400),
    Case("two Hosts in two cases", head(b"hOsT: b"), refused=400),
    Case("two Hosts far apart", head(b"A: b", b"C: d", b"Host: b"), refused=400),
    Case("an empty Host and another", head(b"Host: a", host=b"Host:\r\n"), refused=400),
    Case("two Hosts on 1.0", head(b"Host: b", line=GET_1_0), refused=400),
    Case("bad Host on 1.0", head(host=b"Host: a b\r\n", line=GET_1_0), refused=400),
    Case("empty Host", head(host=b"Host:\r\n"), refused=400),
    Case("Host of white space", head(host=b"Host: \t \r\n"), refused=400),
)


def good(name: str, value: bytes) -> Case:
    return Case(name, head(host=b"Host: " + value + b"\r\n"), read())


def bad(name: str, value: bytes) -> Case:
    return Case(name, head(host=b"Host: " + value + b"\r\n"), refused=400)


WHAT_IT_SAYS = under(
    "RFC 9110, 7.2; RFC 3986, 3.2.2 and 3.2.3",
    good("host of letters", b"example.com"),
    Case("host and port", head(host=b"hOST: example.com:8080\r\n"), read()),
    good("host and empty port", b"example.com:"),
    good("host and port of five digits", b"example.com:65535"),
    good("host in white space", b"\t example.com \t"),
    good("IPv4", b"127.0.0.1:80"),
    good("IPv6", b"[::1]:80"),
    good("IPv6 without port", b"[2001:db8::1]"),
    good("IPv6 with IPv4 in it", b"[::ffff:192.0.2.1]:80"),
    good("host with underscore", b"my_service"),
    good("host percent-encoded", b"a%20b"),
    good("host of unreserved and sub-delims", b"-._~!$&'()*+,;="),
    good("host that ends with a dot", b"example.com."),
    bad("port of six digits", b"a:000080"),
    bad("two hosts in one", b"a, b"),
    bad("space in a host", b"a b"),
    bad("user information", b"u@a"),
    bad("a path", b"a/b"),
    bad("a query", b"a?b"),
    bad("a fragment", b"a#b"),
    bad("a backslash", b"a\\b"),
    bad("a URI", b"http://a"),
    bad("two ports", b"a:1:2"),
    bad("port of letters", b"a:b"),
    bad("port with a sign", b"a:-1"),
    bad("space before the port", b"a :80"),
    bad("space behind the colon of the port", b"a: 80"),
    bad("port alone", b":80"),
    bad("percent sign alone", b"a%"),
    bad("bad percent-encoding", b"a%2"),
    bad("percent-encoding of letters", b"a%zz"),
    bad("IPv6 without brackets", b"::1"),
    bad("IPv6 that is none", b"[:::::1]"),
    bad("IPv6 that is empty", b"[]"),
    bad("IPv6 with a zone", b"[fe80::1%25eth0]"),
    bad("IPv6 left open", b"[::1"),
    bad("IPv6 closed only", b"::1]"),
    bad("IPv6 with something behind", b"[::1]a"),
    bad("something before IPv6", b"a[::1]"),
    bad("IPv4 in brackets", b"[127.0.0.1]"),
    bad("IPvFuture", b"[v1.a]"),
    bad("host in quotes", b'"a"'),
    bad("host beyond ASCII", b"\xe4"),
    bad("angle brackets", b"<a>"),
)

HOSTS = [*HOW_OFTEN, *WHAT_IT_SAYS]
