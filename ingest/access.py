"""The access log: one line a request, whatever becomes of it.  Called only where it is switched on."""

from __future__ import annotations

import logging

from ingest.errors import IngestError
from ingest.http.exchange import Exchange

log = logging.getLogger("ingest.access")

SHOWN_BYTES = 256
"""How much of a request target is shown."""


def log_request(exchange: Exchange, request_id: bytes, *, status: int, seconds: float, records: int) -> None:
    """Log a request that was read; `status` 0 says that nobody was there to be answered."""
    request = exchange.request
    target = request.target[:SHOWN_BYTES].decode("ascii", "replace")
    log.info(
        "request",
        extra={
            "request_id": request_id.decode("ascii"),
            "peer": exchange.peer,
            "method": request.method[:SHOWN_BYTES],
            "target": target if len(request.target) <= SHOWN_BYTES else target + "…",
            "status": status,
            "content_bytes": exchange.content_bytes,
            "seconds": round(seconds, 6),
            "records": records,
        },
    )


def log_unread(peer: str, request_id: bytes, error: IngestError) -> None:
    """Log a request that could not be read."""
    extra = {
        "request_id": request_id.decode("ascii"),
        "peer": peer,
        "status": error.status,
        "error": error.message,
    }
    log.info("request", extra=extra)
