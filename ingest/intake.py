"""One request: route, admit, decode, send, encode.  The only place where HTTP meets Kafka."""

from __future__ import annotations

import itertools
import logging
import secrets

from ingest.answers import error_response, json_response, queued_response, with_request_id
from ingest.budget import Budget
from ingest.config import Config
from ingest.errors import BadRequest, DeliveryFailed, IngestError, Overloaded, TooLarge
from ingest.formats import plain
from ingest.http.connection import Connection, Disconnected
from ingest.http.messages import Response
from ingest.intent import NDJSON_TYPES, Intent, read_intent, request_id
from ingest.producer import Producer
from ingest.records import RECORD_OVERHEAD_BYTES, Receipt
from ingest.routing import Router
from ingest.streaming import Stream

log = logging.getLogger(__name__)

GROWTH_BYTES = 65_536
"""By how much the hold of content of unknown length grows at a time."""


class Intake:
    """Handles requests, for `ingest.http.connection.Connection`."""

    def __init__(self, config: Config, producer: Producer, budget: Budget) -> None:
        self._router = Router(config.all_routes)
        self._request_bytes = config.limits.request_bytes
        self._answer_seconds = config.timeouts.answer_seconds
        self._producer = producer
        self._budget = budget
        # An id that no other process gives: a random part of this process's own, then a count.
        self._ids = (
            b"%s-%x" % (prefix, count)
            for prefix in (secrets.token_hex(6).encode(),)
            for count in itertools.count()
        )

    async def __call__(self, exchange: Connection) -> Response | None:
        """Answer one request.  Whatever goes wrong in it becomes an answer here."""
        name = request_id(exchange.request) or next(self._ids)
        try:
            response = await self._handle(exchange, name)
        except IngestError as error:
            response = error_response(error)
        except Disconnected:
            raise  # there is nobody to answer
        except Exception:
            log.exception("request failed", extra={"request_id": name.decode()})
            response = error_response(DeliveryFailed("something unforeseen happened here; the log has it"))
        return None if response is None else with_request_id(response, name)

    def refuse(self, error: IngestError) -> Response:
        """The answer to a request that could not be read."""
        return with_request_id(error_response(error), next(self._ids))

    async def _handle(self, exchange: Connection, name: bytes) -> Response | None:
        request = exchange.request
        match = self._router.match(request.method, request.target)
        intent = read_intent(request, match, await self._producer.require_topic(match.topic))
        plain.check_size(intent.like.size(), intent.record_bytes)
        if intent.wait_seconds == 0 and self._producer.full:
            raise Overloaded("too many requests wait for Kafka already")
        if intent.media_type in NDJSON_TYPES and not match.tombstone:
            return await Stream(
                exchange, intent, self._producer, self._budget, self._answer_seconds, name
            ).run()
        return await self._one_record(exchange, intent)

    async def _one_record(self, exchange: Connection, intent: Intent) -> Response:
        """Read the content whole, and answer for its record."""
        length = exchange.request.content_length
        if length is not None:
            self._check_length(length, intent)
        fixed = intent.like.size() + RECORD_OVERHEAD_BYTES
        hold = await self._budget.acquire(fixed + (length or 0), intent.wait_seconds, exchange.peer)
        try:
            received = bytearray()  # not a list: of small pieces it would cost many times their size
            while data := await exchange.receive():
                received += data
                if length is None:
                    self._check_length(len(received), intent)
                    while hold.size < fixed + len(received):
                        hold.grow(GROWTH_BYTES)
            content = bytes(received)
            hold.shrink(fixed + len(content))
            hold.finish()
            if intent.match.tombstone:
                if content:
                    raise BadRequest("DELETE writes a record without a value, so it has no content")
                record = intent.like
            else:
                record = plain.read(
                    content, intent.like, key_field=intent.key_path, record_bytes=intent.record_bytes
                )
        except BaseException:
            hold.release()
            raise
        delivery = await self._producer.submit((record,), hold=hold, wait_seconds=intent.wait_seconds)
        if intent.queued:
            delivery.promise_no_more()
            return queued_response(record.topic, minimal=intent.minimal)
        (report,) = await delivery.wait()
        if not isinstance(report, Receipt):
            # Not raised: reports are shared, and each raise would tie a request's frames to one.
            return error_response(report)
        if intent.minimal:
            return Response(204)
        return json_response(200, report)

    def _check_length(self, length: int, intent: Intent) -> None:
        if length > self._request_bytes:
            raise TooLarge(
                f"the content has {length} bytes or more; limits.request_bytes is {self._request_bytes}"
            )
        plain.check_size(intent.like.size() + length, intent.record_bytes)
