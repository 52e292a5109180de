"""What librdkafka tells of itself, asked of a system that passes it on."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path
from typing import NamedTuple


class Told(NamedTuple):
    """The newest that there is."""

    queue_records: float
    """Records that have no report yet."""
    round_trip_us: float | None
    """To the broker, the median; None where nothing was sent to one lately."""


def by_metrics(port: int) -> Told | None:
    """Of `ingest`, by its page of metrics; None where it has none yet, or is too busy to say."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    queue = re.search(r"^ingest_kafka_queue_records (\S+)", text, re.MULTILINE)
    trip = re.search(
        r'^ingest_kafka_broker_round_trip_seconds\{.*quantile="0\.5".*\} (\S+)', text, re.MULTILINE
    )
    return None if queue is None else Told(float(queue[1]), float(trip[1]) * 1e6 if trip else None)


def by_file(path: Path) -> Told | None:
    """Of a peer in Rust, by the file that its `--statistics` names; None where that has nothing yet.

    The fields are those of librdkafka's STATISTICS.md.
    """
    *lines, _begun = path.read_bytes().split(b"\n") if path.exists() else [b""]
    if not lines:
        return None
    statistics = json.loads(lines[-1])
    trips = [broker["rtt"]["p50"] for broker in statistics["brokers"].values() if broker["rtt"]["cnt"]]
    return Told(statistics["msg_cnt"], max(trips, default=None))
