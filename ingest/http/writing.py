"""The bytes of responses, alike for every engine: status line, fields, and how the content ends.

h11 would write too, but spends most of its time on checking what is our own.  This is no place for a
decision about a response: only about its framing.
"""

from __future__ import annotations

import enum
import functools
import re
import time
from email.utils import formatdate
from http import HTTPStatus

from ingest.http.messages import Fields, Request, Response

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}
# RFC 9110, 5.6.2 and 5.5: a line break in here would let a value write the rest of the answer.
_FIELD_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++: [\t -~\x80-\xff]*+\r\n")
_USUAL = frozenset(status.value for status in HTTPStatus if status >= 200) - {304}
_FRAMING_FIELDS = frozenset((b"connection", b"content-length", b"transfer-encoding"))


class _State(enum.Enum):
    HEAD = "its head"
    CONTENT = "its content"
    END = "nothing: it is complete"


class _Coding(enum.Enum):
    """How a response's content ends (RFC 9112, 6.3)."""

    NONE = enum.auto()
    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    CLOSE = enum.auto()


class ResponseWriter:
    """Writes one response for each request.  Calls out of turn are our own bugs: RuntimeError."""

    __slots__ = ("_coding", "_left", "_state", "keeps_alive")

    keeps_alive: bool
    """Whether the head that was written leaves the connection open."""

    def __init__(self) -> None:
        self.start_next_message()

    @property
    def at_end(self) -> bool:
        """Whether the response was written to its end."""
        return self._state is _State.END

    def start_next_message(self) -> None:
        """Go on to the next response."""
        self.keeps_alive = True
        self._state = _State.HEAD
        self._coding = _Coding.NONE
        self._left = 0

    def send_head(self, response: Response, request: Request | None) -> bytes:
        """Status line and fields of `response` to `request`; None where no request could be read.

        Then, and when either side closes, the field `Connection: close` is written.
        Raises ValueError for a field that is not one line, or that would say how the message is framed.
        """
        self._expect(_State.HEAD)
        status, content = response.status, response.content
        if status < 200:
            if status == 101 or request is None or request.version == b"1.0":
                raise RuntimeError(f"a {status} response cannot be sent here: RFC 9110, section 15.2")
            return _head_start(status, response.fields) + b"\r\n"

        parts = [_head_start(status, response.fields, int(time.time()))]
        if response.request_id is not None:
            parts.append(_field_line(b"x-request-id", response.request_id))
        bodiless = status in (204, 304)
        self.keeps_alive = request is not None and request.keep_alive and not response.closes
        if bodiless:
            self._coding = _Coding.NONE
        elif content is not None:
            parts.append(b"content-length: %d\r\n" % len(content))
            self._coding, self._left = _Coding.LENGTH, len(content)
        elif request is not None and request.version == b"1.1":
            parts.append(b"transfer-encoding: chunked\r\n")
            self._coding = _Coding.CHUNKED
        else:
            # An HTTP/1.0 client knows no chunks, so that the end of the connection is the content's.
            self._coding = _Coding.CLOSE
            self.keeps_alive = False
        if request is not None and request.method == "HEAD":
            self._coding = _Coding.NONE
        if not self.keeps_alive:
            parts.append(b"connection: close\r\n")
        elif request is not None and request.version == b"1.0":
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        self._state = _State.CONTENT
        return b"".join(parts)

    def send_plain(self, response: Response, request: Request | None) -> bytes | None:
        """A whole response, in a fraction of the time, if nothing about it is special; None otherwise."""
        if (
            response.content is None
            or response.closes
            or response.request_id is None
            or response.status not in _USUAL
            or request is None
            or not request.usual
        ):
            return None
        self._expect(_State.HEAD)
        self._state = _State.END
        return write_usual(response, response.request_id)

    def send_content(self, data: bytes) -> bytes:
        """One piece of content, coded; b"" where the response has none (HEAD, 204, 304)."""
        self._expect(_State.CONTENT)
        if self._coding is _Coding.NONE or not data:
            return b""
        if self._coding is _Coding.CHUNKED:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._coding is _Coding.LENGTH:
            if len(data) > self._left:
                raise RuntimeError(f"{len(data)} bytes of content, but {self._left} are left of its length")
            self._left -= len(data)
        return data

    def end(self) -> bytes:
        """The bytes that end the response."""
        self._expect(_State.CONTENT)
        if self._coding is _Coding.LENGTH and self._left:
            raise RuntimeError(f"the response ends {self._left} bytes before its length")
        self._state = _State.END
        return b"0\r\n\r\n" if self._coding is _Coding.CHUNKED else b""

    def _expect(self, state: _State) -> None:
        if self._state is not state:
            raise RuntimeError(f"the response's next part is {self._state.value}, not {state.value}")


def write_usual(response: Response, request_id: bytes) -> bytes:
    """A whole response with content, of a status from 200 on but 304, to a usual request with this id."""
    status, content = response.status, response.content or b""
    start = _head_start(status, response.fields, int(time.time()))
    if b"\r" in request_id or b"\n" in request_id:
        raise ValueError(f"request id {request_id[:80]!r} is not one line")
    if status == 204:
        return b"%bx-request-id: %b\r\n\r\n" % (start, request_id)
    return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        start,
        request_id,
        len(content),
        content,
    )


@functools.lru_cache(maxsize=64)
def _head_start(status: int, fields: Fields, second: int | None = None) -> bytes:
    """Status line, fields and date (RFC 9110, 6.6.1).

    Answers have few sets of fields, since what is different in each is not among them, and one string a
    second serves all connections.
    """
    parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    parts += [_field_line(name, value) for name, value in fields]
    if second is not None:
        parts.append(b"date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii"))
    return b"".join(parts)


def _field_line(name: bytes, value: bytes) -> bytes:
    line = b"%b: %b\r\n" % (name, value)
    if not _FIELD_LINE.fullmatch(line):
        raise ValueError(f"response field {line[:80]!r} is not a name and a value on one line")
    if name.lower() in _FRAMING_FIELDS:
        raise ValueError(f"response field {line[:80]!r} is written by the protocol, not by the response")
    return line
