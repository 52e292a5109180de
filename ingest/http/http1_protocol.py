"""`HTTPProtocol` out of its parts: the strict reader, an engine that takes heads apart, the writer.

What is strict about reading is in `ingest.http.framing`, and responses are written by
`ingest.http.writing`; an engine is one function.  The built-in one, `split_head`, is here.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ingest.http.framing import MessageReader, Parts
from ingest.http.messages import Response
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


class HTTP1Protocol(MessageReader):
    """`HTTPProtocol`, where each method is described, on the engine `parse_head`."""

    __slots__ = ("_writer",)

    def __init__(self, parse_head: Callable[[bytes], Parts] = split_head) -> None:
        super().__init__(parse_head)
        self._writer = ResponseWriter()

    def send_head(self, response: Response) -> bytes:
        """The bytes of a status line and fields."""
        # After an error in the content the request is known, but the connection cannot go on.
        if self.error is not None and not response.closes:
            response = msgspec.structs.replace(response, closes=True)
        return self._writer.send_head(response, self.request)

    def send_content(self, data: bytes) -> bytes:
        """The bytes of one piece of content."""
        return self._writer.send_content(data)

    def end(self) -> bytes:
        """The bytes that end the response."""
        return self._writer.end()

    def send(self, response: Response) -> bytes:
        """The bytes of a whole response."""
        if self.error is None:
            data = self._writer.send_plain(response, self.request)
            if data is not None:
                return data
        content = response.content or b""
        return self.send_head(response) + self._writer.send_content(content) + self._writer.end()

    def start_next_cycle(self) -> None:
        """Go on to the next request on this connection."""
        if not self.keeps_alive:
            raise RuntimeError("this connection takes no further request")
        if not self._writer.at_end:
            raise RuntimeError("the current response was not written to its end")
        self.start_next_message()
        self._writer.start_next_message()

    @property
    def keeps_alive(self) -> bool:
        """Whether, after this response, the connection can take another request."""
        request = self.request
        return self._writer.keeps_alive and self.error is None and request is not None and request.keep_alive
