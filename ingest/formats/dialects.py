"""Whose answers REST Proxy v2 gives: the words of Confluent's server, of Karapace and of Strimzi's bridge.

One function each writes what became of a record; None is one that is in memory, for a 202.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ingest.errors import DeliveryUnknown, IngestError, Outcome, UnknownPartition, UnknownTopic
from ingest.records import DeliveryReport, Receipt
from ingest.route import Dialect

_encode = msgspec.json.Encoder().encode


def _confluent(report: DeliveryReport | None) -> bytes:
    if isinstance(report, Receipt):
        return b'{"partition":%d,"offset":%d,"error_code":null,"error":null}' % (
            report.partition,
            report.offset,
        )
    if report is None:
        return b'{"partition":null,"offset":null,"error_code":null,"error":null}'
    # What Java's clients take for retriable: UnknownTopicOrPartitionException is, too.
    again = report.retriable or isinstance(report, UnknownTopic | UnknownPartition)
    code = 50003 if again else 50002
    return b'{"partition":null,"offset":null,"error_code":%d,"error":%b}' % (code, _encode(report.message))


def _karapace(report: DeliveryReport | None) -> bytes:
    if isinstance(report, Receipt):
        return b'{"partition":%d,"offset":%d}' % (report.partition, report.offset)
    if report is None:
        return b'{"partition":null,"offset":null}'
    return b'{"error_code":%d,"error":%b}' % (2 if report.retriable else 1, _encode(report.message))


def _strimzi(report: DeliveryReport | None) -> bytes:
    if isinstance(report, Receipt):
        return b'{"partition":%d,"offset":%d}' % (report.partition, report.offset)
    if report is None:
        return b'{"partition":null,"offset":null}'
    code = 404 if report.status == 404 else 500
    return b'{"error_code":%d,"message":%b}' % (code, _encode(report.message))


WRITERS: dict[Dialect, Callable[[DeliveryReport | None], bytes]] = {
    "confluent": _confluent,
    "karapace": _karapace,
    "strimzi": _strimzi,
}


def spokesman(failures: Sequence[IngestError]) -> IngestError:
    """The failure whose status all get: if one may have been written, that; else the most serious."""
    for failure in failures:
        if failure.outcome is Outcome.UNKNOWN:
            return failure if failure.status == 504 else DeliveryUnknown(failure.message)
    return max(failures, key=lambda failure: failure.status)
