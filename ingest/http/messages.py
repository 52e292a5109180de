"""One HTTP message as plain values.  Neither sockets nor parsers are known here."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec

Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Field lines in order; names in lower case, values without outer white space."""


class Request(NamedTuple):
    """A request's head, already held against RFC 9112 by `ingest.http.framing`."""

    method: str
    target: bytes
    """The request target as it came: origin-form, or absolute-form, which is to be treated alike."""
    version: bytes
    """b"1.0" or b"1.1"."""
    fields: Fields
    content_length: int | None
    """Bytes of content that will follow; None while that is unknown (chunked)."""
    expects_continue: bool = False
    keep_alive: bool = True
    head_bytes: int = 0
    """Bytes of the head as it came."""

    @property
    def usual(self) -> bool:
        """Whether its answer has nothing special: HTTP/1.1, not HEAD, and the connection goes on."""
        return self.keep_alive and self.version == b"1.1" and self.method != "HEAD"

    def field(self, name: bytes) -> bytes | None:
        """The value of the field `name` (lower case); several lines are joined by b", " (RFC 9110, 5.3)."""
        values = [value for key, value in self.fields if key == name]
        if not values:
            return None
        return values[0] if len(values) == 1 else b", ".join(values)


class Content(NamedTuple):
    """A piece of a request's content; transfer coding is taken off."""

    data: bytes


class Response(msgspec.Struct, frozen=True, gc=False):
    """An answer: a status, fields and the whole content.

    `content` is None where the length is not known yet: the content follows in pieces.
    """

    status: int
    fields: Fields = ()
    content: bytes | None = b""
    closes: bool = False
    """Whether the connection ends after this answer."""
    request_id: bytes | None = None
    """What the field X-Request-Id says."""
