"""HTTP in, Kafka out: every event of a request becomes a record, and a 2xx means that Kafka has it.

`serve` runs the service inside a Trio program, `open_producer` the pipeline without HTTP, and
`ingest.testing` has producers that need no Kafka.
"""

from ingest.config import HTTP, Config, Limits, Log, Management, Route, Shutdown, Timeouts, Topics, Tuning
from ingest.errors import (
    BadFraming,
    BadRequest,
    ConfigError,
    DeliveryFailed,
    DeliveryUnknown,
    Draining,
    ExpectationFailed,
    HeadTooLarge,
    IngestError,
    InvalidRecord,
    KafkaUnavailable,
    LengthRequired,
    MethodNotAllowed,
    NotFound,
    Outcome,
    Overloaded,
    RecordRefused,
    TooLarge,
    TopicDenied,
    UnknownPartition,
    UnknownTopic,
    UnknownTransferCoding,
    Unprocessable,
    UnsupportedMediaType,
    UploadTooSlow,
    VersionNotSupported,
)
from ingest.producer import Delivery, Ledger, Producer
from ingest.records import DeliveryReport, Receipt, Record
from ingest.service import Server, open_producer, serve

__version__ = "0.1.0"

__all__ = [
    "HTTP",
    "BadFraming",
    "BadRequest",
    "Config",
    "ConfigError",
    "Delivery",
    "DeliveryFailed",
    "DeliveryReport",
    "DeliveryUnknown",
    "Draining",
    "ExpectationFailed",
    "HeadTooLarge",
    "IngestError",
    "InvalidRecord",
    "KafkaUnavailable",
    "Ledger",
    "LengthRequired",
    "Limits",
    "Log",
    "Management",
    "MethodNotAllowed",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Producer",
    "Receipt",
    "Record",
    "RecordRefused",
    "Route",
    "Server",
    "Shutdown",
    "Timeouts",
    "TooLarge",
    "TopicDenied",
    "Topics",
    "Tuning",
    "UnknownPartition",
    "UnknownTopic",
    "UnknownTransferCoding",
    "Unprocessable",
    "UnsupportedMediaType",
    "UploadTooSlow",
    "VersionNotSupported",
    "open_producer",
    "serve",
]
