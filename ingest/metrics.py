"""What is counted while requests are served, and the name, the labels and the meaning of every metric.

Counting is on a request's way, so it is plain numbers in plain containers; `ingest.management.exposition`
makes Prometheus' text of them when somebody asks.  Names follow one rule: `ingest_`, what it is, its
unit (`seconds`, `bytes`, `records`, `requests`), `_total` where it only grows, and `_limit` for the most
that a gauge of the same name can reach.  No label has more values than are said here, whatever clients
send.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ingest.errors import IngestError

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of a histogram's buckets, in seconds."""
MOST_TOPICS = 100
MOST_ROUTES = 16
MOST_BROKERS = 32
"""How many values of a label have series of their own; what is beyond is counted as `OTHER`, or left out."""
OTHER = "(other)"
NO_ROUTE = "(none)"
"""Neither can be a topic's name or a path."""


class Metric(NamedTuple):
    """One row of `METRICS`."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    help: str


METRICS = (
    Metric("ingest_http_requests_total", "counter", ("route", "code"), "Requests by status; 0 is none."),
    Metric(
        "ingest_http_request_duration_seconds",
        "histogram",
        (),
        "From a request's head to its answer, its content included.",
    ),
    Metric(
        "ingest_rejected_total",
        "counter",
        ("reason",),
        "Requests refused whole, look-ups too, by what was wrong.",
    ),
    Metric("ingest_records_total", "counter", ("topic", "result"), "Records with their final report."),
    Metric("ingest_records_accepted_total", "counter", (), "Records let in."),
    Metric(
        "ingest_records_lost_total",
        "counter",
        (),
        "Queued records that Kafka did not acknowledge after their answer.",
    ),
    Metric(
        "ingest_delivery_seconds", "histogram", (), "From the queue to the reports of a request's records."
    ),
    Metric("ingest_held_bytes", "gauge", (), "Bytes held for what has no answer or no report yet."),
    Metric("ingest_held_bytes_limit", "gauge", (), "Bytes held at most: limits.held_bytes."),
    Metric("ingest_queue_records", "gauge", (), "Records let in and without a report, librdkafka's too."),
    Metric(
        "ingest_queue_records_limit", "gauge", (), "Records for which limits.held_bytes has room at most."
    ),
    Metric("ingest_connections", "gauge", (), "Connections open."),
    Metric("ingest_connections_limit", "gauge", (), "Connections open at most."),
    Metric("ingest_ready", "gauge", (), "1 while records can be taken."),
    Metric("ingest_kafka_queue_records", "gauge", (), "Records in librdkafka's queues."),
    Metric("ingest_kafka_queue_records_limit", "gauge", (), "Records in librdkafka's queues at most."),
    Metric("ingest_kafka_queue_bytes", "gauge", (), "Bytes of the records in librdkafka's queues."),
    Metric("ingest_kafka_queue_bytes_limit", "gauge", (), "Bytes in librdkafka's queues at most."),
    Metric("ingest_kafka_broker_connected", "gauge", ("broker",), "1 while there is a connection."),
    Metric(
        "ingest_kafka_broker_round_trip_seconds",
        "gauge",
        ("broker", "quantile"),
        "How long a broker took to answer, in the last interval of statistics.",
    ),
    Metric("ingest_workers", "gauge", (), "Processes that serve; only where there are several."),
    Metric(
        "ingest_workers_ready", "gauge", (), "Processes that can take records; only where there are several."
    ),
    Metric("ingest_workers_limit", "gauge", (), "Processes that are to serve; only where there are several."),
    Metric("ingest_workers_ended_total", "counter", (), "Processes that ended without being told to."),
    Metric("ingest_build_info", "info", ("version",), "The version that runs."),
)


class Histogram:
    """How many values lie in each bucket, and their sum."""

    __slots__ = ("counts", "sum_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """By bucket, not summed up; the last is for what is above every bound."""
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum_seconds += seconds


@dataclass(slots=True)
class TopicCounts:
    """What became of a topic's records."""

    delivered: int = 0
    failed: int = 0
    unknown: int = 0


class Metrics:
    """What one service counts of its requests."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        """By the route's path and the status; both are ours, so they are few."""
        self.request_seconds = Histogram()
        self.rejected: dict[type[IngestError], int] = {}

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended; `status` 0 is one without an answer."""
        key = (route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.request_seconds.observe(seconds)

    def count_rejected(self, error: IngestError) -> None:
        """Count a request that was refused whole."""
        kind = type(error)
        self.rejected[kind] = self.rejected.get(kind, 0) + 1
