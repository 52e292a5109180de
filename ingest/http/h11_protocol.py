"""The engine on h11: the only module that imports it."""

from __future__ import annotations

import h11

from ingest.errors import BadFraming
from ingest.http.framing import Parts
from ingest.http.heads import HEAD_BYTES


def parse_head(head: bytes) -> Parts:
    """Take a head apart.  Raises `BadFraming` where h11 is stricter than `ingest.http.heads`."""
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
