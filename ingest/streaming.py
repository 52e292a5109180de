"""A request of many records, produced while its content arrives.

It holds a window of the content, never its whole length: what has been read is handed on before more is
read, and a few batches are on their way at a time.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator

import trio

from ingest.answers import finished
from ingest.budget import Budget
from ingest.delivery import Delivery
from ingest.errors import IngestError, Overloaded, UploadTooSlow
from ingest.formats.seam import Batch, Intent, StreamReader
from ingest.http.exchange import RECEIVE_BYTES
from ingest.http.messages import Response
from ingest.inflating import AnyExchange
from ingest.producer import Producer
from ingest.records import RECORD_OVERHEAD_BYTES, DeliveryReport
from ingest.sections import Timeouts
from ingest.tally import Tally
from ingest.turn import Turn

BATCHES_IN_FLIGHT = 16
"""How many batches of all streams together may be without reports; beyond it each stream may have one.

What a batch costs while it is on its way or waits for a client to read is many times its content, and
the records of everybody else queue behind it.
"""
RESULTS_BYTES = 131_072
"""What a stream with a result for each record is charged for those of a batch that are not read yet."""
FAST_BYTES = 4 * RECEIVE_BYTES
"""The most bytes that are read at once of a stream whose content comes as fast as it is read …"""
FAST_SHARE, FAST_BUDGET_BYTES = 8, 128 * FAST_BYTES
"""… while no more than one of so many parts of the budget is held, and the budget is not small."""
RESULT_COST = 2_000
"""What writing a record's result takes, as so many bytes of JSON."""


def batch_cost_bytes(limit_bytes: int, record_bytes: int) -> int:
    """What one batch of a stream may cost of a budget of `limit_bytes`.

    Of the half of the budget that windows leave; the content of a batch is one read at the most, a line that
    had begun before it, and keys out of both.
    """
    return limit_bytes // 2 - record_bytes - 2 * RECEIVE_BYTES


class Streams:
    """What the streams of one service share."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        """To compute for a batch's length; see `Intake`."""
        self.batches = 0
        """Batches that have no report, or whose results the client has not taken yet."""


class Stream:
    """One such request, from its admission to its answer."""

    def __init__(
        self,
        streams: Streams,
        exchange: AnyExchange,
        intent: Intent,
        reader: StreamReader,
        producer: Producer,
        budget: Budget,
        timeouts: Timeouts,
        request_id: bytes,
    ) -> None:
        self._streams = streams
        self._exchange = exchange
        self._intent = intent
        self._reader = reader
        self._each = reader.each
        self._producer = producer
        self._budget = budget
        self._timeouts = timeouts
        self._ends = trio.current_time() + timeouts.stream_seconds
        self._answer_seconds = timeouts.answer_seconds
        self._patience = timeouts.answer_seconds  # what the wait for room has left of it
        self._due = trio.current_time() + timeouts.answer_seconds  # the answer to what was received last
        self._request_id = request_id
        self._in_flight: deque[tuple[Delivery | None, Batch]] = deque()
        self._batches = 0  # our part of streams.batches
        self._tally = Tally()
        self._started = False

    @property
    def accepted(self) -> int:
        """Records that were taken so far."""
        return self._tally.accepted

    async def run(self) -> Response | None:
        """Read, produce and answer; None when the answer has been sent in pieces."""
        length = self._exchange.request.content_length
        most = RECEIVE_BYTES if length is None or not self._is_roomy() else FAST_BYTES
        window = most if length is None else min(length, most)
        beside = RECORD_OVERHEAD_BYTES + self._exchange.head_cost
        if self._each:
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
                    if self._each and self._reader.begins(data):
                        await self._start()
                    await self._take_all(self._reader.feed(data), len(data))
                    while self._each and self._in_flight:
                        await self._settle_oldest()  # the client may wait for these before it sends more
                    if beside + self._reader.held_bytes > hold.size:
                        hold.grow(beside + self._reader.held_bytes - hold.size)
                    if length is None and len(data) == most < FAST_BYTES and self._is_roomy():
                        with contextlib.suppress(Overloaded):  # somebody waits for room: it goes on as it is
                            hold.grow(FAST_BYTES - most)
                            most = FAST_BYTES
                await self._take_all(iter(self._reader.end()), self._reader.held_bytes)
            except IngestError as cause:
                error = cause.alone()  # the rest cannot be read; what was accepted keeps its own outcome
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
            not self._each
            and (length is None or length > RECEIVE_BYTES)
            and limit >= FAST_BUDGET_BYTES
            and FAST_SHARE * (self._budget.held_bytes + FAST_BYTES) <= limit
        )

    async def _receive(self, most: int) -> bytes:
        if self._reader.idles:
            data = await self._receive_in_time(most)
        else:
            data = await self._exchange.receive(most, self._start if self._each else None)
        self._due = max(self._due, self._exchange.received_at + self._patience)
        return data

    async def _receive_in_time(self, most: int) -> bytes:
        """The same where the client may pause between records, but not for ever."""
        left = self._ends - trio.current_time()
        idles = not self._reader.held_bytes
        if idles:
            self._exchange.let_idle(min(left, self._timeouts.stream_idle_seconds))
        try:
            if left > 0:
                return await self._exchange.receive(most, self._start if self._each else None)
        except UploadTooSlow as error:
            if not idles:
                raise
            if left > self._timeouts.stream_idle_seconds:
                seconds = self._timeouts.stream_idle_seconds
                raise UploadTooSlow(
                    f"no record came for {seconds:g} seconds, which is timeouts.stream_idle_seconds"
                ) from error
        raise UploadTooSlow(
            f"the stream was open for {self._timeouts.stream_seconds:g} seconds, which is "
            "timeouts.stream_seconds; go on in another one"
        )

    async def _take_all(self, batches: Iterator[Batch], size: int) -> None:
        """Submit the batches of content of `size` bytes."""
        while True:
            while self._in_flight and self._streams.batches >= BATCHES_IN_FLIGHT:
                await self._settle_oldest()
            await self._streams.turn.take(size)
            batch = next(batches, None)
            if batch is None:
                return
            # How many there are is known only now.
            self._streams.turn.spend(self._reader.cost_of(batch))
            await self._take(self._intent.to_take(batch))
            size = 0

    async def _take(self, batch: Batch) -> None:
        delivery = None
        if batch.records:
            try:
                delivery = await self._submit(batch)
            except IngestError as error:
                failures = [*batch.failures, *((number, error) for number in batch.numbers)]
                self._enter(None, Batch((), (), failures))
                raise
        self._enter(delivery, batch)
        if delivery is None and len(self._in_flight) == 1:
            await self._settle_oldest()

    def _enter(self, delivery: Delivery | None, batch: Batch) -> None:
        self._in_flight.append((delivery, batch))
        self._batches += 1
        self._streams.batches += 1

    async def _submit(self, batch: Batch) -> Delivery:
        # The lines are here already, so they wait for room even where a new request is refused: nothing
        # more is read meanwhile, which is what the client sees.
        left = self._due - trio.current_time()
        if left <= 0:
            raise Overloaded(f"Kafka did not take the lines within {self._answer_seconds:g} seconds")
        hold = await self._budget.acquire(batch.cost, left)
        delivery = await self._producer.submit(batch.records, hold=hold, deadline=self._due)
        delivery.counted = not self._each
        if self._intent.queued:
            delivery.promise_no_more()
        return delivery

    async def _settle_oldest(self) -> None:
        delivery, batch = self._in_flight[0]
        reports: list[DeliveryReport] = []
        if delivery is not None and not self._intent.queued:
            reports = await delivery.wait()
        self._in_flight.popleft()
        if self._each:
            await self._streams.turn.take(RESULT_COST * len(batch.numbers))
            results = [self._settle(batch, reports)]
            # While the client does not read, the results' bytes are kept and not what they were made of, and
            # once: with their framing, in the connection.
            del delivery, batch, reports
            await self._start()
            began = trio.current_time()
            await self._exchange.send(results.pop())
            self._due += trio.current_time() - began  # the client's time, not Kafka's
        else:
            self._settle(batch, reports)
        self._batches -= 1
        self._streams.batches -= 1

    def _settle(self, batch: Batch, reports: list[DeliveryReport]) -> bytes:
        """Count what became of a batch; its records' results where they are asked for."""
        if self._intent.queued:
            self._tally.count_queued(batch.numbers, batch.failures)
            return b""
        self._tally.count(batch.numbers, reports, batch.failures)
        return self._reader.results(batch, reports) if self._each else b""

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            await self._exchange.start(finished(self._reader.head, self._request_id, self._intent.fields))

    async def _answer(self, error: IngestError | None) -> Response | None:
        if self._each and (self._started or error is None):
            await self._start()
            if error is not None:
                await self._exchange.send(self._reader.last(error))
            await self._exchange.end()
            return None
        return self._reader.answer(self._tally, error)
