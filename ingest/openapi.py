"""The OpenAPI 3.1 document of a running service, made of its own routes, formats, look-ups and errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ingest import lookups
from ingest.config import Config
from ingest.errors import (
    BadFraming,
    BadRequest,
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
from ingest.formats.seam import Format
from ingest.http.codings import CODINGS
from ingest.route import Dialect, Route

ANYWHERE: tuple[type[IngestError], ...] = (
    BadFraming, BadRequest, NotFound, MethodNotAllowed, UploadTooSlow, LengthRequired, TooLarge,
    ExpectationFailed, HeadTooLarge, DeliveryFailed, UnknownTransferCoding, Overloaded, Draining,
    VersionNotSupported,
)  # fmt: skip
"""What any request can be answered, whatever it asks for."""
LOOKING_UP: tuple[type[IngestError], ...] = (TopicDenied, UnknownTopic, KafkaUnavailable)
WRITING: tuple[type[IngestError], ...] = (
    InvalidRecord, RecordRefused, TopicDenied, UnknownTopic, UnknownPartition, UnsupportedMediaType,
    UnsupportedCoding, Unprocessable, KafkaUnavailable, DeliveryUnknown,
)  # fmt: skip

_JSON = "application/json"
_ANYTHING = "*/*"
_ERROR = {"$ref": "#/components/schemas/Error"}
_PARAMETERS = {
    "topic": "The name of a topic: 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'.",
    "partition": "The number of a partition.",
    "cluster": "The id of a cluster.",
}


def document(config: Config, routes: Iterable[Route], formats: Sequence[Format], version: str) -> bytes:
    """The document, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for path in lookups.served(config):
        paths[path] = {"get": _look_up(path)}
    for route in routes:
        dialect = route.v2_dialect or config.compat.v2_dialect
        paths.setdefault(route.path, {}).update(_writes(route, formats, dialect))
    for path, item in paths.items():
        names = [name for name in _PARAMETERS if f"{{{name}}}" in path]
        if names:
            item["parameters"] = [
                _parameter("path", name, _PARAMETERS[name], required=True) for name in names
            ]
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "ingest",
                "version": version,
                "summary": "Takes events over HTTP and puts each one into Apache Kafka.",
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            },
            "paths": paths,
            "components": {"schemas": _SCHEMAS, "headers": _HEADERS},
        }
    )


def every_error(base: type[IngestError] = IngestError) -> list[type[IngestError]]:
    """The tree of errors, its root left out."""
    return [each for error in base.__subclasses__() for each in (error, *every_error(error))]


# What is written down of each request --------------------------------------------------------------------


def _writes(route: Route, formats: Sequence[Format], dialect: Dialect) -> dict[str, Any]:
    if route.format is None:
        # Every format that asks for a request by its head; one with paths of its own has those alone, unless
        # it has media types.
        asked = [each for each in formats if each.media_types or not each.paths]
    else:
        asked = [each for each in formats if each.name == route.format]
    schemas: dict[str, Any] = {}
    for each in asked:
        schemas |= each.media_types
        if route.format is not None:
            schemas |= each.named_media_types
    content = {name: {"schema": schema} for name, schema in schemas.items()}
    if not content or route.format is None:
        content.setdefault(_ANYTHING, {"schema": {}})
    body: dict[str, Any] = {"content": content}
    if also := " ".join(each.also for each in asked if each.also):
        body["description"] = also
    answers: dict[str, Any] = {}
    for each in asked:
        for status, described in each.answers.items():
            if status == 204 and each.dialects and not _answers_204(route, dialect):
                continue
            _add(answers, str(status), described)
    _add_errors(answers, (*ANYWHERE, *WRITING))
    post = {
        "operationId": _operation("write", route.path),
        "summary": f"Writes to {route.topic or 'the topic in the path'}",
        "parameters": _parameters(route, asked, dialect),
        "requestBody": body,
        "responses": answers,
    }
    if route.format is not None:
        return {"post": post}
    deleted: dict[str, Any] = {"200": _answer(_JSON, _REF_WRITTEN), "202": _answer(_JSON, _REF_QUEUED)}
    _add(deleted, "204", {})
    _add_errors(deleted, (*ANYWHERE, *WRITING))
    key = dict(_QUERY[0], required=True)
    return {
        "post": post,
        "delete": {
            "operationId": _operation("delete", route.path),
            "summary": "Writes a tombstone: a record with this key and no value",
            "parameters": [key, *_FIELDS, *_prefer(route)],
            "responses": deleted,
        },
    }


def _parameters(route: Route, asked: Sequence[Format], dialect: Dialect) -> list[dict[str, Any]]:
    """What may stand beside the content of a POST."""
    named = [_KEPT_CODING if route.content_coding == "keep" else _CODING]
    if route.format is None:
        return [*_QUERY, *_FIELDS, *_prefer(route), *named]
    if any(each.queues for each in asked):
        named += _prefer(route)
    if route.respond_async and dialect == "strimzi" and any(each.dialects for each in asked):
        named.append(_ASYNC)
    return named


def _answers_204(route: Route, dialect: Dialect) -> bool:
    """Whether envelopes can be answered 204, since nobody waits for Kafka: with `?async=true`, or always."""
    return dialect == "strimzi" and (route.respond_async or route.promise == "queued")


def _prefer(route: Route) -> list[dict[str, Any]]:
    text = "return=minimal, but for envelopes" + (", respond-async" if route.respond_async else "")
    return [_parameter("header", "Prefer", text, type="string")]


def _look_up(path: str) -> dict[str, Any]:
    summary, schema = _LOOK_UPS[path.removeprefix(lookups.BELOW)]
    answers: dict[str, Any] = {"200": _answer(_JSON, schema)}
    _add_errors(answers, (*ANYWHERE, *LOOKING_UP))
    missing = answers["404"]
    missing["description"] = missing["description"].replace(
        str(UnknownTopic.error_code), str(lookups.UNKNOWN_TOPIC_CODE)
    )
    return {"operationId": _operation("get", path), "summary": summary, "responses": answers}


def _operation(verb: str, path: str) -> str:
    words = "".join(letter if letter.isalnum() else "_" for letter in path)
    return f"{verb}{words}".rstrip("_")


def _parameter(where: str, name: str, text: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    schema = schema or {"type": "string", "minLength": 1}
    return {"in": where, "name": name, "description": text, "required": required, "schema": schema}


def _answer(media_type: str | None, schema: Any = None) -> dict[str, Any]:
    described: dict[str, Any] = {"description": "Done"}
    if media_type is not None:
        described["content"] = {media_type: {"schema": schema}}
    return described | {"headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}}


def _add(answers: dict[str, Any], status: str, contents: Mapping[str, Any]) -> None:
    """Add what an answer of this status may hold; each media type may have several schemas."""
    answer = answers.setdefault(status, _answer(None))
    for media_type, schema in contents.items():
        there = answer.setdefault("content", {}).setdefault(media_type, {"schema": {"anyOf": []}})
        options = there["schema"].setdefault("anyOf", [])
        if schema not in options:
            options.append(schema)


def _add_errors(answers: dict[str, Any], errors: Iterable[type[IngestError]]) -> None:
    for error in errors:
        status = str(error.status)
        _add(answers, status, {_JSON: _ERROR})
        text = (error.__doc__ or "").partition(":")[2].strip().partition("\n")[0]
        answer = answers[status]
        before = "" if answer["description"] == "Done" else answer["description"] + "; "
        if text not in before:
            answer["description"] = f"{before}{error.error_code}: {text}"
        names = []
        if error.status == 503:
            names.append("Retry-After")
        if error is MethodNotAllowed:
            names.append("Allow")
        for name in names:
            answer["headers"][name] = {"$ref": f"#/components/headers/{name}"}


_HEADERS = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "The request's name"},
    "Retry-After": {
        "schema": {"type": "integer", "minimum": 1, "maximum": 5},
        "description": "Seconds to wait",
        "required": True,
    },
    "Allow": {"schema": {"type": "string"}, "description": "The methods that are served", "required": True},
}
_REF_WRITTEN = {"$ref": "#/components/schemas/Written"}
_REF_QUEUED = {"$ref": "#/components/schemas/Queued"}
_QUERY = [
    _parameter("query", "key", "The key of the record", type="string"),
    _parameter("query", "key_field", "The field of the JSON content that becomes the key, as user.id"),
    _parameter("query", "offsets", "Whether each line of NDJSON gets its result", type="boolean"),
    _parameter("query", "validate", "Whether each line of NDJSON has to be JSON", type="boolean"),
]
_FIELDS = [
    _parameter("header", "Kafka-Partition", "The partition", type="integer", minimum=0, maximum=2147483647),
    _parameter("header", "Kafka-Timestamp", "Milliseconds since 1970", type="integer", minimum=1),
]
_CODING = _parameter("header", "Content-Encoding", "A coding of the content", enum=["identity", *CODINGS])
_KEPT_CODING = _parameter("header", "Content-Encoding", "A coding, which becomes a header of the record")
_ASYNC = _parameter("query", "async", "Whether 204 is enough once all is in memory", type="boolean")
_NAME = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}


def _object(**members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(members)}


_SCHEMAS: dict[str, Any] = {
    "Error": _object(
        error_code={"type": "integer"},
        message={"type": "string"},
        retriable={"type": "boolean"},
        outcome={"enum": ["not_written", "unknown"]},
    ),
    "Written": _object(topic=_NAME, partition=_COUNT, offset=_COUNT, timestamp={"type": ["integer", "null"]}),
    "Queued": _object(topic=_NAME, promise={"const": "queued"}),
    "Counted": _object(accepted=_COUNT, failed=_COUNT),
}
_TOPIC = _object(
    name=_NAME,
    partitions={"type": "array", "items": _object(partition=_COUNT, leader={"type": "integer"})},
    record_bytes={"type": "integer", "minimum": 1},
)
_CLUSTER_DATA = _object(
    kind={"const": "KafkaCluster"},
    metadata=_object(self=_NAME, resource_name=_NAME),
    cluster_id=_NAME,
    topics=_object(related=_NAME),
)
_TOPIC_DATA = _object(
    kind={"const": "KafkaTopic"},
    metadata=_object(self=_NAME, resource_name=_NAME),
    cluster_id=_NAME,
    topic_name=_NAME,
    is_internal={"type": "boolean"},
    replication_factor=_COUNT,
    partitions_count=_COUNT,
)


def _list_of(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    return _object(
        kind={"const": kind},
        metadata=_object(self=_NAME, next={"type": ["string", "null"]}),
        data={"type": "array", "items": item},
    )


_LOOK_UPS: dict[str, tuple[str, Any]] = {
    lookups.INDEX: (
        "What this is",
        _object(name={"const": "ingest"}, version=_NAME, links={"type": "object"}),
    ),
    lookups.DOCUMENT: ("This document", _object(openapi={"const": "3.1.0"}, info={}, paths={})),
    lookups.TOPICS: ("The topics that may be written", {"type": "array", "items": _NAME}),
    lookups.TOPIC: ("A topic", _TOPIC),
    lookups.CLUSTERS: ("The cluster, as REST Proxy v3 lists it", _list_of("KafkaClusterList", _CLUSTER_DATA)),
    lookups.CLUSTER: ("The cluster", _CLUSTER_DATA),
    lookups.CLUSTER_TOPICS: ("The topics that may be written", _list_of("KafkaTopicList", _TOPIC_DATA)),
    lookups.CLUSTER_TOPIC: ("A topic", _TOPIC_DATA),
}
