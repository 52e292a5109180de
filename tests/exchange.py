"""Requests to an `Intake` over memory streams, and the check that nothing stays held after them."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
import trio.testing

from ingest.budget import Budget
from ingest.config import Config
from ingest.faultlog import FaultLog
from ingest.formats.seam import Format
from ingest.http.connection import Connection
from ingest.http.http1_protocol import HTTP1Protocol
from ingest.http.listeners import Listeners
from ingest.http.protocol import HTTPProtocol
from ingest.http.streams import ByteStream
from ingest.intake import Intake
from ingest.metrics import Metrics
from ingest.producer import Producer
from ingest.testing import StallingProducer
from ingest.turn import Turn
from tests.client import Answer, Client

HANGS = 7200.0
"""Seconds, of a clock that jumps, after which a test is given up."""
PEER = "192.0.2.1"

Pair = tuple[ByteStream, ByteStream]


class Exchanges:
    """An intake and connections to it, each in its task and under the sweep."""

    def __init__(
        self,
        config: Config,
        producer: Producer,
        budget: Budget,
        nursery: trio.Nursery,
        formats: Sequence[Format] = (),
    ) -> None:
        self.budget = budget
        self.connections: list[Connection] = []
        self._intake = Intake(
            config, producer, budget, Metrics(), FaultLog(logging.getLogger("ingest.tests")), Turn(), formats
        )
        self._timeouts = config.timeouts
        self._nursery = nursery
        self._listeners = Listeners([], never, most=1)
        nursery.start_soon(self._listeners.sweep)

    def connect(
        self,
        peer: str = PEER,
        pair: Callable[[], Pair] = trio.testing.memory_stream_pair,
        make_protocol: Callable[[], HTTPProtocol] = HTTP1Protocol,
    ) -> Client:
        """A client at a new connection."""
        client, server = pair()
        intake = self._intake
        refuse = functools.partial(intake.refuse, peer)
        connection = Connection(
            server, peer, make_protocol(), intake, refuse, self._timeouts, budget=self.budget
        )
        self.connections.append(connection)
        self._listeners.connections.add(connection)
        self._nursery.start_soon(self._serve, connection)
        return Client(client)

    async def ask(self, data: bytes) -> Answer:
        """Send a request on a new connection and read its answer."""
        client = self.connect()
        answer = await client.ask(data)
        await client.close()
        return answer

    async def _serve(self, connection: Connection) -> None:
        await connection.serve()
        self._listeners.connections.discard(connection)


def never(stream: ByteStream, peer: str) -> Connection:
    raise AssertionError("nothing is accepted here")


@asynccontextmanager
async def open_exchanges(
    producer: Producer,
    config: Config = Config(),  # noqa: B008  # frozen
    *,
    budget: Budget | None = None,
    formats: Sequence[Format] = (),
) -> AsyncIterator[Exchanges]:
    """An intake on `producer`.  At the end it is cancelled, and then nothing may be held any more."""
    budget = budget or Budget(config.limits.held_bytes)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = begun + HANGS
        yield Exchanges(config, producer, budget, nursery, formats)
        nursery.cancel_scope.cancel()
    assert trio.current_time() < begun + HANGS, "the test hung"
    if isinstance(producer, StallingProducer):
        producer.release()  # what was handed over is held until it has its report
    await assert_nothing_held(budget)


async def assert_nothing_held(budget: Budget) -> None:
    """Everything is back: of the whole, of the peer's quarter, and of the half for streams."""
    assert budget.held_bytes == 0
    for hold in [
        await budget.acquire(1, peer=PEER),
        await budget.acquire(budget.limit_bytes // 4 - 1, peer=PEER),
        await budget.acquire(budget.limit_bytes // 2, window=True),
    ]:
        hold.release()
