"""A request of many records, produced while its lines arrive.

It holds a window of the content, never its whole length: what has been read is handed on before more is
read, and a few batches are on their way at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
import trio

from ingest.answers import error_body, with_request_id
from ingest.budget import Budget
from ingest.errors import BadRequest, IngestError, Overloaded, TooLarge
from ingest.formats.ndjson import LineDecoder, Lines
from ingest.http.exchange import RECEIVE_BYTES, Exchange
from ingest.http.messages import Response
from ingest.intent import Intent
from ingest.producer import Delivery, Producer
from ingest.records import RECORD_OVERHEAD_BYTES, Alike, DeliveryReport, Receipt
from ingest.tally import Tally
from ingest.turn import LINE_COST, PLAIN_LINE_COST, Turn

BATCHES_IN_FLIGHT = 16
"""How many batches of all streams together may be without reports; beyond it each stream may have one.

What a batch costs while it is on its way or waits for a client to read is many times its content, and
the records of everybody else queue behind it.
"""
COMMON_BYTES = 4_096
"""The most bytes of key and headers that every line gets: a short line must not become a long record."""
RESULTS_BYTES = 131_072
"""What a stream with `offsets=true` is charged for the results of one batch that its client has not read."""
FAST_BYTES = 4 * RECEIVE_BYTES
"""The most bytes that are read at once of a stream whose content comes as fast as it is read …"""
FAST_SHARE, FAST_BUDGET_BYTES = 8, 128 * FAST_BYTES
"""… while no more than one of so many parts of the budget is held, and the budget is not small."""
RESULT_COST = 2_000
"""What writing its result takes, the same way."""
_encode = msgspec.json.Encoder().encode


class Streams:
    """What the streams of one service share."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        """To compute for a batch's length; see `Intake`."""
        self.batches = 0
        """Batches that have no report, or whose results the client has not taken yet."""


class Stream:
    """One NDJSON request, from its admission to its answer."""

    def __init__(
        self,
        streams: Streams,
        exchange: Exchange,
        intent: Intent,
        record_bytes: int,
        producer: Producer,
        budget: Budget,
        answer_seconds: float,
        request_id: bytes,
    ) -> None:
        if intent.like.size() > COMMON_BYTES:
            raise TooLarge(
                f"key and headers, which every line gets, have {intent.like.size()} bytes; "
                f"{COMMON_BYTES} is the most for NDJSON"
            )
        if intent.queued and intent.match.offsets:
            raise BadRequest("offsets=true asks for what is not known yet when the answer is 202")
        self._streams = streams
        self._exchange = exchange
        self._intent = intent
        self._producer = producer
        self._budget = budget
        self._answer_seconds = answer_seconds
        self._patience = answer_seconds  # what the wait for room has left of it
        self._due = trio.current_time() + answer_seconds  # the answer to what was received last
        self._request_id = request_id
        self._decoder = LineDecoder(
            intent.like,
            record_bytes=record_bytes,
            key_field=intent.key_path,
            validate=intent.match.validate,
            # Of the half of the budget that windows leave; the content of a batch is one read at the most, a
            # line that had begun before it, and keys out of both.
            batch_bytes=budget.limit_bytes // 2 - record_bytes - 2 * RECEIVE_BYTES,
        )
        self._in_flight: deque[tuple[Delivery | None, Lines]] = deque()
        self._batches = 0  # our part of streams.batches
        self._tally = Tally()
        self._started = False

    @property
    def accepted(self) -> int:
        """Lines that were taken so far."""
        return self._tally.accepted

    async def run(self) -> Response | None:
        """Read, produce and answer; None when the answer has been sent in pieces."""
        length = self._exchange.request.content_length
        most = RECEIVE_BYTES if length is None or not self._is_roomy() else FAST_BYTES
        window = most if length is None else min(length, most)
        beside = RECORD_OVERHEAD_BYTES + self._exchange.head_cost
        if self._intent.match.offsets:
            # From the beginning: a client that does not read while its lines are written could only be let
            # go without their results.  A line has at least two bytes, and so a result for each of them.
            beside += RESULTS_BYTES if length is None else min(128 * (length + 2), RESULTS_BYTES)
        hold = await self._budget.acquire(
            beside + window, self._intent.wait_seconds, self._exchange.peer, window=True
        )
        # The wait for room and the one for reports have one deadline together.
        self._patience = self._due - trio.current_time()
        error: IngestError | None = None
        try:
            try:
                while data := await self._receive(most):
                    await self._take_all(self._decoder.feed(data), len(data))
                    while self._intent.match.offsets and self._in_flight:
                        await self._settle_oldest()  # the client may wait for these before it sends more
                    if beside + self._decoder.held_bytes > hold.size:
                        hold.grow(beside + self._decoder.held_bytes - hold.size)
                    if length is None and len(data) == most < FAST_BYTES and self._is_roomy():
                        hold.grow(FAST_BYTES - most)
                        most = FAST_BYTES
                await self._take_all(iter(self._decoder.end()), self._decoder.held_bytes)
            except IngestError as cause:
                # The rest cannot be read; what was accepted keeps its own outcome.  Without its traceback,
                # which would hold this frame, which holds the error.
                error = cause.with_traceback(None)
            while self._in_flight:
                await self._settle_oldest()
        except BaseException:
            for delivery, _ in self._in_flight:
                if delivery is not None and not self._intent.queued:
                    delivery.withdraw(Overloaded("withdrawn: the caller has gone"))
            raise
        finally:
            hold.release()
            self._streams.batches -= self._batches
        return await self._answer(error)

    def _is_roomy(self) -> bool:
        """Whether a fast stream can have a larger window, which makes its work less by a tenth."""
        limit, length = self._budget.limit_bytes, self._exchange.request.content_length
        return (
            not self._intent.match.offsets
            and (length is None or length > RECEIVE_BYTES)
            and limit >= FAST_BUDGET_BYTES
            and FAST_SHARE * (self._budget.held_bytes + FAST_BYTES) <= limit
        )

    async def _receive(self, most: int) -> bytes:
        data = await self._exchange.receive(most)
        self._due = max(self._due, self._exchange.received_at + self._patience)
        return data

    async def _take_all(self, batches: Iterator[Lines], size: int) -> None:
        """Submit the batches of content of `size` bytes."""
        while True:
            while self._in_flight and self._streams.batches >= BATCHES_IN_FLIGHT:
                await self._settle_oldest()
            await self._streams.turn.take(size)
            lines = next(batches, None)
            if lines is None:
                return
            # How many there are is known only now.
            line_cost = PLAIN_LINE_COST if self._decoder.plain else LINE_COST
            self._streams.turn.spend(line_cost * (len(lines.numbers) + len(lines.failures)))
            await self._take(lines)
            size = 0

    async def _take(self, lines: Lines) -> None:
        delivery = None
        if lines.records:
            try:
                delivery = await self._submit(lines)
            except IngestError as error:
                failures = [*lines.failures, *((number, error) for number in lines.numbers)]
                refused = Lines(Alike(self._intent.like, [], longest=0), [], failures)
                self._enter(None, refused)
                raise
        self._enter(delivery, lines)
        if delivery is None and len(self._in_flight) == 1:
            await self._settle_oldest()

    def _enter(self, delivery: Delivery | None, lines: Lines) -> None:
        self._in_flight.append((delivery, lines))
        self._batches += 1
        self._streams.batches += 1

    async def _submit(self, lines: Lines) -> Delivery:
        # The lines are here already, so they wait for room even where a new request is refused: nothing
        # more is read meanwhile, which is what the client sees.
        left = self._due - trio.current_time()
        if left <= 0:
            raise Overloaded(f"Kafka did not take the lines within {self._answer_seconds:g} seconds")
        hold = await self._budget.acquire(lines.cost, left)
        delivery = await self._producer.submit(lines.records, hold=hold, deadline=self._due)
        delivery.counted = not self._intent.match.offsets
        if self._intent.queued:
            delivery.promise_no_more()
        return delivery

    async def _settle_oldest(self) -> None:
        delivery, lines = self._in_flight[0]
        reports: list[DeliveryReport] = []
        if delivery is not None and not self._intent.queued:
            reports = await delivery.wait()
        self._in_flight.popleft()
        if self._intent.match.offsets:
            await self._streams.turn.take(RESULT_COST * len(lines.numbers))
            results = [self._settle(lines, reports)]
            # While the client does not read, the results' bytes are kept and not what they were made of, and
            # once: with their framing, in the connection.
            del delivery, lines, reports
            await self._start()
            began = trio.current_time()
            await self._exchange.send(results.pop())
            self._due += trio.current_time() - began  # the client's time, not Kafka's
        else:
            self._settle(lines, reports)
        self._batches -= 1
        self._streams.batches -= 1

    def _settle(self, lines: Lines, reports: list[DeliveryReport]) -> bytes:
        """Count what became of a batch; its lines' results where they are asked for."""
        if self._intent.queued:
            self._tally.count_queued(lines.numbers, lines.failures)
            return b""
        failures = self._tally.count(lines.numbers, reports, lines.failures)
        return self._results(lines, reports, failures) if self._intent.match.offsets else b""

    def _results(
        self, lines: Lines, reports: list[DeliveryReport], failures: list[tuple[int, IngestError]]
    ) -> bytes:
        results: list[tuple[int, dict[str, Any]]] = [
            (number, error_body(error)) for number, error in failures
        ]
        for number, report in zip(lines.numbers, reports, strict=False):
            if isinstance(report, Receipt):
                results.append((number, {"partition": report.partition, "offset": report.offset}))
        results.sort(key=lambda result: result[0])
        return b"".join(_encode({"line": number} | body) + b"\n" for number, body in results)

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            response = Response(200, ((b"content-type", b"application/x-ndjson"),), content=None)
            await self._exchange.start(with_request_id(response, self._request_id))

    async def _answer(self, error: IngestError | None) -> Response | None:
        if self._intent.match.offsets and (self._started or error is None):
            await self._start()
            if error is not None:
                await self._exchange.send(_encode(error_body(error)) + b"\n")
            await self._exchange.end()
            return None
        return self._tally.response(error, queued=self._intent.queued, minimal=self._intent.minimal)
