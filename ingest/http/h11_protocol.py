"""The engine on h11: the only module that imports it.

h11 takes heads apart.  What is strict about reading is in `ingest.http.framing`, content is handed
through from there, and responses are written by `ingest.http.writing`.
"""

from __future__ import annotations

import h11

from ingest.errors import BadFraming
from ingest.http.framing import MessageReader, Parts
from ingest.http.heads import HEAD_BYTES
from ingest.http.messages import Response
from ingest.http.protocol import Event
from ingest.http.writing import ResponseWriter


class H11Protocol:
    """`HTTPProtocol`, where each method is described, on h11."""

    def __init__(self) -> None:
        self._reader = MessageReader(_parse_head)
        self._writer = ResponseWriter()

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes from the socket; b"" is the end of the stream."""
        self._reader.receive_data(data)

    def next_event(self) -> Event:
        """The next part of the current request."""
        return self._reader.next_event()

    @property
    def has_begun(self) -> bool:
        """Whether bytes of a request have come that are no event yet."""
        return self._reader.has_begun

    def send_head(self, response: Response) -> bytes:
        """The bytes of a status line and fields."""
        # After an error in the content the request is known, but the connection cannot go on.
        if self._reader.error is not None and not response.closes:
            response = Response(response.status, response.fields, response.content, closes=True)
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


def _parse_head(head: bytes) -> Parts:
    # One h11 connection a head: making it is cheap, it then holds nothing of the request before,
    # and its rules for going on (no keep-alive on HTTP/1.0, a pause at Upgrade) never come up.
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise BadFraming(f"the request head cannot be read: {str(error)[:200]}") from error
    if not isinstance(event, h11.Request):
        raise BadFraming("the request head cannot be read: it is not complete")
    return event.method, event.target, tuple(event.headers)
