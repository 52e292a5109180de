"""The parser seam: what a connection asks of an HTTP/1 engine.  No I/O on either side of it."""

from __future__ import annotations

import enum
from typing import Protocol, TypeAlias

from ingest.http.messages import Content, Request, Response


class Signal(enum.Enum):
    """What `next_event` says when it has no part of a message to give."""

    NEED_DATA = enum.auto()
    """Call `receive_data` first."""
    END_OF_MESSAGE = enum.auto()
    """The request is complete; nothing of the next one is looked at before `start_next_cycle`."""
    END_OF_STREAM = enum.auto()
    """The client closed between two messages."""


Event: TypeAlias = Request | Content | Signal


class HTTPProtocol(Protocol):
    """One side of an HTTP/1 connection, the server's.

    An implementation is fed whatever the socket gave, cuts it into messages with
    `ingest.http.framing`, and hands out one message's events; what lies behind it waits.
    After an error nothing more can be read, but an answer can still be sent.
    """

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes from the socket; b"" is the end of the stream."""

    def next_event(self) -> Event:
        """The next part of the current request.

        Raises an `IngestError` (status 400, 411, 413, 417, 431, 501 or 505) for a request that is
        refused before anyone looks at what it asks for, and `BadFraming` for a stream that ends
        in the middle of a message.
        """

    def take_content(self) -> bytes | None:
        """The content, or the rest of it, if its length is known and all of it is here; else None.

        The request is complete then: the next event is `END_OF_MESSAGE`.
        """

    def whole(self, data: bytes) -> tuple[Request, bytes] | None:
        """The request that `data` is, and its content, if it is one and no more; nothing is taken.

        None also where that cannot be said at once.  What has been answered out of it is not to be given
        to `receive_data`.
        """

    @property
    def waiting_bytes(self) -> int:
        """How many bytes have come that are no event yet, such as a part of a head."""

    def send_head(self, response: Response) -> bytes:
        """The bytes of a status line and fields; an informational (1xx) response does not end the head.

        Adds `Date`, and `Content-Length`, `Transfer-Encoding` or `Connection` where they are due.
        A head for HEAD, 204 or 304 is framed as having no content.  `Connection: close` is added
        where `keeps_alive` is false, so that an answer to a request that could not be read has it.
        Raises ValueError for a field that breaks out of its line or that says how the message is framed.
        """

    def send_content(self, data: bytes) -> bytes:
        """The bytes of one piece of content, coded as the head announced; b"" for a HEAD request."""

    def end(self) -> bytes:
        """The bytes that end the response."""

    def send(self, response: Response) -> bytes:
        """The bytes of a whole response: `send_head`, `send_content` and `end` at once."""

    def start_next_cycle(self) -> None:
        """Go on to the next request on this connection; only after `END_OF_MESSAGE` and `end`.

        Raises RuntimeError before that, and where `keeps_alive` is false.
        """

    @property
    def keeps_alive(self) -> bool:
        """Whether, after this response, the connection can take another request.

        False after any error of `next_event`, before a request was read, and where the request or the
        response that was sent closes.  Content that was not read yet does not count: who will not
        read it to `END_OF_MESSAGE` sends a response that `closes`.
        """
