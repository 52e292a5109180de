"""KafkaError in, IngestError out: the one table of what Kafka's errors mean to a caller.

`KafkaError.retriable()` is not asked: it is False for `_MSG_TIMED_OUT`.  `not_written` is said only of
what a broker definitely rejected or `produce()` refused.
"""

from __future__ import annotations

from confluent_kafka import KafkaError

from ingest.errors import (
    BadRequest,
    DeliveryFailed,
    DeliveryUnknown,
    IngestError,
    KafkaUnavailable,
    RecordRefused,
    TooLarge,
    UnknownPartition,
    UnknownTopic,
)

_TIMED_OUT = "no acknowledgement within [kafka] message.timeout.ms"
_REFUSES_US = "Kafka refuses this service's own credentials or permissions"
_PRODUCER_FAILED = "the producer has failed and is being replaced"

# librdkafka's own codes are negative, those of the protocol positive; both are attributes of KafkaError
# (https://kafka.apache.org/protocol#protocol_error_codes, librdkafka's rdkafka.h).
_TABLE: dict[int, tuple[type[IngestError], str]] = {
    # A broker, or librdkafka before it sent anything, rejected the record.
    KafkaError.MSG_SIZE_TOO_LARGE: (TooLarge, "the record is larger than the topic's max.message.bytes"),
    KafkaError.RECORD_LIST_TOO_LARGE: (TooLarge, "the batch is larger than the topic's segment.bytes"),
    KafkaError.INVALID_RECORD: (RecordRefused, "Kafka refused the record as invalid for this topic"),
    KafkaError._INVALID_DIFFERENT_RECORD: (RecordRefused, "Kafka refused another record of its batch"),
    KafkaError.INVALID_TIMESTAMP: (RecordRefused, "Kafka refused the record's timestamp"),
    KafkaError.POLICY_VIOLATION: (RecordRefused, "a policy of the Kafka cluster refused the record"),
    KafkaError.UNKNOWN_TOPIC_OR_PART: (UnknownTopic, "the topic, or this partition of it, does not exist"),
    KafkaError._UNKNOWN_TOPIC: (UnknownTopic, "the topic does not exist"),
    KafkaError._UNKNOWN_PARTITION: (UnknownPartition, "the topic has no such partition"),
    KafkaError.TOPIC_EXCEPTION: (BadRequest, "Kafka refused the topic's name"),
    KafkaError._INVALID_ARG: (BadRequest, "librdkafka refused the record as invalid"),
    # Kafka refuses this service, whoever the caller is.
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (KafkaUnavailable, _REFUSES_US),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: (KafkaUnavailable, _REFUSES_US),
    KafkaError.SASL_AUTHENTICATION_FAILED: (KafkaUnavailable, _REFUSES_US),
    KafkaError._AUTHENTICATION: (KafkaUnavailable, _REFUSES_US),
    # It left, and nobody can say whether it arrived.
    KafkaError._MSG_TIMED_OUT: (DeliveryUnknown, _TIMED_OUT),
    KafkaError._TIMED_OUT: (DeliveryUnknown, _TIMED_OUT),
    KafkaError.REQUEST_TIMED_OUT: (DeliveryUnknown, _TIMED_OUT),
    KafkaError._TIMED_OUT_QUEUE: (DeliveryUnknown, _TIMED_OUT),
    KafkaError._PURGE_QUEUE: (DeliveryUnknown, "given up while it waited for Kafka"),
    KafkaError._PURGE_INFLIGHT: (DeliveryUnknown, "given up while it was on its way to Kafka"),
    KafkaError._TRANSPORT: (DeliveryUnknown, "the connection to Kafka broke"),
    KafkaError._ALL_BROKERS_DOWN: (DeliveryUnknown, "all brokers went down"),
    KafkaError.NETWORK_EXCEPTION: (DeliveryUnknown, "the connection to Kafka broke"),
    KafkaError.NOT_ENOUGH_REPLICAS: (DeliveryUnknown, "too few replicas are in sync"),
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: (
        DeliveryUnknown,
        "too few replicas were in sync after writing",
    ),
    # A producer that failed for good.
    KafkaError._FATAL: (DeliveryUnknown, _PRODUCER_FAILED),
    KafkaError._DESTROY: (DeliveryUnknown, _PRODUCER_FAILED),
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER: (DeliveryUnknown, _PRODUCER_FAILED),
    KafkaError.INVALID_PRODUCER_EPOCH: (DeliveryUnknown, _PRODUCER_FAILED),
    KafkaError.INVALID_PRODUCER_ID_MAPPING: (DeliveryUnknown, _PRODUCER_FAILED),
    KafkaError.UNKNOWN_PRODUCER_ID: (DeliveryUnknown, _PRODUCER_FAILED),
    KafkaError.PRODUCER_FENCED: (DeliveryUnknown, _PRODUCER_FAILED),
    KafkaError._FENCED: (DeliveryUnknown, _PRODUCER_FAILED),
}


def delivery_error(error: KafkaError) -> IngestError:
    """What a delivery report's error means to the caller."""
    kind, words = _TABLE.get(error.code(), (DeliveryFailed, "Kafka could not write the record"))
    return kind(f"{words} ({error.name()})")


def is_of_a_batch(error: KafkaError) -> bool:
    """Whether a broker refused a batch with it, which can be one record's fault, or the batch's own size."""
    return issubclass(_TABLE.get(error.code(), (DeliveryFailed, ""))[0], RecordRefused | TooLarge)


def refusal(error: KafkaError) -> IngestError:
    """What an error raised by `produce()` means: librdkafka never had the record, so it was not written."""
    answer = delivery_error(error)
    if isinstance(answer, DeliveryUnknown | DeliveryFailed):
        return KafkaUnavailable(answer.message)
    if isinstance(answer, TooLarge):
        return TooLarge(f"the record is larger than [kafka] message.max.bytes ({error.name()})")
    return answer
