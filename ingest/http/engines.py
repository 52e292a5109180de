"""The HTTP/1 engines by their names in the configuration.  All accept and refuse the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ingest.http import h11_protocol
from ingest.http.http1_protocol import HTTP1Protocol
from ingest.http.protocol import HTTPProtocol

ENGINES: dict[str, Callable[[], HTTPProtocol]] = {
    "builtin": HTTP1Protocol,
    "h11": partial(HTTP1Protocol, h11_protocol.parse_head),
}
"""Each makes the protocol of one connection."""

FASTEST = "builtin"
"""What `http.engine = "auto"` is."""


def engine(name: str) -> Callable[[], HTTPProtocol]:
    """The engine of `http.engine`."""
    return ENGINES[FASTEST if name == "auto" else name]
