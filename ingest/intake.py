"""One request: route, admit, decode, send, encode.  The only place where HTTP meets Kafka."""

from __future__ import annotations

import functools
import itertools
import logging
import secrets
import time
from collections.abc import Sequence

from ingest.access import log_request, log_unread
from ingest.answers import error_response, finished
from ingest.budget import Budget
from ingest.config import Config
from ingest.cors import Policy, is_preflight
from ingest.direct import Direct
from ingest.errors import DeliveryFailed, IngestError, Overloaded, UnknownTopic
from ingest.faultlog import FaultLog
from ingest.formats import plain
from ingest.formats.seam import Bounds, Format, Head, Intent, StreamReader
from ingest.formats.table import built_in, routes
from ingest.http.exchange import Disconnected, Exchange
from ingest.http.framing import REMEMBERED_BYTES, REMEMBERED_HEADS
from ingest.http.messages import Fields, Request, Response
from ingest.inflating import AnyExchange, Inflated
from ingest.intent import read_intent, request_id
from ingest.kafka.producer import KafkaProducer
from ingest.lookups import Lookups
from ingest.metrics import NO_ROUTE, Metrics
from ingest.openapi import document
from ingest.producer import Producer
from ingest.routing import Router, origin_form
from ingest.streaming import Stream, Streams, batch_cost_bytes
from ingest.turn import Turn
from ingest.version import __version__
from ingest.whole import LARGE_BYTES, Whole


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
        formats: Sequence[Format] = (),
    ) -> None:
        """Counts with `metrics`, logs bugs through `faults`, and computes for long in its `turn` only.

        `formats` are asked before those of the table.  With a `KafkaProducer` it has a `short_way` too.
        Raises `ConfigError` for a route of a format that is not there.
        """
        self._formats = (*formats, *built_in(config))
        own = tuple(routes(config, self._formats))
        self._lookups = Lookups(
            config, producer, __version__, document(config, own, self._formats, __version__)
        )
        self._router = Router(own, lambda path: self._lookups.find(path) is not None)
        self._policy = Policy(config.cors) if config.cors.allow_origins else None
        """For what is no route's."""
        self._policies = {
            route.path: Policy(cors)
            for route, cors in ((route, config.cors_of(route)) for route in own)
            if cors.allow_origins
        }
        # What a head asks for depends on nothing else, so for a head that is remembered it is too.
        self._remembered = functools.lru_cache(REMEMBERED_HEADS)(self._read_intent)
        self._record_bytes = config.limits.record_bytes
        self._bounds = Bounds(
            self._record_bytes,
            config.limits.request_bytes,
            config.limits.most_batch_bytes,
            batch_cost_bytes(budget.limit_bytes, self._record_bytes),
        )
        self._timeouts = config.timeouts
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
            most = min(LARGE_BYTES, config.limits.request_bytes, self._record_bytes)
            self.short_way = Direct(producer, budget, metrics, self._ids, turn, most)

    async def __call__(self, exchange: Exchange) -> Response | None:
        """Answer one request.  Whatever goes wrong in it becomes an answer here."""
        began = time.perf_counter()
        request = exchange.request
        name: bytes | None = None
        response: Response | None
        route, status, records = NO_ROUTE, 0, 0
        intent = None
        try:
            response = None if request.method in ("POST", "DELETE") else await self._answer_other(request)
            if response is None:
                read = self._read_intent if request.head_bytes > REMEMBERED_BYTES else self._remembered
                intent = read(request)
                name = intent.request_id or next(self._ids)
                route = intent.match.route.path
                if intent.coding is None:
                    response, records = await self._serve(exchange, intent, name)
                else:
                    with Inflated(exchange, intent.coding, self._budget, self._turn) as inflated:
                        response, records = await self._serve(inflated, intent, name)
            status = 200 if response is None else response.status
            if self.short_way is not None and intent is not None:
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
        if response is None:
            return None
        return finished(response, name, self._fields(request) if intent is None else intent.fields)

    async def _serve(self, exchange: AnyExchange, intent: Intent, name: bytes) -> tuple[Response | None, int]:
        """The answer, None where it has been sent, and how many records were taken."""
        served = await self._open(exchange, intent, name)
        return await served.run(), served.accepted

    async def _open(self, exchange: AnyExchange, intent: Intent, name: bytes) -> Stream | Whole:
        """What serves the request, if it may be let in."""
        missing = None
        try:
            # A producer that was given may take more, but the budget is made for so much.
            record_bytes = min(await self._producer.require_topic(intent.match.topic), self._record_bytes)
        except UnknownTopic as error:
            if not intent.format.answers_each(intent):
                raise
            record_bytes, missing = self._record_bytes, error.alone()
        plain.check_size(intent.like_bytes, record_bytes)
        if intent.wait_seconds == 0 and self._producer.full:
            raise Overloaded("too many requests wait for Kafka already")
        bounds = self._bounds
        if record_bytes < bounds.record_bytes:
            bounds = bounds._replace(record_bytes=record_bytes)
        reader = intent.format.open(intent, bounds)
        producer, budget, timeouts = self._producer, self._budget, self._timeouts
        if isinstance(reader, StreamReader):
            return Stream(self._streams, exchange, intent, reader, producer, budget, timeouts, name)
        seconds = timeouts.answer_seconds
        return Whole(exchange, intent, reader, producer, budget, self._turn, seconds, missing)

    async def _answer_other(self, request: Request) -> Response | None:
        """The answer to what writes nothing: a look-up, or OPTIONS; None where that is not served."""
        path = origin_form(request.target).partition("?")[0]
        if request.method in ("GET", "HEAD") and self._lookups.find(path) is not None:
            return await self._lookups.answer(request)
        if request.method != "OPTIONS":
            return None
        route = self._router.route(path)
        if route is None and self._lookups.find(path) is None:
            return None
        if route is not None and not is_preflight(request):
            head = Head(request, self._router.match("POST", request.target), "")
            for each in self._formats:
                if route.format in (None, each.name) and (response := each.options(head)) is not None:
                    return response
        return Response(204, ((b"allow", self._router.allow(path).encode()),))

    def _fields(self, request: Request) -> Fields:
        """What every answer to a request has beside its own fields, for pages in browsers."""
        if not (self._policies or self._policy):
            return ()
        path = origin_form(request.target).partition("?")[0]
        route = self._router.route(path)
        # What nothing can be written to, and what is not there, is nobody's own.
        policy = self._policy if route is None else self._policies.get(route.path)
        if policy is None:
            return ()
        if is_preflight(request):
            return policy.preflight(request, self._router.allow(path))
        return policy.fields(request)

    def _name(self, request: Request) -> bytes:
        return request_id(request) or next(self._ids)

    def _read_intent(self, request: Request) -> Intent:
        match = self._router.match(request.method, request.target)
        return read_intent(request, match, self._formats, self._fields(request))

    def refuse(self, peer: str, error: IngestError) -> Response:
        """The answer to a request of `peer` that could not be read."""
        name = next(self._ids)
        self._metrics.count_rejected(error)
        self._metrics.count_request(NO_ROUTE, error.status, 0)
        if self._access_log:
            log_unread(peer, name, error)
        return finished(error_response(error), name)
