"""What it costs to make records of content: NDJSON, and the envelope of REST Proxy v2 with the same values.

python -m bench.envelopes          (from the root of a clone)
"""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable

from ingest.config import Config
from ingest.formats.seam import Batch, Bounds, Reader, StreamReader
from ingest.formats.table import built_in
from ingest.http.messages import Request
from ingest.intent import read_intent
from ingest.route import Route
from ingest.routing import Router

RECORDS, SIZE_BYTES = 100, 200
CALLS = 2_000
ROUNDS = 5
FORMATS = built_in(Config())
ROUTER = Router([Route("/topics/{topic}/records")])
BOUNDS = Bounds(1_000_000, 1 << 20, 16 << 20, 64 << 20)


def value(number: int) -> bytes:
    """One value of `SIZE_BYTES`."""
    start = json.dumps({"id": number, "user": {"name": "ann", "tags": ["a", "b"]}, "text": ""}).encode()
    return start[:-2] + b"x" * (SIZE_BYTES - len(start)) + start[-2:]


def opener(media_type: str) -> Callable[[], Reader | StreamReader]:
    """What opens a reader of a request of this media type, whose head was read before."""
    asked = Request(
        "POST", b"/topics/t/records", b"1.1", ((b"content-type", media_type.encode()),), content_length=0
    )
    intent = read_intent(asked, ROUTER.match(asked.method, asked.target), FORMATS)
    return lambda: intent.format.open(intent, BOUNDS)


def main() -> None:
    """Print microseconds a request for each, the best of some rounds, and their ratio."""
    values = [value(number) for number in range(RECORDS)]
    lines = b"".join(each + b"\n" for each in values)
    envelope = b'{"records":[' + b",".join(b'{"value":' + each + b"}" for each in values) + b"]}"
    open_lines = opener("application/x-ndjson")
    open_envelope = opener("application/vnd.kafka.json.v2+json")

    def read_lines() -> list[Batch]:
        reader = open_lines()
        assert isinstance(reader, StreamReader)
        return [*reader.feed(lines), *reader.end()]

    def read_envelope() -> list[Batch]:
        reader = open_envelope()
        assert isinstance(reader, Reader)
        return [reader.read(envelope)]

    found = []
    for name, read in (("NDJSON", read_lines), ("REST Proxy v2", read_envelope)):
        assert [record.value for batch in read() for record in batch.records] == values
        seconds = min(timeit.repeat(read, number=CALLS, repeat=ROUNDS)) / CALLS
        found.append(seconds)
        print(f"{name}: {seconds * 1e6:.1f} µs for {RECORDS} records of {SIZE_BYTES} bytes")
    print(f"ratio: {found[1] / found[0]:.2f}")


if __name__ == "__main__":
    main()
