"""A coroutine that goes on where it is woken, and connections of the service that do."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

import ingest
from ingest.parking import Place, current, own_task, park
from tests.client import Client, chunk, request
from tests.mock_kafka import open_mock_kafka

HANGS = 30.0
CONFIG = ingest.Config(management=ingest.Management(enabled=False), http=ingest.HTTP(port=0))


class Parked:
    """A coroutine at a place, and the task that it belongs to."""

    def __init__(self, steps: Callable[[], Awaitable[object]]) -> None:
        self.place = Place()
        self.scope = trio.CancelScope()
        self.result: object = None
        self.error: BaseException | None = None
        self.task: trio.lowlevel.Task | None = None
        self._steps = steps

    async def run(self) -> None:
        self.task = trio.lowlevel.current_task()

        async def steps() -> object:
            return await self._steps()

        with self.scope:
            try:
                self.result = await self.place.run(steps())
            except ValueError as error:
                self.error = error


async def test_it_runs_in_its_task_until_it_is_parked_and_then_where_it_is_woken() -> None:
    tasks: list[trio.lowlevel.Task] = []
    places: list[Place | None] = []

    def note() -> None:
        tasks.append(trio.lowlevel.current_task())
        places.append(current())

    async def steps() -> str:
        note()
        await trio.lowlevel.checkpoint()
        await park()
        note()
        await park()
        note()
        await own_task()
        note()
        with trio.move_on_after(0.01):
            await trio.sleep_forever()
        await own_task()  # nothing, where it is already
        await park()
        note()
        return "end"

    parked = Parked(steps)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parked.run)
        await trio.testing.wait_all_tasks_blocked()
        parked.place.go_on()
        parked.place.go_on()
        await trio.testing.wait_all_tasks_blocked(0.05)
        parked.place.go_on()
        assert parked.result is None
    ours, its = trio.lowlevel.current_task(), parked.task
    assert tasks == [its, ours, ours, its, ours]
    assert places == [None, parked.place, parked.place, None, parked.place]
    assert parked.result == "end"
    assert current() is None


@pytest.mark.parametrize("waits", [False, True], ids=["by hand", "in its task"])
async def test_what_it_raises_is_raised_in_its_task(waits: bool) -> None:
    async def steps() -> None:
        await park()
        if waits:
            await own_task()
        raise ValueError("a reason")

    parked = Parked(steps)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parked.run)
        await trio.testing.wait_all_tasks_blocked()
        parked.place.go_on()
    assert repr(parked.error) == "ValueError('a reason')"


async def test_cancelled_while_it_is_parked_it_is_told_in_its_task_and_nobody_wakes_it_any_more() -> None:
    cancelled: list[trio.lowlevel.Task] = []
    goes_on = 0

    async def steps() -> None:
        nonlocal goes_on
        try:
            await park()
            goes_on += 1
        except trio.Cancelled:
            cancelled.append(trio.lowlevel.current_task())
            raise

    parked = Parked(steps)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parked.run)
        await trio.testing.wait_all_tasks_blocked()
        parked.scope.cancel()
        parked.place.go_on()
    parked.place.go_on()
    assert (cancelled, goes_on) == ([parked.task], 0)


async def test_one_that_wakes_another_goes_on_as_itself() -> None:
    seen: list[Place | None] = []

    async def inner() -> None:
        await park()
        seen.append(current())

    async def outer() -> None:
        await park()
        others.place.go_on()
        seen.append(current())

    others, first = Parked(inner), Parked(outer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others.run)
        nursery.start_soon(first.run)
        await trio.testing.wait_all_tasks_blocked()
        first.place.go_on()
    assert seen == [others.place, first.place]


async def test_waiting_for_anything_of_trios_without_its_task_is_a_bug_that_shows() -> None:
    async def steps() -> None:
        await park()
        await trio.lowlevel.checkpoint()

    parked = Parked(steps)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="without a task of its own")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parked.run)
            await trio.testing.wait_all_tasks_blocked()
            parked.place.go_on()


# The service: what a client sees of it ----------------------------------------------------------------

RECORD = request("POST /topics/t/records", content=b"x" * 200)
CHUNKED = request("POST /topics/t/records", "Transfer-Encoding: chunked")
REQUESTS = [
    RECORD,
    request("POST /topics/t/records", content=b""),
    request("POST /topics/t/records", content=b"y" * 70_000),
    CHUNKED + chunk(b"a") * 300 + chunk(b""),
    request("POST /topics/t/records", "Content-Type: application/x-ndjson", content=b"1\n2\n3\n"),
    request("POST /topics/t/records", "Prefer: respond-async", content=b"z"),
    request("DELETE /topics/t/records?key=k"),
    request("PUT /"),
    request("POST /topics/nothing/records", content=b"?"),
]
STATUSES = [200, 200, 200, 200, 200, 202, 200, 405, 404]


@pytest.mark.parametrize("engine", ["builtin", "h11"])
async def test_requests_are_answered_in_order_however_they_are_cut(engine: str) -> None:
    random = Random(engine)
    with open_mock_kafka() as kafka, trio.fail_after(HANGS):
        kafka.create("t")
        config = ingest.Config(
            management=CONFIG.management,
            http=ingest.HTTP(port=0, engine=engine),  # type: ignore[arg-type]
            kafka={"bootstrap.servers": kafka.address, "linger.ms": 0},
        )
        async with trio.open_nursery() as nursery:
            server: ingest.Server = await nursery.start(ingest.serve, config)
            port = int(server.url.rpartition(":")[2])
            for _ in range(60):
                order = random.choices(range(len(REQUESTS)), k=random.randrange(1, 12))
                cuts = [random.choice((1, 20, 90, 300, 3000)) for _ in range(random.randrange(12))]
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                async with stream, trio.open_nursery() as sending:
                    sending.start_soon(_send_cut, stream, b"".join(REQUESTS[each] for each in order), cuts)
                    client = Client(stream)
                    answers = [(await client.answer()).status for _ in order]
                assert answers == [STATUSES[each] for each in order]
            await server.shutdown()
            assert server.ledger.pending == 0
            nursery.cancel_scope.cancel()


async def _send_cut(stream: trio.SocketStream, data: bytes, cuts: list[int]) -> None:
    for size in cuts:
        await stream.send_all(data[:size])
        data = data[size:]
        await trio.lowlevel.checkpoint()
    await stream.send_all(data)


async def test_a_client_that_ends_its_side_with_its_request_is_answered_and_let_go() -> None:
    with open_mock_kafka() as kafka, trio.fail_after(HANGS):
        kafka.create("t")
        config = ingest.Config(
            management=CONFIG.management, http=CONFIG.http, kafka={"bootstrap.servers": kafka.address}
        )
        async with trio.open_nursery() as nursery:
            server: ingest.Server = await nursery.start(ingest.serve, config)
            port = int(server.url.rpartition(":")[2])
            for pieces in ([RECORD], [RECORD[:50], RECORD[50:]], [RECORD * 3], [RECORD[:50]], []):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    for piece in pieces[:-1]:
                        await stream.send_all(piece)
                    # Without a checkpoint in between: the server sees both at once.
                    os.write(stream.socket.fileno(), b"".join(pieces[-1:]))
                    stream.socket.shutdown(socket.SHUT_WR)
                    answers = b""
                    while data := await stream.receive_some(65_536):
                        answers += data
                assert answers.count(b"HTTP/1.1 200 ") == len(b"".join(pieces)) // len(RECORD)
            await server.shutdown()
            nursery.cancel_scope.cancel()


async def test_clients_that_reset_while_their_records_are_on_the_way_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with open_mock_kafka() as kafka, trio.fail_after(HANGS):
        kafka.create("t")
        config = ingest.Config(
            management=CONFIG.management, http=CONFIG.http, kafka={"bootstrap.servers": kafka.address}
        )
        async with trio.open_nursery() as nursery:
            server: ingest.Server = await nursery.start(ingest.serve, config)
            port = int(server.url.rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert (await Client(stream).ask(RECORD)).status == 200
            kafka.set_latency(1)
            for _ in range(20):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(RECORD)
                while server.ledger.pending == 0:  # noqa: ASYNC110  # a ledger wakes nobody
                    await trio.sleep(0.01)
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.socket.close()
            kafka.set_latency(0)
            await server.shutdown()
            ledger = server.ledger
            assert ledger.pending == 0
            assert ledger.accepted == ledger.delivered + ledger.failed + ledger.unknown
            assert ledger.accepted >= 2
            nursery.cancel_scope.cancel()
