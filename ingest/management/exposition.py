"""What was counted, as Prometheus' families and text.  Made when somebody asks, and only then."""

from __future__ import annotations

import importlib.metadata
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, islice

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ingest.delivery import Ledger
from ingest.errors import IngestError
from ingest.kafka.statistics import BrokerStatistics, Statistics
from ingest.metrics import BOUNDS, METRICS, MOST_BROKERS, MOST_ROUTES, OTHER, Histogram, Metrics

TEXT_SECONDS = 1.0
"""How long a text is given again: building one takes many milliseconds, in which nothing else runs."""
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
"""What asks for OpenMetrics, in the version that is given."""

_MICROSECONDS = 1e-6

Samples = Mapping[tuple[str, ...], float]
"""A value for each combination of the labels' values."""


class ServiceCollector(Collector):
    """Every metric of one service, for a registry of prometheus-client's."""

    def __init__(
        self,
        metrics: Metrics,
        ledger: Ledger,
        gauges: Mapping[str, Callable[[], float]],
        statistics: Callable[[], Statistics | None],
    ) -> None:
        """`gauges` gives the value of each gauge that has no labels; `statistics` librdkafka's last."""
        self._metrics = metrics
        self._ledger = ledger
        self._gauges = gauges
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """The families of `ingest.metrics.METRICS`; without statistics yet, less librdkafka's."""
        values = self._values()
        histograms = {
            "ingest_http_request_duration_seconds": self._metrics.request_seconds,
            "ingest_delivery_seconds": self._ledger.delivery_seconds,
        }
        for name, kind, labels, text in METRICS:
            if kind == "histogram":
                histogram = histograms[name]
                yield HistogramMetricFamily(name, text, _buckets(histogram), histogram.sum_seconds)
            elif kind == "info":
                yield InfoMetricFamily(name.removesuffix("_info"), text, {"version": _version()})
            elif name in values:
                yield _family(name, kind, labels, text, values[name])

    def _values(self) -> dict[str, Samples]:
        ledger = self._ledger
        values: dict[str, Samples] = {
            "ingest_http_requests_total": self._requests(),
            "ingest_rejected_total": self._rejected(),
            "ingest_records_total": {
                (topic, result): getattr(counts, result)
                for topic, counts in ledger.topics.items()
                for result in ("delivered", "failed", "unknown")
            },
            "ingest_records_accepted_total": {(): ledger.accepted},
            "ingest_records_lost_total": {(): ledger.lost},
            "ingest_queue_records": {(): ledger.pending},
        }
        for name, value in self._gauges.items():
            values[name] = {(): value()}
        statistics = self._statistics()
        return values if statistics is None else values | _kafka(statistics)

    def _requests(self) -> Samples:
        counts: dict[tuple[str, ...], float] = {}
        own: dict[str, None] = {}
        for (route, status), count in self._metrics.requests.items():
            if route in own or len(own) < MOST_ROUTES:
                own[route] = None
            else:
                route = OTHER
            key = (route, str(status))
            counts[key] = counts.get(key, 0) + count
        return counts

    def _rejected(self) -> Samples:
        counts: dict[tuple[str, ...], float] = {}
        for kind, count in self._metrics.rejected.items():
            key = (_reason(kind),)
            counts[key] = counts.get(key, 0) + count
        return counts


class ValueCollector(Collector):
    """Some of `ingest.metrics.METRICS` that have no labels, each read when somebody asks."""

    def __init__(self, values: Mapping[str, Callable[[], float]]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        """The families, in the order of the table."""
        for name, kind, labels, text in METRICS:
            if name in self._values:
                yield _family(name, kind, labels, text, {(): self._values[name]()})


def _family(name: str, kind: str, labels: tuple[str, ...], text: str, samples: Samples) -> Metric:
    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
    for own, value in samples.items():
        family.add_metric(own, value)
    return family


Registry = CollectorRegistry


def process_collector() -> Collector:
    """The metrics of this process: its memory, processor time and open files."""
    return ProcessCollector(registry=None)


def open_registry(*collectors: Collector) -> Registry:
    """A registry of its own with these metrics and those of the interpreter."""
    registry = Registry(auto_describe=False)
    for each in (*collectors, PlatformCollector(registry=None)):
        registry.register(each)
    return registry


class Exposition:
    """A registry's text, Prometheus' own or OpenMetrics."""

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds."""
        self._registry = registry
        self._clock = clock
        self._built: dict[str, tuple[float, bytes, str]] = {}

    def text(self, accept: str) -> tuple[bytes, str]:
        """The text that an Accept field asks for, and its media type; up to `TEXT_SECONDS` old."""
        # prometheus-client raises for a version that is none, and gives one it does not know back, so it
        # is not shown what a client has written.
        wanted = OPENMETRICS if _accepts_openmetrics(accept) else ""
        built_at, text, media_type = self._built.get(wanted, (-math.inf, b"", ""))
        now = self._clock()
        if now - built_at >= TEXT_SECONDS:
            encode, media_type = choose_encoder(wanted)
            text = encode(self._registry)
            self._built[wanted] = now, text, media_type
        return text, media_type


def _accepts_openmetrics(accept: str) -> bool:
    for accepted in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in accepted.split(";"))
        versions = [each for each in parameters if each.startswith("version=")]
        if media_type == "application/openmetrics-text" and versions in ([], ["version=1.0.0"]):
            return True
    return False


def _kafka(statistics: Statistics) -> dict[str, Samples]:
    brokers = dict(islice(_brokers(statistics), MOST_BROKERS))
    return {
        "ingest_kafka_queue_records": {(): statistics.msg_cnt},
        "ingest_kafka_queue_records_limit": {(): statistics.msg_max},
        "ingest_kafka_queue_bytes": {(): statistics.msg_size},
        "ingest_kafka_queue_bytes_limit": {(): statistics.msg_size_max},
        "ingest_kafka_broker_connected": {(name,): broker.state == "UP" for name, broker in brokers.items()},
        "ingest_kafka_broker_round_trip_seconds": {
            (name, quantile): microseconds * _MICROSECONDS
            for name, broker in brokers.items()
            if broker.rtt.cnt
            for quantile, microseconds in (("0.5", broker.rtt.p50), ("0.99", broker.rtt.p99))
        },
    }


def _brokers(statistics: Statistics) -> Iterator[tuple[str, BrokerStatistics]]:
    """The brokers by their address: those the cluster told of, or while it has not, those configured."""
    for source in ("learned", "configured"):
        found = [each for each in statistics.brokers.values() if each.source == source]
        if found:
            yield from ((each.nodename, each) for each in sorted(found, key=lambda each: each.nodeid))
            return


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))


def _reason(kind: type[IngestError]) -> str:
    """`too_large` for TooLarge; for a class of somebody else's, the name of ours that it is made from."""
    ours = next(each for each in kind.__mro__ if each.__module__ == IngestError.__module__)
    return re.sub(r"(?<!^)(?=[A-Z])", "_", ours.__name__).lower()


def _version() -> str:
    return importlib.metadata.version("ingest")
