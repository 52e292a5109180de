"""What a request's head may look like, and what it says about its message: RFC 9112's rules as functions.

The grammar is held as bytes, against one regular expression.  Only the five
fields that decide about framing and the connection are read here; to take a head apart into its
fields is the engine's.  Where this is stricter than the RFC's grammar, the place says so.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from ingest.errors import (
    BadFraming,
    ExpectationFailed,
    HeadTooLarge,
    LengthRequired,
    UnknownTransferCoding,
    VersionNotSupported,
)

HEAD_BYTES = 32 * 1024
"""Bytes of a head, request line and empty line included; also of a trailer section."""
HEAD_FIELDS = 100
"""Field lines of a head; also of a trailer section."""

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
VALUE = rb"[\t -~\x80-\xff]"
_FIELD_LINE = rb"(?:" + TOKEN + rb"++:" + VALUE + rb"*+\r\n)"
# RFC 9112, 3.  Stricter: a method of at most 32 characters.  Wider: a target may have any visible ASCII but
# "#", as browsers do not encode all that RFC 3986 asks for; which of the four forms it has is for routing.
# A fragment is refused, since others take what stands behind it for a part of the path.
_REQUEST_LINE = rb"(" + TOKEN + rb"{1,32}+) [!\"$-~]++ HTTP/"

_HEAD = re.compile(_REQUEST_LINE + rb"(1\.[01])\r\n" + _FIELD_LINE + rb"*+\r\n")
_TRAILERS = re.compile(_FIELD_LINE + rb"*+\r\n")
_ANY_VERSION = re.compile(_REQUEST_LINE + rb"([0-9]\.[0-9])")
_ONE_FIELD_LINE = re.compile(_FIELD_LINE)

_DECIDING_FIELD = re.compile(
    rb"\r\n(host|content-length|transfer-encoding|connection|expect):([^\r]*)", re.IGNORECASE
)

# RFC 9110, 7.2 and RFC 3986, 3.2.2.  Stricter: no IPvFuture, a port of at most five digits.
_HOST = re.compile(
    rb"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?:[0-9A-Za-z\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})++)(?::[0-9]{0,5})?"
)


class Head(NamedTuple):
    """What a head says about its message and the connection."""

    version: bytes
    """b"1.0" or b"1.1"."""
    content_length: int | None
    """Bytes of content; None for chunked."""
    expects_continue: bool
    keep_alive: bool


def read_head(head: bytes) -> Head:
    """Hold a whole head, its empty line included, against every rule.

    Raises BadFraming, VersionNotSupported, HeadTooLarge (by fields), UnknownTransferCoding,
    LengthRequired or ExpectationFailed.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        _refuse_head(head)
    _check_field_count(head.count(b"\r\n") - 2, "request head")
    method, version = match.groups()
    deciding: dict[bytes, list[bytes]] = {}
    for name, value in _DECIDING_FIELD.findall(head):
        deciding.setdefault(name.lower(), []).append(value.strip(b" \t"))
    _check_host(deciding.get(b"host", ()), version)
    length = _content_length(deciding, method, version)
    expects_continue = version == b"1.1" and _expects_continue(deciding.get(b"expect", ()))
    # Nothing is held back where there is no content (RFC 9110, 10.1.1).
    return Head(
        version,
        length,
        expects_continue and length != 0,
        _keep_alive(deciding.get(b"connection", ()), version),
    )


def check_trailers(section: bytes) -> None:
    """Hold a trailer section, its empty line included, against the rules for fields."""
    if not _TRAILERS.fullmatch(section):
        _refuse_field_lines(section)
    _check_field_count(section.count(b"\r\n") - 1, "trailer section")


def shown(data: bytes) -> str:
    """Bytes of a client for a message: bounded and escaped."""
    return repr(data) if len(data) <= 60 else f"{data[:60]!r}..."


def check_request_line(line: bytes) -> None:
    """Raise for a request line (without its CRLF) that RFC 9112, 3 and 2.3 do not let through.

    Stricter: a version 1.2 could be read as 1.1 (RFC 9110, 2.5), but nobody sends it.
    """
    match = _ANY_VERSION.fullmatch(line)
    if match is None:
        raise BadFraming(f"request line {shown(line)} is not a method, a request target and HTTP/1.1")
    if match[2] not in (b"1.0", b"1.1"):
        raise VersionNotSupported(f"HTTP/{match[2].decode()} is not spoken here; HTTP/1.1 and HTTP/1.0 are")


def _refuse_head(head: bytes) -> NoReturn:
    line, _, rest = head.partition(b"\r\n")
    check_request_line(line)
    _refuse_field_lines(rest)


def _refuse_field_lines(section: bytes) -> NoReturn:
    position = 0
    while match := _ONE_FIELD_LINE.match(section, position):
        position = match.end()
    line = section[position:].partition(b"\r\n")[0]
    raise BadFraming(f"field line {shown(line)} is not a name, a colon and a value without controls")


def _check_field_count(count: int, what: str) -> None:
    if count > HEAD_FIELDS:
        raise HeadTooLarge(f"the {what} has {count} fields; the limit is {HEAD_FIELDS}")


# What the deciding fields say -----------------------------------------------------------------------


def _check_host(values: Sequence[bytes], version: bytes) -> None:
    """RFC 9112, 3.2: 400 for no Host on HTTP/1.1, for a second one, and for one that is not valid.

    An empty one is not valid here: it stands for a target URI without authority, and every http URI
    has one with a host (RFC 9110, 4.2.1).
    """
    if not values and version == b"1.0":
        return
    if len(values) != 1:
        raise BadFraming(f"the request has {len(values)} Host fields; HTTP/{version.decode()} allows one")
    match = _HOST.fullmatch(values[0])
    valid = match is not None
    if match is not None and match["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(match["ipv6"].decode("ascii"))
        except ValueError:
            valid = False
    if not valid:
        raise BadFraming(f"Host {shown(values[0])} is not a host with an optional port")


def _content_length(deciding: Mapping[bytes, Sequence[bytes]], method: bytes, version: bytes) -> int | None:
    """Bytes of content; None for chunked.  RFC 9112, 6.1 to 6.3, without its leave to repair."""
    lengths = deciding.get(b"content-length", ())
    codings = deciding.get(b"transfer-encoding")
    if codings is not None:
        if version == b"1.0":
            raise BadFraming("HTTP/1.0 has no Transfer-Encoding; send Content-Length")
        if lengths:
            raise BadFraming("the request has Transfer-Encoding and Content-Length; it may have one of them")
        coding = b",".join(codings)
        if coding.lower() == b"chunked":
            return None
        # Stricter: no empty elements in the list (RFC 9110, 5.6.1.2, would skip a few).
        parts = [part.strip(b" \t").lower() for part in coding.split(b",")]
        if parts[-1] != b"chunked" or parts.count(b"chunked") > 1 or b"" in parts:
            raise BadFraming(f"Transfer-Encoding {shown(coding)} does not end with chunked, once")
        raise UnknownTransferCoding(f"transfer coding {shown(coding)} is not known here; only chunked is")
    if lengths:
        # Stricter: equal duplicates are refused too.  18 digits end below 2**63.
        if len(lengths) == 1 and len(lengths[0]) <= 18 and lengths[0].isdigit():
            return int(lengths[0])
        raise BadFraming(
            f"Content-Length {shown(b', '.join(lengths))} is not one number of 18 digits or less"
        )
    if version == b"1.0" and method in (b"POST", b"PUT", b"PATCH"):
        raise LengthRequired(f"HTTP/1.0 {method.decode('ascii')} needs a Content-Length")
    return 0


def _expects_continue(values: Sequence[bytes]) -> bool:
    """RFC 9110, 10.1.1, on HTTP/1.1; HTTP/1.0 has no expectations.  Stricter: an empty one is none."""
    if not values:
        return False
    if {part.strip(b" \t").lower() for part in b",".join(values).split(b",")} == {b"100-continue"}:
        return True
    raise ExpectationFailed(f"expectation {shown(b', '.join(values))} cannot be met; only 100-continue can")


def _keep_alive(values: Sequence[bytes], version: bytes) -> bool:
    """RFC 9112, 9.3."""
    if not values:
        return version == b"1.1"
    options = {part.strip(b" \t").lower() for part in b",".join(values).split(b",")}
    return b"close" not in options and (version == b"1.1" or b"keep-alive" in options)
