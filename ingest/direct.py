"""The short way of the usual request: a record or some lines, all of it here, and nothing in front of it.

Most requests are like that, and what is asked on the long way, by `ingest.intake`, takes longer than all
that has to be done for them.  Whatever is not as usual is left to the long way before anything is done, so
that there is one place where something is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import trio

from ingest.answers import finished, queued_response, record_response
from ingest.budget import Budget
from ingest.delivery import Delivery
from ingest.errors import IngestError
from ingest.formats import plain
from ingest.formats.ndjson import NDJSON, LineDecoder
from ingest.formats.seam import Intent
from ingest.http.at_once import Answer
from ingest.http.framing import REMEMBERED_BYTES, REMEMBERED_HEADS
from ingest.http.messages import Request, Response
from ingest.kafka.producer import KafkaProducer
from ingest.metrics import Metrics
from ingest.records import Record
from ingest.tally import Tally
from ingest.turn import PLAIN_LINE_COST, Turn


class _Known:
    """What a head asks for, as it is wanted for each request that has it."""

    __slots__ = (
        "cost",
        "counted",
        "decoder",
        "fields",
        "key_path",
        "like",
        "lines",
        "minimal",
        "queued",
        "request",
        "request_id",
        "route",
        "size",
        "validate",
    )

    def __init__(self, request: Request, intent: Intent) -> None:
        self.request = request  # kept, so that no other one has its identity
        self.like = intent.like
        self.key_path = intent.key_path
        self.cost = intent.like_cost
        self.size = intent.like_bytes
        self.fields = intent.fields
        self.queued: Response | None = None
        if intent.queued:
            self.queued = self.finish(queued_response(intent.like.topic, minimal=intent.minimal))
        self.lines = type(intent.format) is NDJSON
        self.validate = intent.match.validate
        self.decoder: LineDecoder | None = None  # for lines, once it is known how long they may be
        self.minimal = intent.minimal
        self.counted = intent.queued or intent.minimal
        self.request_id = intent.request_id
        self.route = intent.match.route.path

    def finish(self, response: Response) -> Response:
        """The answer with what all answers to this head have; its request is named apart."""
        if not self.request.keep_alive:
            response = msgspec.structs.replace(response, closes=True)
        return finished(response, b"", self.fields) if self.fields else response


class Direct:
    """The `ingest.http.at_once.ShortWay` of requests that were answered before, on the long one."""

    def __init__(
        self,
        producer: KafkaProducer,
        budget: Budget,
        metrics: Metrics,
        ids: Iterator[bytes],
        turn: Turn,
        most_bytes: int,
    ) -> None:
        """`most_bytes` of content are for this way; `ids` name requests, and `turn` is for reading lines."""
        self._producer = producer
        self._budget = budget
        self._metrics = metrics
        self._ids = ids
        self._turn = turn
        self._most_bytes = most_bytes
        self._now = trio.lowlevel.current_clock().current_time  # what trio.current_time() asks, on a detour
        # By identity: the reader gives the same object for the same head, for as long as it remembers it.
        self._known: dict[int, _Known] = {}

    def learn(self, request: Request, intent: Intent) -> None:
        """Take requests that are this one, from now on, if this way is for them."""
        if (
            request.head_bytes <= REMEMBERED_BYTES
            and id(request) not in self._known
            and (request.usual or (not request.keep_alive and request.method != "HEAD"))
            and not request.expects_continue
            and request.content_length is not None
            and type(intent.format) in (plain.Plain, NDJSON)
            and not intent.match.offsets
            and intent.coding is None
            and not intent.match.tombstone
        ):
            if len(self._known) >= REMEMBERED_HEADS:
                del self._known[next(iter(self._known))]
            self._known[id(request)] = _Known(request, intent)

    def begin(self, request: Request, content: bytes, now: float) -> Delivery | Answer | None:
        """See `ShortWay.begin`."""
        known = self._known.get(id(request))
        size = len(content)
        if known is None or size > self._most_bytes:
            return None
        if known.lines:
            return self._begin_lines(known, content, now)
        like = known.like
        topic = like.topic
        most = self._producer.most_bytes_now(topic)
        if most is None or known.size + size > most:
            return None
        if known.key_path is None:
            record = Record(topic, content, like.key, like.headers, like.partition, like.timestamp)
        else:
            try:
                record = plain.read(content, like, known.key_path, most)
            except IngestError:
                return None
        hold = self._budget.take(known.cost + size)
        if hold is None:
            return None
        delivery = self._producer.submit_now(record, hold, now, counted=known.counted)
        if delivery is None:
            hold.release()
            return None
        if known.queued is not None:
            delivery.promise_no_more()
            self._metrics.count_request(known.route, 202, self._now() - now)
            return Answer(known.queued, known.request_id or next(self._ids))
        delivery.context = known
        return delivery

    def _begin_lines(self, known: _Known, content: bytes, now: float) -> Delivery | Answer | None:
        """`begin` for lines: only where they are all like most are, and it is our turn to read them."""
        producer = self._producer
        most = producer.most_bytes_now(known.like.topic)
        if most is None or not content or not producer.clear or self._turn.left <= 0:
            return None
        decoder = known.decoder
        if decoder is None or decoder.record_bytes != most:
            known.decoder = decoder = LineDecoder(
                known.like, record_bytes=most, key_field=known.key_path, validate=known.validate
            )
        lines = decoder.whole(content)
        if lines is None:
            return None
        records, cost = lines
        count = len(records)
        self._turn.spend(len(content) + PLAIN_LINE_COST * count)
        hold = self._budget.take(cost)
        if hold is None:
            return None
        delivery = producer.submit_lines_now(records, hold, now)
        if delivery is None:
            hold.release()
            return None
        delivery.context = known
        if known.queued is None:
            return delivery
        delivery.promise_no_more()
        tally = Tally()
        tally.count_queued(range(1, count + 1))
        response = known.finish(tally.response(queued=True, minimal=known.minimal))
        self._metrics.count_request(known.route, 202, self._now() - now)
        return Answer(response, known.request_id or next(self._ids))

    def end(self, begun: Delivery) -> Answer:
        """See `ShortWay.end`."""
        known: _Known = begun.context
        reports = begun.answers()
        if known.lines:
            tally = Tally()
            tally.count(range(1, len(reports) + 1), reports)
            response = tally.response(queued=False, minimal=known.minimal)
        else:
            response = record_response(reports[0], minimal=known.minimal)
        response = known.finish(response)
        self._metrics.count_request(known.route, response.status, self._now() - begun.begun)
        return Answer(response, known.request_id or next(self._ids))

    def give_up(self, begun: Delivery) -> None:
        """See `ShortWay.give_up`."""
        self._metrics.count_request(begun.context.route, 0, self._now() - begun.begun)
