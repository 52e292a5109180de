"""`HTTPProtocol` out of its parts: the strict reader, an engine that takes heads apart, the writer.

What is strict about reading is in `ingest.http.framing`, and responses are written by
`ingest.http.writing`; an engine is one function.  The built-in one, `split_head`, is here.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ingest.http.framing import MessageReader, Parts
from ingest.http.messages import Response
from ingest.http.protocol import Event
from ingest.http.writing import ResponseWriter


def split_head(head: bytes) -> Parts:
    """Take apart a head that was found to be in order: only so can it be this short.

    A parser would check once more what has been checked; `python -m bench.heads` shows what that costs.
    """
    request_line, *lines = head[:-4].split(b"\r\n")
    method, target, _ = request_line.split(b" ")
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    return method, target, tuple(fields)


class HTTP1Protocol:
    """`HTTPProtocol`, where each method is described, on the engine `parse_head`."""

    __slots__ = ("_reader", "_writer")

    def __init__(self, parse_head: Callable[[bytes], Parts] = split_head) -> None:
        self._reader = MessageReader(parse_head)
        self._writer = ResponseWriter()

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes from the socket; b"" is the end of the stream."""
        self._reader.receive_data(data)

    def next_event(self) -> Event:
        """The next part of the current request."""
        return self._reader.next_event()

    @property
    def waiting_bytes(self) -> int:
        """How many bytes have come that are no event yet."""
        return self._reader.waiting_bytes

    def send_head(self, response: Response) -> bytes:
        """The bytes of a status line and fields."""
        # After an error in the content the request is known, but the connection cannot go on.
        if self._reader.error is not None and not response.closes:
            response = msgspec.structs.replace(response, closes=True)
        return self._writer.send_head(response, self._reader.request)

    def send_content(self, data: bytes) -> bytes:
        """The bytes of one piece of content."""
        return self._writer.send_content(data)

    def end(self) -> bytes:
        """The bytes that end the response."""
        return self._writer.end()

    def start_next_cycle(self) -> None:
        """Go on to the next request on this connection."""
        if not self.keeps_alive:
            raise RuntimeError("this connection takes no further request")
        if not self._writer.at_end:
            raise RuntimeError("the current response was not written to its end")
        self._reader.start_next_message()
        self._writer.start_next_message()

    @property
    def keeps_alive(self) -> bool:
        """Whether, after this response, the connection can take another request."""
        reader = self._reader
        return (
            reader.error is None
            and reader.request is not None
            and reader.request.keep_alive
            and self._writer.keeps_alive
        )
