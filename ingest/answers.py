"""How answers are written: every error through one function, every success as JSON."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from ingest.errors import IngestError, MethodNotAllowed, UnsupportedCoding
from ingest.http.messages import Fields, Response
from ingest.records import DeliveryReport, Receipt

_JSON = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode
_WRITTEN = Response(204)


def error_body(error: IngestError) -> dict[str, Any]:
    """The members that tell a client about an error, everywhere the same."""
    return {
        "error_code": error.error_code,
        "message": error.message,
        "retriable": error.retriable,
        "outcome": error.outcome.value,
    }


def error_response(error: IngestError, extra: dict[str, Any] | None = None) -> Response:
    """The one function that turns an error into an answer."""
    fields: Fields = (_JSON,)
    if isinstance(error, MethodNotAllowed):
        fields += ((b"allow", error.allow.encode()),)
    if isinstance(error, UnsupportedCoding):
        fields += ((b"accept-encoding", error.accept.encode()),)
    if error.status == 503:
        # Spread out, so that clients that were refused together do not come back together.
        fields += ((b"retry-after", str(random.randint(1, 5)).encode()),)  # noqa: S311
    return json_response(error.status, error_body(error) | (extra or {}), fields, closes=error.closes)


def json_response(status: int, body: object, fields: Fields = (_JSON,), *, closes: bool = False) -> Response:
    """An answer with `body` as its JSON content."""
    return Response(status, fields, _encode(body) + b"\n", closes)


def record_response(report: DeliveryReport, *, minimal: bool) -> Response:
    """The answer for one record that has its report; without content where that is wanted and it is there."""
    if isinstance(report, Receipt):
        return _WRITTEN if minimal else Response(200, (_JSON,), _encode(report) + b"\n")
    # Not raised: reports are shared, and each raise would tie a request's frames to one.
    return error_response(report)


def queued_response(topic: str, *, minimal: bool) -> Response:
    """202: the record is in the pipeline, which promises memory and no more."""
    return Response(202) if minimal else json_response(202, {"topic": topic, "promise": "queued"})


def finished(response: Response, request_id: bytes, fields: Fields = ()) -> Response:
    """The answer, naming its request, and with fields beside its own."""
    return Response(response.status, response.fields + fields, response.content, response.closes, request_id)
