"""One request: route, admit, decode, send, encode.  The only place where HTTP meets Kafka."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import secrets
import time

import trio

from ingest.access import log_request, log_unread
from ingest.answers import error_response, queued_response, record_response, with_request_id
from ingest.budget import Budget, Hold
from ingest.config import Config
from ingest.direct import Direct
from ingest.errors import BadRequest, DeliveryFailed, IngestError, Overloaded, TooLarge
from ingest.faultlog import FaultLog
from ingest.formats import plain
from ingest.http.exchange import Disconnected, Exchange
from ingest.http.framing import REMEMBERED_BYTES, REMEMBERED_HEADS
from ingest.http.messages import Request, Response
from ingest.intent import NDJSON_TYPES, Intent, read_intent, request_id
from ingest.kafka.producer import KafkaProducer
from ingest.metrics import NO_ROUTE, Metrics
from ingest.producer import Producer
from ingest.records import Receipt
from ingest.routing import Router
from ingest.streaming import Stream, Streams
from ingest.turn import Turn

LARGE_BYTES = 65_536
"""Content above this waits for its turn to become a record; below it, reading it takes as long."""
GROWTH_BYTES = 65_536
"""By how much the hold of content of unknown length grows at a time."""


class Intake:
    """Handles requests, for `ingest.http.connection.Connection`."""

    def __init__(
        self,
        config: Config,
        producer: Producer,
        budget: Budget,
        metrics: Metrics,
        faults: FaultLog,
        turn: Turn,
    ) -> None:
        """Counts with `metrics`, logs bugs through `faults`, and computes for long in its `turn` only.

        With a `KafkaProducer` it has a `short_way` too.
        """
        self._router = Router(config.all_routes)
        # What a head asks for depends on nothing else, so for a head that is remembered it is too.
        self._remembered = functools.lru_cache(REMEMBERED_HEADS)(self._read_intent)
        self._request_bytes = config.limits.request_bytes
        self._record_bytes = config.limits.record_bytes
        self._answer_seconds = config.timeouts.answer_seconds
        self._producer = producer
        self._budget = budget
        self._metrics = metrics
        self._access_log = config.log.access
        self._faults = faults
        self._streams = Streams(turn)
        self._turn = turn
        # An id that no other process gives: a random part of this process's own, then a count.
        self._ids = (
            b"%s-%x" % (prefix, count)
            for prefix in (secrets.token_hex(6).encode(),)
            for count in itertools.count()
        )
        self.short_way: Direct | None = None
        """Where requests that are known from here can go; None where each has to come here."""
        if isinstance(producer, KafkaProducer) and not config.log.access:
            most = min(LARGE_BYTES, self._request_bytes, self._record_bytes)
            self.short_way = Direct(producer, budget, metrics, self._ids, turn, most)

    async def __call__(self, exchange: Exchange) -> Response | None:
        """Answer one request.  Whatever goes wrong in it becomes an answer here."""
        began = time.perf_counter()
        request = exchange.request
        name: bytes | None = None
        response: Response | None
        route, status, records = NO_ROUTE, 0, 0
        try:
            read = self._read_intent if request.head_bytes > REMEMBERED_BYTES else self._remembered
            intent = read(request)
            name = intent.request_id or next(self._ids)
            route = intent.match.route.path
            # A producer that was given may take more, but the budget is made for so much.
            record_bytes = min(await self._producer.require_topic(intent.match.topic), self._record_bytes)
            plain.check_size(intent.like_bytes, record_bytes)
            if intent.wait_seconds == 0 and self._producer.full:
                raise Overloaded("too many requests wait for Kafka already")
            if intent.media_type in NDJSON_TYPES and not intent.match.tombstone:
                response, records = await self._stream(exchange, intent, record_bytes, name)
            else:
                response, records = await self._one_record(exchange, intent, record_bytes)
            status = 200 if response is None else response.status
            if self.short_way is not None:
                self.short_way.learn(request, intent)
        except IngestError as error:
            self._metrics.count_rejected(error)
            response = error_response(error)
            status = response.status
        except Disconnected:
            raise  # there is nobody to answer
        except Exception as error:  # noqa: BLE001  # logged, with its traceback
            name = name or self._name(request)
            self._faults(logging.ERROR, "request failed", {"request_id": name.decode()}, error=error)
            response = error_response(DeliveryFailed("something unforeseen happened here; the log has it"))
            status = response.status
        finally:
            name = name or self._name(request)
            seconds = time.perf_counter() - began
            self._metrics.count_request(route, status, seconds)
            if self._access_log:
                log_request(exchange, name, status=status, seconds=seconds, records=records)
        return None if response is None else with_request_id(response, name)

    def _name(self, request: Request) -> bytes:
        return request_id(request) or next(self._ids)

    def _read_intent(self, request: Request) -> Intent:
        return read_intent(request, self._router.match(request.method, request.target))

    def refuse(self, peer: str, error: IngestError) -> Response:
        """The answer to a request of `peer` that could not be read."""
        name = next(self._ids)
        self._metrics.count_rejected(error)
        self._metrics.count_request(NO_ROUTE, error.status, 0)
        if self._access_log:
            log_unread(peer, name, error)
        return with_request_id(error_response(error), name)

    async def _stream(
        self, exchange: Exchange, intent: Intent, record_bytes: int, name: bytes
    ) -> tuple[Response | None, int]:
        """The answer to NDJSON, None where it has been sent, and how many records were taken."""
        stream = Stream(
            self._streams,
            exchange,
            intent,
            record_bytes,
            self._producer,
            self._budget,
            self._answer_seconds,
            name,
        )
        return await stream.run(), stream.accepted

    async def _one_record(
        self, exchange: Exchange, intent: Intent, record_bytes: int
    ) -> tuple[Response, int]:
        """Read the content whole, and answer for its record; whether it was taken."""
        length = exchange.request.content_length
        if length is not None:
            self._check_length(length, intent, record_bytes)
        fixed = intent.like_cost + exchange.head_cost
        wait_seconds = intent.wait_seconds
        began = trio.current_time() if wait_seconds else 0.0
        here: bytes | bytearray | None = exchange.take_content()
        # What is here is no unfinished content of its peer's.
        peer = exchange.peer if here is None else None
        hold = await self._budget.acquire(fixed + (length or 0), wait_seconds, peer)
        waited = trio.current_time() - began if wait_seconds else 0.0
        deadline = math.inf
        try:
            if here is None:
                here = await self._receive(exchange, intent, hold, record_bytes)
            if intent.queued or length is None:
                # Whoever is told 202 does not wait, and the record that waits has no head.
                hold.shrink(fixed + len(here) - (exchange.head_cost if intent.queued else 0))
            if wait_seconds:
                # One deadline for the wait for room and the one for the report; how long the content took,
                # which came in between, is the client's own affair.
                deadline = trio.current_time() + self._answer_seconds - waited
                wait_seconds = max(0.0, wait_seconds - waited)
            if intent.match.tombstone:
                if here:
                    raise BadRequest("DELETE writes a record without a value, so it has no content")
                record = intent.like
            elif len(here) <= LARGE_BYTES:
                record = plain.read(bytes(here), intent.like, intent.key_path, record_bytes)
            else:
                await self._turn.take(len(here))
                record = plain.read(bytes(here), intent.like, intent.key_path, record_bytes)
        except BaseException:
            hold.release()
            raise
        delivery = await self._producer.submit(
            (record,), hold=hold, wait_seconds=wait_seconds, deadline=deadline
        )
        delivery.counted = intent.queued or intent.minimal
        del record, here  # the producer lets go of what librdkafka has copied, and so do we
        if intent.queued:
            delivery.promise_no_more()
            return queued_response(intent.like.topic, minimal=intent.minimal), 1
        (report,) = await delivery.wait()
        return record_response(report, minimal=intent.minimal), int(isinstance(report, Receipt))

    async def _receive(self, exchange: Exchange, intent: Intent, hold: Hold, record_bytes: int) -> bytearray:
        """The whole content; its hold grows where its length is not known, and is its peer's no more."""
        fixed = intent.like_cost + exchange.head_cost
        received = bytearray()  # not a list: of small pieces it would cost many times their size
        while data := await exchange.receive():
            received += data
            if exchange.request.content_length is None:
                self._check_length(len(received), intent, record_bytes, more=True)
                while hold.size < fixed + len(received):
                    hold.grow(GROWTH_BYTES)
        hold.finish()
        return received

    def _check_length(self, length: int, intent: Intent, record_bytes: int, *, more: bool = False) -> None:
        """`more` says that the content has not come to its end yet."""
        if length > self._request_bytes:
            or_more = " or more" if more else ""
            raise TooLarge(
                f"the content has {length} bytes{or_more}; limits.request_bytes is {self._request_bytes}"
            )
        plain.check_size(intent.like_bytes + length, record_bytes, more=more)
