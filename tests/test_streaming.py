"""NDJSON over HTTP: many records a request, produced as their lines come, and what is said of them."""

from __future__ import annotations

import gc
import itertools
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ingest.budget import Hold
from ingest.config import Config
from ingest.delivery import Delivery
from ingest.errors import (
    DeliveryFailed,
    DeliveryUnknown,
    Draining,
    IngestError,
    KafkaUnavailable,
    Overloaded,
    RecordRefused,
    UnknownPartition,
)
from ingest.formats.seam import BATCH_RECORDS
from ingest.http.exchange import RECEIVE_BYTES, Exchange
from ingest.http.framing import CHUNKS_AT_ONCE, MessageReader
from ingest.inflating import Inflated
from ingest.records import DeliveryReport, Record
from ingest.route import Route
from ingest.sections import Limits, Timeouts
from ingest.streaming import BATCHES_IN_FLIGHT, Stream
from ingest.testing import FailingProducer, MemoryProducer, StallingProducer
from tests.client import chunk, request
from tests.exchange import open_exchanges

LINES = "Content-Type: application/x-ndjson"
CHUNKED = "Transfer-Encoding: chunked"
OPEN = request("POST /", LINES, CHUNKED)
OPEN_OFFSETS = request("POST /?offsets=true", LINES, CHUNKED)

SMALL = Config(limits=Limits(request_bytes=100_000, record_bytes=100_000, held_bytes=1_000_000))


class ChoosyProducer(MemoryProducer):
    """Reports what a record's value names: `{"report": "unknown"}`."""

    errors: dict[str, IngestError] = {  # noqa: RUF012
        "unknown": DeliveryUnknown("no report came in time"),
        "refused": RecordRefused("a broker refused the record"),
        "partition": UnknownPartition("there is no such partition"),
        "down": KafkaUnavailable("all brokers are down"),
        "failed": DeliveryFailed("Kafka says something else"),
    }

    def _report(self, record: Record) -> DeliveryReport:
        assert record.value is not None
        error = self.errors.get(json.loads(record.value)["report"])
        return error or super()._report(record)


class ShortProducer(MemoryProducer):
    """Takes some batches, and then nothing new."""

    def __init__(self, batches: int, error: IngestError) -> None:
        super().__init__()
        self._left = batches
        self._error = error

    async def submit(self, records: Any, *, hold: Hold | None = None, **more: Any) -> Delivery:
        if not self._left:
            if hold is not None:
                hold.release()
            raise self._error
        self._left -= 1
        return await super().submit(records, hold=hold, **more)


def post(*lines: bytes, target: str = "/", fields: tuple[str, ...] = ()) -> bytes:
    return request(f"POST {target}", LINES, *fields, content=b"".join(line + b"\n" for line in lines))


def reports(*names: str) -> bytes:
    return post(*(json.dumps({"report": name}).encode() for name in names))


def line_of(result: dict[str, Any]) -> tuple[int, int, str]:
    return result["line"], result["error_code"], result["outcome"]


# Answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "media_type",
    [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl; charset=utf-8",
        "application/x-jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
    ],
)
async def test_each_line_becomes_a_record(media_type: str) -> None:
    producer = MemoryProducer()
    content = b'{"a":1}\r\n\n  \n[2]\n"no newline"'
    async with open_exchanges(producer) as exchanges:
        asked = request("POST /?key=k", f"Content-Type: {media_type}", "Kafka-Header-H: v", content=content)
        answer = await exchanges.ask(asked)
    assert (answer.status, answer.json) == (200, {"accepted": 3, "failed": 0})
    headers = (("h", b"v"),)
    assert producer.records == [
        Record("events", value, b"k", headers) for value in (b'{"a":1}', b"[2]", b'"no newline"')
    ]


async def test_lines_keep_their_order_however_they_are_cut() -> None:
    producer = MemoryProducer()
    lines = [b'{"n":%d}' % n for n in range(5000)]
    content = b"\n".join(lines)
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN)
        for at in range(0, len(content), 777):
            await client.send(chunk(content[at : at + 777]))
            await trio.lowlevel.checkpoint()
        assert (await client.ask(chunk(b""))).json == {"accepted": 5000, "failed": 0}
    assert [record.value for record in producer.records] == lines


async def test_line_that_is_not_json_fails_alone() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(post(b'{"a":1}', b"{]", b"3"))
    body = answer.json
    assert (answer.status, body["accepted"], body["failed"]) == (207, 2, 1)
    assert [line_of(result) for result in body["results"]] == [(2, 42206, "not_written")]
    assert [record.value for record in producer.records] == [b'{"a":1}', b"3"]


async def test_line_without_its_key_fails_alone() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(post(b'{"k":"a"}', b"{}", target="/?key_field=k"))
    assert (answer.status, line_of(answer.json["results"][0])) == (207, (2, 42206, "not_written"))
    assert [record.key for record in producer.records] == [b"a"]


@pytest.mark.parametrize("line", [b"{}", b'{"%b":null}' % (200 * b"k")])
async def test_what_each_line_says_of_its_key_is_short(line: bytes) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(post(line, line, target=f"/?key_field={200 * 'k'}"))
    for result in answer.json["results"]:
        assert len(result["message"]) <= 160
        assert 60 * "k" in result["message"]


async def test_line_too_long_fails_alone_and_names_the_limit() -> None:
    async with open_exchanges(MemoryProducer(record_bytes=1000)) as exchanges:
        answer = await exchanges.ask(post(b"1", b'"' + bytes(200_000) + b'"', b"3"))
    assert (answer.status, answer.json["accepted"]) == (207, 2)
    assert line_of(answer.json["results"][0]) == (2, 413, "not_written")
    assert "limits.record_bytes" in answer.json["results"][0]["message"]


async def test_lines_are_passed_on_unread_where_the_client_says_so() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(post(b"not JSON", b"\xff", target="/?validate=false"))
    assert answer.status == 200
    assert [record.value for record in producer.records] == [b"not JSON", b"\xff"]


async def test_blank_lines_count_where_a_line_is_named() -> None:
    content = b"1\n" + 2_500 * b"\n" + 1_500 * b" \r\n" + b"\n{]\r\n" + 3_000 * b"\r\n" + b"2\n\n"
    async with open_exchanges(MemoryProducer()) as exchanges:
        body = (await exchanges.ask(request("POST /", LINES, content=content))).json
        assert (body["accepted"], [line_of(each) for each in body["results"]]) == (
            2,
            [(4_003, 42206, "not_written")],
        )
        answer = await exchanges.ask(request("POST /?offsets=true", LINES, content=content))
    assert [each["line"] for each in answer.lines] == [1, 4_003, 7_004]


async def test_no_lines_are_no_failure() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        assert (await exchanges.ask(post())).json == {"accepted": 0, "failed": 0}


async def test_at_most_100_failures_are_listed_and_the_rest_is_counted() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(post(b"1", *(3000 * [b"{"])))
    assert (answer.json["accepted"], answer.json["failed"]) == (1, 3000)
    assert [result["line"] for result in answer.json["results"]] == list(range(2, 102))


@pytest.mark.parametrize(
    ("names", "status", "error_code"),
    [
        (["ok", "ok"], 200, None),
        (["ok", "unknown"], 207, None),
        (["refused", "partition"], 400, 40002),
        (["partition", "refused"], 404, 40402),
        (["down", "refused"], 503, 50302),
        (["down", "refused", "unknown"], 504, 50003),
        (["unknown", "down"], 504, 50003),
        (["failed"], 504, 50003),
        (["refused", "failed", "down"], 504, 50003),
        (["failed", "ok"], 207, None),
    ],
)
async def test_status_says_the_worst_of_a_failure_of_all_lines(
    names: list[str], status: int, error_code: int | None
) -> None:
    async with open_exchanges(ChoosyProducer()) as exchanges:
        answer = await exchanges.ask(reports(*names))
    body = answer.json
    assert (answer.status, body.get("error_code")) == (status, error_code)
    assert body["accepted"] == names.count("ok")
    assert body["failed"] == len(names) - body["accepted"]
    assert len(body.get("results", [])) == body["failed"]
    assert body.get("retriable", False) == (status in (503, 504))
    assert ("retry-after" in answer.fields) == (status == 503)


async def test_content_that_breaks_off_behind_unknown_outcomes_is_unknown_and_no_fault_of_the_sender() -> (
    None
):
    async with open_exchanges(ChoosyProducer()) as exchanges:
        client = exchanges.connect()
        lines = b'{"report": "unknown"}\n' * 200
        await client.send(request("POST /", LINES, CHUNKED) + chunk(lines) + b"x\r\n")
        answer = await client.answer()
    assert (answer.status, answer.json["outcome"]) == (504, "unknown")
    assert (answer.json["accepted"], answer.json["failed"]) == (0, 200)


async def test_no_report_in_time_is_unknown_for_every_line(autojump_clock: MockClock) -> None:
    async with open_exchanges(StallingProducer()) as exchanges:
        answer = await exchanges.ask(post(b"1", b"2"))
    body = answer.json
    assert (answer.status, body["outcome"], body["accepted"], body["failed"]) == (504, "unknown", 0, 2)
    assert body["retriable"]  # as of a single record: sending again can help, and may store it twice
    assert Timeouts().answer_seconds <= trio.current_time() <= Timeouts().answer_seconds + 1


async def test_all_lines_that_are_here_have_one_deadline(autojump_clock: MockClock) -> None:
    count = 30_000  # more than may be on their way at once
    async with open_exchanges(StallingProducer()) as exchanges:
        answer = await exchanges.ask(post(*[b"1"] * count))
        assert Timeouts().answer_seconds <= trio.current_time() <= Timeouts().answer_seconds + 1
    body = answer.json
    assert (answer.status, body["outcome"], body["accepted"]) == (504, "unknown", 0)
    assert "the rest was not: Kafka did not take the lines" in body["message"]
    assert 0 < body["failed"] < count


async def test_lines_that_were_not_submitted_by_the_deadline_were_not_written(
    autojump_clock: MockClock,
) -> None:
    async with open_exchanges(StallingProducer()) as exchanges:
        answer = await exchanges.ask(post(*[b"1"] * 30_000, target="/?offsets=true"))
    *lines, last = answer.lines
    submitted = BATCHES_IN_FLIGHT * BATCH_RECORDS
    assert [line["outcome"] for line in lines] == ["unknown"] * submitted + ["not_written"] * BATCH_RECORDS
    assert "line" not in last
    assert last["outcome"] == "not_written"


async def test_wait_for_room_and_for_reports_have_one_deadline(autojump_clock: MockClock) -> None:
    async with open_exchanges(StallingProducer(), SMALL) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN)
        await trio.testing.wait_all_tasks_blocked()
        hold = await exchanges.budget.acquire(SMALL.limits.held_bytes - exchanges.budget.held_bytes)
        await client.send(chunk(b"1\n") + chunk(b""))
        await trio.sleep(6)
        hold.release()
        answer = await client.answer()
        assert (answer.status, answer.json["outcome"]) == (504, "unknown")
        assert trio.current_time() <= Timeouts().answer_seconds + 1


async def test_deadline_counts_from_the_lines_that_came_last(autojump_clock: MockClock) -> None:
    producer = StallingProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN + chunk(b"1\n"))
        await trio.sleep(8)
        await client.send(chunk(b"2\n") + chunk(b""))
        await trio.sleep(8)
        producer.release()
        answer = await client.answer()
        assert (answer.json["accepted"], answer.json["failed"]) == (1, 1)


async def test_client_that_is_slow_to_read_results_has_the_lines_behind_them_written(
    autojump_clock: MockClock,
) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect(pair=trio.testing.lockstep_stream_pair)
        batches = BATCHES_IN_FLIGHT + 3
        await client.send(post(*[b"1"] * batches * BATCH_RECORDS, target="/?offsets=true"))
        await client.head()
        lines = b""
        for _ in range(batches):
            await trio.sleep(6)
            lines += await client.chunk()
        assert b"error" not in lines
        assert lines.count(b"\n") == len(producer.records) == batches * BATCH_RECORDS


@pytest.mark.parametrize(
    ("prefer", "lines", "status", "content"),
    [
        ("return=minimal", [b"1"], 204, None),
        ("return=minimal", [b"1", b"{"], 207, {"accepted": 1, "failed": 1}),
        ("respond-async", [b"1", b"2"], 202, {"accepted": 2, "failed": 0}),
        ("respond-async", [b"1", b"{"], 202, {"accepted": 1, "failed": 1}),
        ("respond-async, return=minimal", [b"1"], 202, None),
        ("respond-async", [b"{"], 400, {"accepted": 0, "failed": 1}),
    ],
)
async def test_preferences(prefer: str, lines: list[bytes], status: int, content: Any) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(post(*lines, fields=(f"Prefer: {prefer}",)))
    assert answer.status == status
    if content is None:
        assert answer.content == b""
    else:
        assert {name: answer.json[name] for name in content} == content


async def test_queued_lines_are_answered_before_their_reports_and_counted_if_lost() -> None:
    producer = StallingProducer()
    config = Config(routes=[Route("/", "events", promise="queued")])
    async with open_exchanges(producer, config) as exchanges:
        answer = await exchanges.ask(post(b"1", b"2"))
        assert (answer.status, producer.pending) == (202, 2)
        await producer.drain(0)
        assert producer.ledger.lost == 2


async def test_offsets_of_queued_lines_are_refused() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        asked = post(b"1", target="/?offsets=true", fields=("Prefer: respond-async",))
        assert (await exchanges.ask(asked)).status == 400


# Results, line by line -------------------------------------------------------------------------------------


async def test_offsets_of_every_line_are_streamed() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(post(b"1", b"{", b"3", target="/?offsets=true"))
    assert answer.status == 200
    assert answer.fields["content-type"] == "application/x-ndjson"
    first, second, third = answer.lines
    assert first == {"line": 1, "partition": 0, "offset": 0}
    assert line_of(second) == (2, 42206, "not_written")
    assert third == {"line": 3, "partition": 0, "offset": 1}


async def test_client_can_wait_for_a_lines_result_before_it_sends_the_next() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN_OFFSETS + chunk(b"1\n"))
        assert (await client.head())[0] == 200
        for number in range(1, 20):
            assert json.loads(await client.chunk())["line"] == number
            await client.send(chunk(b"1\n"))
        await client.send(chunk(b""))
        assert json.loads(await client.chunk())["line"] == 20
        assert await client.chunk() == b""
        assert (await client.ask(post(b"1"))).status == 200


async def test_answer_with_results_begins_before_any_line_is_sent() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN_OFFSETS)
        assert (await client.head())[0] == 200
        await client.send(chunk(b"1\n") + chunk(b""))
        assert json.loads(await client.chunk()) == {"line": 1, "partition": 0, "offset": 0}


async def test_http_1_0_client_reads_offsets_to_the_end_of_the_connection() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        asked = request("POST /?offsets=true", LINES, content=b"1\n2\n", version="1.0")
        answer = await exchanges.ask(asked)
    assert [result["offset"] for result in answer.lines] == [0, 1]


async def test_client_that_stops_reading_stops_the_reading_of_its_request(autojump_clock: MockClock) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect(pair=trio.testing.lockstep_stream_pair)
        await client.send(OPEN_OFFSETS + chunk(10 * b"1\n"))
        with pytest.raises(trio.BrokenResourceError):  # cut off by the deadline for taking the answer
            while True:
                await client.send(chunk(10 * b"1\n"))
        assert len(producer.records) <= 20
        assert Timeouts().send_seconds <= trio.current_time() <= Timeouts().send_seconds + 1
        assert exchanges.budget.held_bytes == 0


# Bounds ----------------------------------------------------------------------------------------------------


async def test_lines_are_produced_while_the_content_is_open() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN)
        for n in range(1, 4):
            await client.send(chunk(b"1\n"))
            await trio.testing.wait_all_tasks_blocked()
            assert len(producer.records) == n


async def test_endless_content_stays_within_its_bounds() -> None:
    class Forgetful(MemoryProducer):
        def _report(self, record: Record) -> DeliveryReport:
            report = super()._report(record)
            self.records.clear()
            return report

    producer = Forgetful()
    async with open_exchanges(producer, SMALL) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN)
        piece = chunk(600 * (b'"' + 98 * b"x" + b'"\n'))
        peak = 0
        for count in range(150):
            await client.send(piece)
            await trio.testing.wait_all_tasks_blocked()
            peak = max(peak, exchanges.budget.held_bytes)
            if count == 50:
                tracemalloc.start()
        _, traced = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (await client.ask(chunk(b""))).json == {"accepted": 150 * 600, "failed": 0}
    assert peak <= 100_000
    assert traced <= 2 << 20  # of 6 MB read meanwhile


async def test_stalled_producer_stops_the_reading_of_the_content() -> None:
    producer = StallingProducer()
    async with open_exchanges(producer, SMALL) as exchanges:
        client = exchanges.connect(pair=trio.testing.lockstep_stream_pair)
        sent = 0
        moves = trio.Event()
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                nonlocal sent
                await client.send(OPEN)
                while True:
                    await client.send(chunk(100 * (b'"' + 98 * b"x" + b'"\n')))
                    sent += 1
                    moves.set()

            nursery.start_soon(flood)
            await trio.testing.wait_all_tasks_blocked()
            assert 0 < exchanges.budget.held_bytes <= SMALL.limits.held_bytes
            assert sent <= producer.pending // 100 + 1  # which waits for room, read already
            moves = trio.Event()
            producer.release()
            await moves.wait()
            nursery.cancel_scope.cancel()


async def test_client_waits_for_room_with_lines_that_it_has_sent_already(autojump_clock: MockClock) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, SMALL) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN)
        await trio.testing.wait_all_tasks_blocked()
        hold = await exchanges.budget.acquire(SMALL.limits.held_bytes - exchanges.budget.held_bytes)
        await client.send(chunk(b"1\n"))
        await trio.sleep(5)
        assert producer.records == []
        hold.release()
        assert (await client.ask(chunk(b""))).status == 200


async def test_headers_of_each_line_are_paid_for() -> None:
    held = []
    for headers in (0, 40):
        producer = StallingProducer()
        async with open_exchanges(producer) as exchanges:
            fields = [f"Kafka-Header-{number}:" for number in range(headers)]
            await exchanges.connect().send(post(*(400 * [b"1"]), fields=("Prefer: respond-async", *fields)))
            await trio.testing.wait_all_tasks_blocked()
            held.append(exchanges.budget.held_bytes)
    assert held[1] - held[0] >= 400 * 40 * 100


async def test_results_that_clients_do_not_read_are_paid_for() -> None:
    lines = post(*(500 * [b"x"]), target="/?offsets=true")
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        clients = [
            exchanges.connect(peer=f"192.0.2.{number}", pair=trio.testing.lockstep_stream_pair)
            for number in range(10)
        ]
        for client in clients:
            await client.send(lines)
        await trio.testing.wait_all_tasks_blocked()
        held = exchanges.budget.held_bytes
        answers = [await client.answer() for client in clients]
    taken = [answer for answer in answers if answer.status == 200]
    assert 0 < len(taken) < 10
    assert {answer.status for answer in answers} == {200, 503}
    assert sum(len(answer.content) for answer in taken) <= held <= SMALL.limits.held_bytes // 2


async def test_a_short_stream_holds_little_for_its_results() -> None:
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        await exchanges.connect().send(request("POST /?offsets=true", LINES, "Content-Length: 20"))
        await trio.testing.wait_all_tasks_blocked()
        assert exchanges.budget.held_bytes < 5000


LEAST = Config(limits=Limits(held_bytes=2 * (1_000_000 + 262_144)))
"""The least that may be held for records of the default size."""


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(post(*(500 * [b"1"]), target=f"/?key={2000 * 'k'}"), id="many lines with a long key"),
        pytest.param(
            post(*(500 * [b"1"]), fields=tuple(f"Kafka-Header-{number}: x" for number in range(90))),
            id="many lines with many headers",
        ),
        pytest.param(post(b'"%b"' % (999_998 * b"x")), id="the longest line"),
        pytest.param(
            post(b'"%b"' % (999_998 * b"x"), target="/?offsets=true"), id="the same with its result"
        ),
        pytest.param(
            post(b'{"k":"%b"}' % (490_000 * b"x"), target="/?key_field=k"), id="a line that is mostly its key"
        ),
    ],
)
async def test_the_least_budget_has_room_for_every_stream(asked: bytes) -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, LEAST) as exchanges:
        assert (await exchanges.ask(asked)).status == 200


async def test_a_fast_stream_goes_on_as_it_is_where_somebody_waits_for_room(
    autojump_clock: MockClock,
) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges, trio.open_nursery() as nursery:

        async def wait_in_vain() -> None:
            with pytest.raises(Overloaded):
                await exchanges.budget.acquire(exchanges.budget.limit_bytes, 1)

        client = exchanges.connect()
        await client.send(OPEN)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait_in_vain)
        await trio.testing.wait_all_tasks_blocked()
        await client.send(chunk(4 * RECEIVE_BYTES * b"\n"))  # blank lines need no room
        await trio.sleep(2)
        answer = await client.ask(chunk(b"1\n") + chunk(b""))
        assert (answer.status, answer.json) == (200, {"accepted": 1, "failed": 0})


async def test_new_stream_is_refused_where_streams_hold_half_of_the_budget() -> None:
    async with open_exchanges(MemoryProducer(), SMALL) as exchanges:
        for n in range(7):  # of 64 KiB each
            await exchanges.connect(peer=f"192.0.2.{n}").send(OPEN)
            await trio.testing.wait_all_tasks_blocked()
        answer = await exchanges.connect(peer="192.0.2.7").ask(OPEN)
        assert (answer.status, answer.json["outcome"]) == (503, "not_written")
        assert "half" in answer.json["message"]
        assert (await exchanges.ask(request("POST /", content=b"x"))).status == 200


# Errors in the middle --------------------------------------------------------------------------------------


async def test_broken_chunk_is_answered_with_what_was_accepted() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(OPEN + chunk(b"1\n{\n3") + b"broken\r\n")
    body = answer.json
    assert (answer.status, answer.closes) == (400, True)
    assert (body["error_code"], body["accepted"], body["failed"]) == (400, 1, 1)
    assert line_of(body["results"][0]) == (2, 42206, "not_written")
    assert [record.value for record in producer.records] == [b"1"]  # the third line had no end


async def test_content_that_stops_is_answered_with_what_was_accepted(autojump_clock: MockClock) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(OPEN + chunk(b"1\n2\n3"))
    body = answer.json
    assert (answer.status, answer.closes) == (408, True)
    assert (body["error_code"], body["accepted"], body["failed"]) == (408, 2, 0)


async def test_stream_cut_short_by_its_client_is_answered_with_what_was_accepted() -> None:
    pair = trio.testing.memory_stream_pair()
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect(pair=lambda: pair)
        await client.send(OPEN + chunk(b"1\n2\n"))
        await pair[0].send_eof()
        answer = await client.answer()
    assert (answer.status, answer.json["accepted"]) == (400, 2)


@pytest.mark.parametrize(
    "error", [Overloaded("no room"), Draining("it drains"), KafkaUnavailable("brokers are down")]
)
async def test_refusal_after_some_lines_were_taken_does_not_say_that_nothing_was_written(
    error: IngestError,
) -> None:
    async with open_exchanges(ShortProducer(1, error)) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN + chunk(b"1\n2\n"))
        await trio.testing.wait_all_tasks_blocked()
        answer = await client.ask(chunk(b"3\n"))
    body = answer.json
    assert (answer.status, body["error_code"], body["outcome"]) == (504, 50003, "unknown")
    assert not body["retriable"]  # all of it again would store the first lines twice
    assert error.message in body["message"]
    assert (body["accepted"], body["failed"]) == (2, 1)
    assert [(result["line"], result["outcome"]) for result in body["results"]] == [(3, "not_written")]
    assert answer.closes  # as content may follow that nobody will read


async def test_refusal_of_the_first_lines_is_a_refusal_of_all() -> None:
    producer = ShortProducer(0, KafkaUnavailable("brokers are down"))
    async with open_exchanges(producer) as exchanges:
        answer = await exchanges.ask(post(b"1", b"2"))
    body = answer.json
    assert (answer.status, body["outcome"], body["failed"]) == (503, "not_written", 2)
    assert "retry-after" in answer.fields


async def test_refused_lines_are_results_too() -> None:
    producer = ShortProducer(1, KafkaUnavailable("brokers are down"))
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN_OFFSETS + chunk(b"1\n"))
        await trio.testing.wait_all_tasks_blocked()
        answer = await client.ask(chunk(b"2\n"))
    taken, refused, error = answer.lines
    assert taken == {"line": 1, "partition": 0, "offset": 0}
    assert line_of(refused) == (2, 50302, "not_written")
    assert error == {name: refused[name] for name in refused if name != "line"}


async def test_error_before_the_first_result_has_its_status() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(OPEN_OFFSETS + b"broken\r\n")
    assert (answer.status, answer.json["accepted"]) == (400, 0)


async def test_error_in_a_streamed_answer_is_its_last_line() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(OPEN_OFFSETS + chunk(b"1\n") + b"broken\r\n")
    assert answer.status == 200
    result, error = answer.lines
    assert result == {"line": 1, "partition": 0, "offset": 0}
    assert error["error_code"] == 400
    assert "line" not in error


async def test_lines_that_fail_for_good_do_not_stop_the_others() -> None:
    async with open_exchanges(FailingProducer(RecordRefused("not this one"))) as exchanges:
        client = exchanges.connect()
        answer = await client.ask(post(*(5000 * [b"1"])))
        assert (answer.status, answer.json["failed"]) == (400, 5000)
        assert (await client.ask(post(b"1"))).status == 400


async def test_reset_takes_back_what_was_not_handed_over() -> None:
    class Waiting(MemoryProducer):
        """Takes deliveries and hands none over."""

        async def submit(self, records: Any, *, hold: Hold | None = None, **_: Any) -> Delivery:
            self.ledger.accepted += len(records)
            return Delivery(records, hold=hold, ledger=self.ledger)

    producer = Waiting()
    async with open_exchanges(producer) as exchanges:
        client = exchanges.connect()
        await client.send(OPEN)
        for _ in range(3):
            await client.send(chunk(b"1\n2\n"))
            await trio.testing.wait_all_tasks_blocked()
        assert producer.ledger.pending == 6
        exchanges.connections[0].abandon()
        await trio.testing.wait_all_tasks_blocked()
        assert exchanges.budget.held_bytes == 0
    assert (producer.ledger.failed, producer.ledger.unknown) == (6, 0)


# Many streams at once ---------------------------------------------------------------------------------


async def test_many_streams_have_few_batches_on_their_way_together() -> None:
    producer = StallingProducer()
    async with open_exchanges(producer) as exchanges:
        clients = [exchanges.connect() for _ in range(40)]
        for client in clients:
            await client.send(OPEN + chunk(b"1\n" * 5 * BATCH_RECORDS))
        await trio.testing.wait_all_tasks_blocked()
        assert producer.pending <= (16 + 40) * BATCH_RECORDS
        producer.release()
        for client in clients:
            assert (await client.ask(chunk(b""))).json == {"accepted": 5 * BATCH_RECORDS, "failed": 0}


async def test_of_many_streams_about_one_decodes_in_each_pass_of_the_loop() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        clients = [exchanges.connect() for _ in range(20)]
        for client in clients:
            await client.send(OPEN + chunk(b"x\n" * 10 * BATCH_RECORDS) + chunk(b""))
        async with passes_counted() as passes:
            for client in clients:
                assert (await client.answer()).json["failed"] == 10 * BATCH_RECORDS
    # Until one is read, lines are taken for plain ones; little that is left of a turn is somebody else's.
    assert len(passes) >= 20 * 9 * 0.9


async def test_blank_lines_between_others_are_skipped_over_many_passes_of_the_loop() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        clients = [exchanges.connect() for _ in range(20)]
        for client in clients:
            await client.send(OPEN + chunk(20 * (b"1\n" + (BATCH_RECORDS - 1) * b"\n")) + chunk(b""))
        async with passes_counted() as passes:
            for client in clients:
                assert (await client.answer()).json == {"accepted": 20, "failed": 0}
    # Of 400 batches about three are looked at in a turn.
    assert len(passes) >= 20 * 20 // 4


@pytest.mark.parametrize(
    ("head", "status"),
    [(request("POST /", CHUNKED), 200), (OPEN, 200), (request("POST /none", CHUNKED), 404)],
    ids=["one record", "lines", "content that nobody reads"],
)
async def test_a_read_of_many_chunks_is_taken_over_many_passes_of_the_loop(head: bytes, status: int) -> None:
    asked = head + 10_000 * chunk(b"\n") + chunk(b"")
    assert len(asked) < RECEIVE_BYTES
    async with open_exchanges(MemoryProducer()) as exchanges:
        client = exchanges.connect()
        async with passes_counted() as passes:
            answer = await client.ask(asked)
            assert (answer.status, answer.closes) == (status, False)
    assert len(passes) >= 10_000 // CHUNKS_AT_ONCE


async def test_of_many_large_records_one_is_looked_into_in_each_pass_of_the_loop() -> None:
    producer = MemoryProducer()
    asked = request("POST /?key_field=k", content=b'{"k":1,"v":"' + 100_000 * b"x" + b'"}')
    async with open_exchanges(producer) as exchanges:
        clients = [exchanges.connect() for _ in range(20)]
        for client in clients:
            await client.send(asked[:-1])
        await trio.testing.wait_all_tasks_blocked()
        async with passes_counted(lambda: len(producer.records)) as passes:
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.send, asked[-1:])
            for client in clients:
                assert (await client.answer()).status == 200
    # The look itself comes early in one pass and late in another.
    assert max(after - before for before, after in itertools.pairwise([0, *passes])) <= 2


@asynccontextmanager
async def passes_counted(look: Callable[[], int] = int) -> AsyncIterator[list[int]]:
    """What `look` gave in each pass of the loop while the block lasted."""
    passes: list[int] = []

    async def count() -> None:
        while True:
            passes.append(look())
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        yield passes
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "asked",
    [
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        request("POST /", CHUNKED) + b"x\r\n",
        OPEN + b"x\r\n",
        request("GET /none", "Connection: close"),
        request("POST /?offsets=true", LINES, CHUNKED) + b"x\r\n",
        request("POST /v3/clusters/c/topics/t/records", "Content-Type: application/json", content=b'{"a'),
        request("POST /v3/clusters/c/topics/t/records", "Content-Encoding: gzip", content=b"no gzip"),
    ],
)
async def test_refused_request_leaves_no_circle_of_garbage(asked: bytes) -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        await exchanges.ask(request("GET /none", "Connection: close"))
        exchanges.connections.clear()
        gc.collect()
        gc.disable()
        try:
            before = living()  # tests that ran earlier may still be spoken of somewhere
            assert (await exchanges.ask(asked)).status in (200, 400, 404)
            await trio.testing.wait_all_tasks_blocked()
            exchanges.connections.clear()
            assert living() == before
        finally:
            gc.enable()


def living() -> list[object]:
    kept = (Exchange, Inflated, MessageReader, Stream)
    return [each for each in gc.get_objects() if isinstance(each, kept)]
