from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from ingest.errors import (
    BadRequest,
    DeliveryFailed,
    DeliveryUnknown,
    IngestError,
    KafkaUnavailable,
    Outcome,
    RecordRefused,
    TooLarge,
    UnknownPartition,
    UnknownTopic,
)
from ingest.kafka.reports import delivery_error, refusal
from tests.mock_kafka import code

# Written by hand from the error table of what goes over HTTP: name, class, status, error_code, outcome.
REPORTS: list[tuple[str, type[IngestError], int, int, str]] = [
    ("MSG_SIZE_TOO_LARGE", TooLarge, 413, 413, "not_written"),
    ("RECORD_LIST_TOO_LARGE", TooLarge, 413, 413, "not_written"),
    ("INVALID_RECORD", RecordRefused, 400, 40002, "not_written"),
    ("INVALID_TIMESTAMP", RecordRefused, 400, 40002, "not_written"),
    ("_INVALID_DIFFERENT_RECORD", RecordRefused, 400, 40002, "not_written"),
    ("POLICY_VIOLATION", RecordRefused, 400, 40002, "not_written"),
    ("UNKNOWN_TOPIC_OR_PART", UnknownTopic, 404, 40401, "not_written"),
    ("_UNKNOWN_TOPIC", UnknownTopic, 404, 40401, "not_written"),
    ("_UNKNOWN_PARTITION", UnknownPartition, 404, 40402, "not_written"),
    ("TOPIC_EXCEPTION", BadRequest, 400, 400, "not_written"),
    ("_INVALID_ARG", BadRequest, 400, 400, "not_written"),
    ("TOPIC_AUTHORIZATION_FAILED", KafkaUnavailable, 503, 50302, "not_written"),
    ("CLUSTER_AUTHORIZATION_FAILED", KafkaUnavailable, 503, 50302, "not_written"),
    ("SASL_AUTHENTICATION_FAILED", KafkaUnavailable, 503, 50302, "not_written"),
    ("_AUTHENTICATION", KafkaUnavailable, 503, 50302, "not_written"),
    ("_MSG_TIMED_OUT", DeliveryUnknown, 504, 50003, "unknown"),
    ("_TIMED_OUT", DeliveryUnknown, 504, 50003, "unknown"),
    ("_TIMED_OUT_QUEUE", DeliveryUnknown, 504, 50003, "unknown"),
    ("REQUEST_TIMED_OUT", DeliveryUnknown, 504, 50003, "unknown"),
    ("_PURGE_QUEUE", DeliveryUnknown, 504, 50003, "unknown"),
    ("_PURGE_INFLIGHT", DeliveryUnknown, 504, 50003, "unknown"),
    ("_TRANSPORT", DeliveryUnknown, 504, 50003, "unknown"),
    ("_ALL_BROKERS_DOWN", DeliveryUnknown, 504, 50003, "unknown"),
    ("NETWORK_EXCEPTION", DeliveryUnknown, 504, 50003, "unknown"),
    ("NOT_ENOUGH_REPLICAS", DeliveryUnknown, 504, 50003, "unknown"),
    ("NOT_ENOUGH_REPLICAS_AFTER_APPEND", DeliveryUnknown, 504, 50003, "unknown"),
    ("_FATAL", DeliveryUnknown, 504, 50003, "unknown"),
    ("OUT_OF_ORDER_SEQUENCE_NUMBER", DeliveryUnknown, 504, 50003, "unknown"),
    ("INVALID_PRODUCER_EPOCH", DeliveryUnknown, 504, 50003, "unknown"),
    ("UNKNOWN_PRODUCER_ID", DeliveryUnknown, 504, 50003, "unknown"),
    # A row of its own has none of these.
    ("UNKNOWN", DeliveryFailed, 500, 50002, "unknown"),
    ("INVALID_REQUIRED_ACKS", DeliveryFailed, 500, 50002, "unknown"),
    ("KAFKA_STORAGE_ERROR", DeliveryFailed, 500, 50002, "unknown"),
    ("_FAIL", DeliveryFailed, 500, 50002, "unknown"),
]


@pytest.mark.parametrize(("name", "kind", "status", "error_code", "outcome"), REPORTS)
def test_what_a_delivery_report_says(
    name: str, kind: type[IngestError], status: int, error_code: int, outcome: str
) -> None:
    error = delivery_error(KafkaError(code(name)))
    assert type(error) is kind
    assert (error.status, error.error_code, error.outcome.value) == (status, error_code, outcome)
    assert error.message.endswith(f" ({name})")


@pytest.mark.parametrize("name", [row[0] for row in REPORTS])
def test_what_produce_refuses_was_not_written(name: str) -> None:
    error = refusal(KafkaError(code(name)))
    assert error.outcome is Outcome.NOT_WRITTEN
    assert name in error.message


def test_a_record_that_produce_finds_too_large_names_the_setting() -> None:
    assert "[kafka] message.max.bytes" in refusal(KafkaError(code("MSG_SIZE_TOO_LARGE"))).message


def test_every_error_of_the_library_has_an_answer() -> None:
    numbers = {value for name in dir(KafkaError) if name.isupper() and isinstance(value := code(name), int)}
    assert len(numbers) > 150
    for number in numbers:
        error = delivery_error(KafkaError(number))
        assert 400 <= error.status < 600
        # What is definitely not written is a thing of the record or of our permissions, or has a row.
        if error.outcome is Outcome.NOT_WRITTEN:
            assert error.error_code in (400, 413, 40002, 40401, 40402, 50302)
