"""What an operator and an orchestrator ask: /healthz, /readyz and /metrics, on a listener of their own."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Protocol

import trio

from ingest.answers import error_response, json_response
from ingest.errors import MethodNotAllowed, NotFound
from ingest.faultlog import FaultLog
from ingest.http.connection import Connection
from ingest.http.exchange import Exchange, Phase
from ingest.http.http1_protocol import HTTP1Protocol
from ingest.http.listeners import Listeners
from ingest.http.messages import Response
from ingest.http.streams import ByteStream
from ingest.management.exposition import Exposition, Registry
from ingest.routing import origin_form
from ingest.sections import Timeouts

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 16
"""Open at once.  They are not taken from `limits.connections`, so that a full service can still be seen; and
a further one ends the one that has waited longest for its client, so that nobody is kept out."""
TIMEOUTS = Timeouts(head_seconds=5, idle_seconds=5, body_grace_seconds=1, send_seconds=5)
"""Short, since nobody has much to say here."""

_ALLOW = "GET, HEAD"


class Seen(Protocol):
    """What is to be seen of a service."""

    @property
    def reasons(self) -> Sequence[str]:
        """Why records cannot be taken; empty while they can."""


class Pages:
    """Handles requests, for `ingest.http.connection.Connection`."""

    def __init__(self, seen: Seen, metrics: Registry) -> None:
        """`seen` is the service; `metrics` its and its process's."""
        self._seen = seen
        self._exposition = Exposition(metrics)
        self._faults = FaultLog(log)

    def connect(self, stream: ByteStream, peer: str) -> Connection:
        """The connection of a stream and a peer's address."""
        return Connection(stream, peer, HTTP1Protocol(), self, error_response, TIMEOUTS, self._faults)

    async def __call__(self, exchange: Exchange) -> Response:
        """Answer one request."""
        request = exchange.request
        path = origin_form(request.target).partition("?")[0]
        pages = {"/healthz": self._health, "/readyz": self._ready, "/metrics": self._metrics}
        page = pages.get(path)
        if page is None:
            return error_response(NotFound(f"there is only {', '.join(pages)} here"))
        if request.method not in ("GET", "HEAD"):
            return error_response(MethodNotAllowed(f"{path} is to be read with GET or HEAD", _ALLOW))
        accept = request.field(b"accept") or b""
        return page(accept.decode("latin-1"))

    def _health(self, accept: str) -> Response:
        """The process lives, and its event loop turns: that is what an answer shows."""
        return json_response(200, {"alive": True})

    def _ready(self, accept: str) -> Response:
        reasons = self._seen.reasons
        return json_response(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    def _metrics(self, accept: str) -> Response:
        text, media_type = self._exposition.text(accept)
        return Response(200, ((b"content-type", media_type.encode()),), text)


async def serve_pages(sockets: list[socket.socket], pages: Pages) -> None:
    """Accept and answer until cancelled, which closes every connection."""
    listeners = Listeners(sockets, pages.connect, most=MOST_CONNECTIONS, evicts=set(Phase) - {Phase.ANSWER})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listeners.sweep)
        nursery.start_soon(listeners.accept, nursery)
