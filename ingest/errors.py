"""Everything that can go wrong for a caller, as one tree of exceptions.

Each class knows the HTTP status, the `error_code`, whether anything was written, and whether
sending the same again can help.  The same objects serve as delivery reports (one record failed) and
as raised errors (the whole request failed).  `ConfigError` is apart: it never reaches a client.

This module does not know how an error is written down; `ingest.intake` has the one function for that.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Self


class Outcome(enum.Enum):
    """What is known about a record that has no receipt."""

    NOT_WRITTEN = "not_written"
    """Kafka does not have it; sending it again is safe."""
    UNKNOWN = "unknown"
    """Kafka may have it; sending it again may duplicate it."""


SHOWN_CHARACTERS = 200


def shown(text: str) -> str:
    """What of `text`, which can have names out of a request in it, is fit for a message."""
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS // 2] + " … " + text[-80:]


class IngestError(Exception):
    """A request or a record that did not get a receipt.

    `message` is for the caller of the service: it says what was wrong, with the value, and what
    would be right.
    """

    status: ClassVar[int] = 500
    """The HTTP status when the whole request fails with this error (RFC 9110, section 15)."""
    error_code: int = 50002
    """The number in the answer's content; Confluent REST Proxy's codes where it has one."""
    outcome: ClassVar[Outcome] = Outcome.NOT_WRITTEN
    retriable: ClassVar[bool] = False
    """Whether sending the same again can help."""
    closes: ClassVar[bool] = False
    """Whether the connection cannot go on after this error: its framing is lost."""

    def __init__(self, message: str, *, error_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if error_code is not None:
            self.error_code = error_code

    def alone(self) -> Self:
        """The same without what it came out of: its traceback would keep frames for as long as it is kept."""
        self.__context__ = None
        return self.with_traceback(None)


class ConfigError(Exception):
    """The configuration is wrong; the text names the option, its value and what would be right."""


# What the caller sent was wrong -------------------------------------------------------------------


class BadRequest(IngestError):
    """400: the request cannot be understood."""

    status = 400
    error_code = 400


class BadFraming(BadRequest):
    """400: RFC 9112 does not let the message's end be known; the connection closes."""

    closes = True


class InvalidRecord(BadRequest):
    """400: one record of a request is not what its format asks for."""

    error_code = 42206


class RecordRefused(BadRequest):
    """400: a broker refused the record itself (INVALID_RECORD, INVALID_TIMESTAMP, POLICY_VIOLATION)."""

    error_code = 40002


class TopicDenied(IngestError):
    """403: the topic is internal, or not on the allow-list."""

    status = 403
    error_code = 40301


class NotFound(IngestError):
    """404: nothing is served at this request target."""

    status = 404
    error_code = 404


class UnknownTopic(NotFound):
    """404: the cluster has no such topic."""

    error_code = 40401


class UnknownPartition(NotFound):
    """404: the topic has no such partition."""

    error_code = 40402


class MethodNotAllowed(IngestError):
    """405: the request target exists, but not for this method.  `allow` goes into the Allow field."""

    status = 405
    error_code = 405

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class UploadTooSlow(IngestError):
    """408: the head or the content did not arrive in time.  Lines already accepted keep their own outcome."""

    status = 408
    error_code = 408
    retriable = True
    closes = True


class LengthRequired(IngestError):
    """411: an HTTP/1.0 request has content of unknown length."""

    status = 411
    error_code = 411
    closes = True


class TooLarge(IngestError):
    """413: a body, a line or a record is larger than a limit; the message names the limit."""

    status = 413
    error_code = 413


class UnsupportedMediaType(IngestError):
    """415: no format reads this media type."""

    status = 415
    error_code = 415


class UnsupportedCoding(UnsupportedMediaType):
    """415: no reader of this content coding.  `accept` goes into the Accept-Encoding field (RFC 7694)."""

    def __init__(self, message: str, accept: str) -> None:
        super().__init__(message)
        self.accept = accept


class ExpectationFailed(IngestError):
    """417: the Expect field asks for something other than 100-continue."""

    status = 417
    error_code = 417


class Unprocessable(IngestError):
    """422: well-formed, but it makes no sense."""

    status = 422
    error_code = 422


class HeadTooLarge(IngestError):
    """431: the request head is over its limit of bytes or fields."""

    status = 431
    error_code = 431
    closes = True


class UnknownTransferCoding(IngestError):
    """501: a transfer coding before chunked that is not known here (RFC 9112, section 6.1)."""

    status = 501
    error_code = 501
    closes = True


class VersionNotSupported(IngestError):
    """505: an HTTP version other than 1.0 and 1.1."""

    status = 505
    error_code = 505
    closes = True


# It was right, but it could not be done now -------------------------------------------------------


class Overloaded(IngestError):
    """503: no room now, or taken back from the channel at the deadline.  Nothing was written."""

    status = 503
    error_code = 50301
    retriable = True


class Draining(Overloaded):
    """503: the service or the producer is closing and takes nothing new."""


class KafkaUnavailable(IngestError):
    """503: the brokers are known to be down, or they refuse our own credentials."""

    status = 503
    error_code = 50302
    retriable = True


class DeliveryUnknown(IngestError):
    """504: handed to Kafka, and no definite report came."""

    status = 504
    error_code = 50003
    outcome = Outcome.UNKNOWN
    retriable = True


class DeliveryFailed(IngestError):
    """500: Kafka reported an error that has no row of its own."""

    outcome = Outcome.UNKNOWN
