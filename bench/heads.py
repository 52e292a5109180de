"""What it costs to take one request head apart, and to hold it against the rules first.

python -m bench.heads          (from the root of a clone; httptools is measured where it is installed)
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial

from ingest.http.h11_protocol import parse_head
from ingest.http.heads import read_head
from ingest.http.http1_protocol import split_head

HEAD = (
    b"POST /clicks HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: wrk\r\n"
    b"Content-Type: application/json\r\nContent-Length: 200\r\n\r\n"
)
CALLS = 20_000
ROUNDS = 5


def httptools_head() -> Callable[[bytes], object] | None:
    """httptools, taking the same parts out of a head; None where it is not installed."""
    try:
        import httptools
    except ImportError:
        return None

    class Head:
        def __init__(self) -> None:
            self.target = b""
            self.fields: list[tuple[bytes, bytes]] = []

        def on_url(self, target: bytes) -> None:
            self.target = target

        def on_header(self, name: bytes, value: bytes) -> None:
            self.fields.append((name.lower(), value))

    def parse(head: bytes) -> object:
        parts = Head()
        parser = httptools.HttpRequestParser(parts)
        parser.feed_data(head)
        return parser.get_method(), parts.target, tuple(parts.fields)

    return parse


def main() -> None:
    """Print microseconds a head for each, the best of some rounds."""
    candidates: dict[str, Callable[[bytes], object] | None] = {
        "the rules (read_head)": read_head,
        "built-in (split_head)": split_head,
        "httptools": httptools_head(),
        "h11": parse_head,
    }
    for name, function in candidates.items():
        if function is None:
            print(f"{name}: not installed")
            continue
        assert name.startswith("the rules") or function(HEAD) == split_head(HEAD)
        seconds = min(timeit.repeat(partial(function, HEAD), number=CALLS, repeat=ROUNDS)) / CALLS
        print(f"{name}: {seconds * 1e6:.2f} µs")


if __name__ == "__main__":
    main()
