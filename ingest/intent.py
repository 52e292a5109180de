"""What a request's head asks for: topic, key, headers, promise.  Nothing of its content is looked at."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ingest.errors import UnsupportedCoding, UnsupportedMediaType
from ingest.formats.seam import Format, Head, Intent
from ingest.http.codings import is_coded, read_coding
from ingest.http.messages import Fields, Request
from ingest.routing import Match

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


def request_id(request: Request) -> bytes | None:
    """The id that the client gave the request, if it is fit to be logged and sent back."""
    given = request.field(b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def read_intent(request: Request, match: Match, formats: Sequence[Format], fields: Fields = ()) -> Intent:
    """Everything the head says.  `fields` are what every answer to it has beside its own.

    The format is the one that the route names, else the first of `formats` to claim the request.

    Raises `BadRequest` for a field that cannot be meant, `UnsupportedMediaType` for content that nothing
    here reads, and `UnsupportedCoding`.
    """
    head = Head(request, match, _media_type(request))
    route = match.route
    format_ = _format(head, formats)
    preferences = _preferences(request)
    like = format_.like(head)
    asked = route.respond_async and ("respond-async" in preferences or format_.asks_for_queued(head))
    return Intent(
        match,
        head.media_type,
        format_,
        None if match.tombstone else _coding(head, format_),
        like,
        queued=format_.queues and (route.promise == "queued" or asked),
        minimal="return=minimal" in preferences,
        request_id=request_id(request),
        key_path=None if match.key_field is None else tuple(match.key_field.split(".")),
        wait_seconds=route.wait_seconds if route.when_full == "wait" else 0.0,
        like_bytes=like.size(),
        like_cost=like.cost(),
        fields=fields,
    )


def _format(head: Head, formats: Sequence[Format]) -> Format:
    name = head.match.route.format
    if name is None:
        for each in formats:
            if each.claims(head):
                return each
    for each in formats:
        if each.name == name:
            return each
    raise UnsupportedMediaType(f"media type {head.media_type[:60]!a} is not read here")


def _coding(head: Head, format_: Format) -> str | None:
    """The content coding to take off; None where there is none, or the route keeps it.

    Raises `UnsupportedCoding` for one that is not read here, and for one that would be kept where the content
    has to be read.
    """
    match = head.match
    named = head.request.field(b"content-encoding")
    if match.route.content_coding == "inflate" or not is_coded(named):
        return read_coding(named)
    if not format_.keeps_codings or match.key_field is not None:
        reads = "a key field" if format_.keeps_codings else "more than one plain record"
        raise UnsupportedCoding(
            f"this route keeps content codings, and {reads} cannot be read through one; send the content "
            "as it is",
            "identity",
        )
    return None


def _media_type(request: Request) -> str:
    """The media type of the content in lower case, without parameters; "" where none is named."""
    return (request.field(b"content-type") or b"").partition(b";")[0].strip().lower().decode("latin-1")


def _preferences(request: Request) -> set[str]:
    """The preferences named in Prefer fields (RFC 7240), without their parameters."""
    value = request.field(b"prefer")
    if value is None:
        return set()
    parts = value.decode("latin-1").lower().split(",")
    return {part.partition(";")[0].strip().replace(" ", "").replace('"', "") for part in parts}
