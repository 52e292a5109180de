"""A request whose content is read whole before anything of it is produced: one record, or an envelope."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import trio

from ingest.budget import Budget, Hold
from ingest.delivery import Delivery
from ingest.errors import IngestError, Overloaded, TooLarge
from ingest.formats.seam import BATCH_RECORDS, Batch, Intent, Reader
from ingest.http.messages import Response
from ingest.inflating import AnyExchange, Inflated
from ingest.producer import Producer
from ingest.records import DeliveryReport, Receipt
from ingest.turn import Turn

LARGE_BYTES = 65_536
"""Content above this waits for its turn to become a record; below it, reading it takes as long."""
STEPS_ABOVE = 1_048_576
"""An envelope that takes more work than so many bytes of JSON is read in steps: three milliseconds' work."""
OBJECT_COST = 100
"""What a record in an envelope takes beside its bytes, as so many bytes of JSON."""
STEP_COST = 131_072
"""What reading one batch of large content takes, or answering for one, as so many bytes of JSON."""
FAILURE_COST = 1_024
"""What a record that failed costs of the budget until the request is answered: an error, with its words."""
GROWTH_BYTES = 65_536
"""By how much the hold of content of unknown length grows at a time."""


class _Sent(NamedTuple):
    """A batch that was handed over, or why it was not."""

    numbers: Sequence[int]
    failures: Sequence[tuple[int, IngestError]]
    delivery: Delivery | IngestError | None


class Whole:
    """One such request, from its admission to its answer."""

    __slots__ = (
        "_answer_seconds",
        "_beside",
        "_budget",
        "_deadline",
        "_exchange",
        "_intent",
        "_missing",
        "_producer",
        "_reader",
        "_room_until",
        "_turn",
        "_wait_seconds",
        "accepted",
    )

    def __init__(
        self,
        exchange: AnyExchange,
        intent: Intent,
        reader: Reader,
        producer: Producer,
        budget: Budget,
        turn: Turn,
        answer_seconds: float,
        missing: IngestError | None = None,
    ) -> None:
        """`missing` is what each record fails with, whatever it is."""
        self._exchange = exchange
        self._intent = intent
        self._reader = reader
        self._producer = producer
        self._budget = budget
        self._turn = turn
        self._answer_seconds = answer_seconds
        self._missing = missing
        # Of failures, and of the answer until it is sent.
        self._beside = budget.hold_nothing(None)
        self._wait_seconds = intent.wait_seconds
        self._deadline = math.inf
        self._room_until = math.inf  # large content to be read, and what waits for room behind others
        self.accepted = 0
        """Records that were taken."""

    async def run(self) -> Response:
        """Read the content, produce its records, and answer for them."""
        if self._reader.steps:
            self._exchange.keep(self._beside)
        try:
            parts = await self._read()
            if len(parts) == 1 and not parts[0][0].failures:
                return await self._run_one(*parts.pop())
            return await self._run_many(parts)
        except BaseException:
            self._beside.release()
            raise

    async def _run_many(self, parts: list[tuple[Batch, Hold]]) -> Response:
        """Produce the records of several batches, or beside failures, and answer for them."""
        # The batches wait one behind another, and all of them together no longer than one alone.
        self._room_until = min(self._room_until, trio.current_time() + self._answer_seconds)
        if not self._intent.queued:  # what is queued has its own time from then on
            self._deadline = min(self._deadline, self._room_until)
        parts.reverse()
        sent: list[_Sent] = []
        try:
            while parts:
                batch, hold = parts.pop()
                delivery = await self._submit(batch, hold, first=not sent)
                sent.append(_Sent(batch.numbers, batch.failures, delivery))
                # The producer lets go of what librdkafka has copied, and so do we.
                del batch, hold
            reports = await self._reports(sent)
        except BaseException:
            for _, rest in parts:
                rest.release()
            for each in sent:
                if isinstance(each.delivery, Delivery) and not self._intent.queued:
                    each.delivery.withdraw(Overloaded("withdrawn: the caller has gone"))
            raise
        return await self._answer(reports)

    async def _run_one(self, batch: Batch, hold: Hold) -> Response:
        """The same for a batch that is all there is, as most are."""
        count = len(batch.numbers)
        delivery = await self._submit(batch, hold, first=True)
        del batch, hold  # the producer lets go of what librdkafka has copied, and so do we
        if not isinstance(delivery, Delivery):
            return await self._answer([delivery] * count)
        if self._intent.queued:
            self.accepted = count
            return await self._answer([None] * count)
        reports = await delivery.wait()
        self.accepted = sum([type(report) is Receipt for report in reports])
        return await self._answer(reports)

    async def _answer(self, reports: Sequence[DeliveryReport | None]) -> Response:
        """What the reader says, while others get their turn."""
        reader = self._reader
        if not reader.steps:
            return reader.answer(reports)
        if len(reports) <= BATCH_RECORDS:
            return self._kept(reader.answer(reports))
        for response in reader.answer_in_steps(reports):
            if response is not None:
                return self._kept(response)
            await self._turn.take(STEP_COST)
        raise AssertionError("a reader's last step is its answer")

    def _kept(self, response: Response) -> Response:
        """The answer, which is paid for as it is from now on."""
        size = len(response.content or b"")
        if size > self._beside.size:
            with contextlib.suppress(Overloaded):  # records are written: their answer has to be given
                self._beside.grow(size - self._beside.size)
        self._beside.shrink(size)
        return response

    def _cost_beside(self, batch: Batch) -> int:
        """What its failures and the results of all of it cost until they are sent."""
        failed = len(batch.failures)
        return self._reader.result_bytes * (len(batch.numbers) + failed) + FAILURE_COST * failed

    async def _read(self) -> list[tuple[Batch, Hold]]:
        """The records, each batch with its hold, once all of the content is there and makes sense."""
        exchange, intent, reader = self._exchange, self._intent, self._reader
        length = exchange.request.content_length
        if length is not None:
            reader.check_length(length)
        elif isinstance(exchange, Inflated):
            exchange.check_as_it_comes(reader.check_coded_length)
        head_cost = exchange.head_cost
        began = trio.current_time() if self._wait_seconds else 0.0
        here: bytes | bytearray | None = exchange.take_content()
        # What is here is no unfinished content of its peer's.
        peer = exchange.peer if here is None else None
        size = (length or 0) if here is None else len(here)
        hold = await self._budget.acquire(intent.like_cost + head_cost + size, self._wait_seconds, peer)
        waited = trio.current_time() - began if self._wait_seconds else 0.0
        try:
            if here is None:
                here = await self._receive(hold)
            if self._wait_seconds:
                # One deadline for the wait for room and the one for the report; how long the content took,
                # which came in between, is the client's own affair.
                self._deadline = trio.current_time() + self._answer_seconds - waited
                self._wait_seconds = max(0.0, self._wait_seconds - waited)
            content = bytes(here)
            del here
            large = len(content) > LARGE_BYTES
            if large and reader.steps:
                # Where many have so much, reading it takes seconds, which the wait for Kafka does not get.
                self._room_until = trio.current_time() + self._answer_seconds - waited
                parts = await self._read_in_steps(content)
                hold.release()
                return parts
            if large or reader.steps:
                await self._turn.take(
                    len(content) + (OBJECT_COST * content.count(b"{") if reader.steps else 0)
                )
            batch = intent.to_take(reader.read(content))
            if reader.steps:
                self._beside.grow(self._cost_beside(batch))
            # Whoever is told 202 does not wait, and the record that waits has no head.
            cost = batch.cost + (0 if intent.queued else head_cost)
            if cost > hold.size:
                hold.grow(cost - hold.size)
            else:
                hold.shrink(cost)
        except BaseException:
            hold.release()
            raise
        return [(batch, hold)]

    async def _read_in_steps(self, content: bytes) -> list[tuple[Batch, Hold]]:
        """The same of large content, while others get their turn; its records are paid for beside it."""
        parts: list[tuple[Batch, Hold]] = []
        total = 0
        steps = self._reader.read_in_steps(content)
        try:
            while True:
                await self._turn.take(STEP_COST)
                if trio.current_time() > self._room_until:
                    raise Overloaded(
                        f"the content was not read within timeouts.answer_seconds = {self._answer_seconds:g}"
                    )
                batch = next(steps, None)
                if batch is None:
                    return parts
                if not batch.numbers and not batch.failures:
                    continue
                batch = self._intent.to_take(batch)
                beside = self._cost_beside(batch)
                total += batch.cost + beside
                if total > self._budget.limit_bytes // 2:
                    raise TooLarge(
                        f"the records of this request take {total} bytes of limits.held_bytes or more, and "
                        "half of it is the most; send fewer at once"
                    )
                # Without a wait: two that wait for more while they hold some would wait for each other.
                self._beside.grow(beside)
                parts.append((batch, await self._budget.acquire(batch.cost)))
        except BaseException:
            for _, hold in parts:
                hold.release()
            raise

    async def _receive(self, hold: Hold) -> bytearray:
        """The whole content; its hold grows where its length is not known, and is its peer's no more."""
        exchange = self._exchange
        fixed = self._intent.like_cost + exchange.head_cost
        received = bytearray()  # not a list: of small pieces it would cost many times their size
        while data := await exchange.receive():
            received += data
            if exchange.request.content_length is None:
                self._reader.check_length(len(received), more=True)
                while hold.size < fixed + len(received):
                    hold.grow(GROWTH_BYTES)
        hold.finish()
        return received

    async def _submit(self, batch: Batch, hold: Hold, *, first: bool) -> Delivery | IngestError | None:
        """Hand a batch over; None where there is nothing to hand over, or why it was not taken."""
        if not batch.records or self._missing is not None:
            hold.release()
            return self._missing
        left = self._room_until - trio.current_time()
        if not first and left <= 0:
            hold.release()
            return Overloaded(f"Kafka did not take the records within {self._answer_seconds:g} seconds")
        # What comes behind others waits for room even where a new request is refused.
        wait_seconds = self._wait_seconds if first else min(left, self._answer_seconds)
        try:
            delivery = await self._producer.submit(
                batch.records, hold=hold, wait_seconds=wait_seconds, deadline=self._deadline
            )
        except IngestError as error:
            if first:
                raise
            return error.alone()
        delivery.counted = self._intent.queued or not self._reader.places
        if self._intent.queued:
            delivery.promise_no_more()
        return delivery

    async def _reports(self, sent: Sequence[_Sent]) -> list[DeliveryReport | None]:
        """What became of each record and of each failure, in the order of their numbers."""
        reports: list[DeliveryReport | None] = []
        for numbers, failures, delivery in sent:
            found: Sequence[DeliveryReport | None]
            if isinstance(delivery, IngestError):
                found = [delivery] * len(numbers)
            elif delivery is None or self._intent.queued:
                found = [None] * len(numbers)
                self.accepted += len(numbers)
            else:
                found = await delivery.wait()
                self.accepted += sum(type(report) is Receipt for report in found)
            if not failures:
                reports += found
                continue
            reports += [None] * (len(numbers) + len(failures))
            for number, report in zip(numbers, found, strict=True):
                reports[number - 1] = report
            for number, failure in failures:
                reports[number - 1] = failure
        return reports
