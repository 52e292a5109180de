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
from ingest.formats.seam import Batch, Bounds, Format, Head, Intent, Reader, StreamReader
from ingest.http.messages import Request, Response
from ingest.producer import Delivery, Ledger, Producer
from ingest.records import Alike, DeliveryReport, Receipt, Record
from ingest.routing import Match
from ingest.service import Server, open_producer, serve
from ingest.tally import Tally

__version__ = "0.1.0"

__all__ = [
    "HTTP",
    "Alike",
    "BadFraming",
    "BadRequest",
    "Batch",
    "Bounds",
    "Config",
    "ConfigError",
    "Delivery",
    "DeliveryFailed",
    "DeliveryReport",
    "DeliveryUnknown",
    "Draining",
    "ExpectationFailed",
    "Format",
    "Head",
    "HeadTooLarge",
    "IngestError",
    "Intent",
    "InvalidRecord",
    "KafkaUnavailable",
    "Ledger",
    "LengthRequired",
    "Limits",
    "Log",
    "Management",
    "Match",
    "MethodNotAllowed",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Producer",
    "Reader",
    "Receipt",
    "Record",
    "RecordRefused",
    "Request",
    "Response",
    "Route",
    "Server",
    "Shutdown",
    "StreamReader",
    "Tally",
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
