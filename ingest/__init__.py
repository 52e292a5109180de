"""HTTP in, Kafka out: every event of a request becomes a record, and a 2xx means that Kafka has it.

`serve` runs the service inside a Trio program, `open_producer` the pipeline without HTTP, and
`ingest.testing` has producers that need no Kafka.
"""

from ingest.config import Config
from ingest.cors import CORS
from ingest.delivery import Delivery, Ledger
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
    UnsupportedCoding,
    UnsupportedMediaType,
    UploadTooSlow,
    VersionNotSupported,
)
from ingest.formats.seam import Batch, Bounds, Format, Head, Intent, Reader, StreamReader
from ingest.http.messages import Request, Response
from ingest.producer import Producer
from ingest.records import Alike, DeliveryReport, Receipt, Record
from ingest.route import Route
from ingest.routing import Match
from ingest.sections import HTTP, Compat, Limits, Log, Management, Shutdown, Timeouts, Topics, Tuning
from ingest.service import Server, open_producer, serve
from ingest.tally import Tally
from ingest.version import __version__ as __version__

__all__ = [
    "CORS",
    "HTTP",
    "Alike",
    "BadFraming",
    "BadRequest",
    "Batch",
    "Bounds",
    "Compat",
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
    "UnsupportedCoding",
    "UnsupportedMediaType",
    "UploadTooSlow",
    "VersionNotSupported",
    "open_producer",
    "serve",
]
