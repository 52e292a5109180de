"""Several processes' metrics as one: each sends its families, and they are added up here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct
from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from ingest.metrics import METRICS, OTHER

_Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name, and its labels with their values."""

_NOT_ADDED: Mapping[str, Callable[[float, float], float]] = {
    "ingest_build": max,
    "ingest_kafka_broker_connected": max,
    "ingest_kafka_broker_round_trip_seconds": max,
    "process_start_time_seconds": min,
}
"""How the values of two processes become one, where it is not their sum."""
_OWN = frozenset({"ingest_ready"})
"""What is known of all of them together alone."""
_GROWING = ("counter", "histogram")
(_RECORDS,) = (metric for metric in METRICS if metric.name == "ingest_records_total")


class Family(Struct, array_like=True, frozen=True):
    """A metric with its samples, as it goes from one process to another."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, dict[str, str], float]]
    """Name, labels and value of each."""


def read_families(collectors: Iterable[Collector]) -> list[Family]:
    """What collectors give now."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [(each.name, dict(each.labels), float(each.value)) for each in metric.samples],
        )
        for collector in collectors
        for metric in collector.collect()
    ]


class Sums(Collector):
    """The metrics of processes that are there, and what grew in those that are gone."""

    def __init__(self, *own: Collector) -> None:
        """`own` are added too: those of the process that adds."""
        self._own = own
        self._last: dict[int, list[Family]] = {}
        self._ended: dict[str, Family] = {}

    def put(self, process: int, families: list[Family]) -> None:
        """Take what a process, known by a number, sent last."""
        self._last[process] = families

    def end(self, process: int, pending: int = 0) -> None:
        """Keep of a process only what may not shrink; what became of its `pending` records is unknown."""
        growing = [each for each in self._last.pop(process, []) if each.kind in _GROWING]
        if pending:
            sample = (_RECORDS.name, {"topic": OTHER, "result": "unknown"}, float(pending))
            name = _RECORDS.name.removesuffix("_total")
            growing.append(Family(name, _RECORDS.kind, _RECORDS.help, [sample]))
        self._ended = _added([*self._ended.values(), *growing])

    def collect(self) -> Iterator[Metric]:
        """All families, in the order of their first process."""
        there = [family for families in self._last.values() for family in families]
        there += read_families(self._own)
        for family in _added([*there, *self._ended.values()]).values():
            metric = Metric(family.name, family.help, family.kind)
            for name, labels, value in family.samples:
                metric.samples.append(Sample(name, labels, value))
            yield metric


def _sum(one: float, other: float) -> float:
    return one + other


def _added(families: Iterable[Family]) -> dict[str, Family]:
    heads: dict[str, Family] = {}
    values: dict[str, dict[_Key, float]] = {}
    for family in families:
        if family.name in _OWN:
            continue
        heads.setdefault(family.name, family)
        own = values.setdefault(family.name, {})
        add = _NOT_ADDED.get(family.name, _sum)
        for name, labels, value in family.samples:
            key = name, tuple(labels.items())
            own[key] = add(own[key], value) if key in own else value
    return {
        name: Family(
            name,
            head.kind,
            head.help,
            [(sample, dict(labels), value) for (sample, labels), value in values[name].items()],
        )
        for name, head in heads.items()
    }
