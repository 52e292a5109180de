"""What the tables are made of: a raw stream, what a strict reader makes of it, and bytes to write them with.

Each case stands in front of `CANARY`, so that a frame read wrong shows as a missing, changed or
additional request.  Nothing here knows a parser: the tables also serve for comparing other servers.
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
    closes: bool = False
    """The last of the requests ends the connection: nobody looks at the canary."""
    rfc: str = ""
    """The document and section that decide."""

    @property
    def expected(self) -> list[Read]:
        """What is read of this case with the canary behind it."""
        if self.closes or self.refused is not None:
            return list(self.requests)
        return [*self.requests, CANARY_READ]


def under(rfc: str, *cases: Case) -> list[Case]:
    """Cases that one section decides."""
    return [case._replace(rfc=rfc) for case in cases]


def head(*fields: bytes, line: bytes = b"POST /t HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    """A request's head; without a Host where `host` is b""."""
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def chunked(content: bytes, *fields: bytes) -> bytes:
    """A request with the chunked coding; `content` has its chunks already."""
    return head(b"Transfer-Encoding: chunked", *fields) + content


def read(content: bytes = b"", method: str = "POST", target: bytes = b"/t") -> tuple[Read, ...]:
    """The one request that is read."""
    return (Read(method, target, content),)


LENGTH_3 = b"Content-Length: 3"
LAST = b"0\r\n\r\n"
"""The last chunk and an empty trailer section."""
HIDDEN = head(line=b"GET /hidden HTTP/1.1")
"""A request that nobody may read, as it is inside of another or behind what was refused."""


def refused(name: str, raw: bytes, status: int = 400) -> Case:
    return Case(name, raw, refused=status)


def length(size: int) -> bytes:
    return b"Content-Length: %d" % size


def both(name: str, *fields: bytes, content: bytes = LAST + HIDDEN) -> Case:
    """A length and some Transfer-Encoding, with a request behind the last chunk and inside the length."""
    return Case(name, head(length(len(content)), *fields) + content, refused=400)
