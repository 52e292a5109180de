"""Clients that send without end: requests of every kind over several connections, into a journal."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple

import trio

from tests.broker.ingest_process import IngestProcess
from tests.client import Answer, Client, request
from tests.faults.journal import Journal, Sent

Serving = Callable[[], Awaitable[IngestProcess | None]]
"""The server to send to, once there is one; None when there will be none."""

BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
"""How it shows that a connection has ended."""


class Kind(enum.Enum):
    """What a request is."""

    SINGLE = enum.auto()
    """One record."""
    COUNTED = enum.auto()
    """NDJSON, whose answer counts."""
    OFFSETS = enum.auto()
    """NDJSON, whose answer has the result of every line."""
    QUEUED = enum.auto()
    """One record, answered 202."""
    COUNTED_QUEUED = enum.auto()
    """NDJSON, answered 202."""


class Load(NamedTuple):
    """The shape of a load."""

    connections: int = 20
    kinds: tuple[Kind, ...] = (Kind.SINGLE,)
    """What requests are drawn from."""
    lines: int = 1
    """The lines of a request of many."""
    filling_bytes: int = 200
    keys: int = 0
    """How many keys there are; every second request has none.  0: no request has."""
    pause_seconds: float = 0.02
    """Between the requests of one connection: a steady load, not the heaviest."""


class Senders:
    """The clients of one load; `send` is the task of each."""

    def __init__(self, load: Load, journal: Journal, topic: str, random: Random | None = None) -> None:
        self.load = load
        self.journal = journal
        self.stopped = False
        """Set it to let each sender end after its request."""
        self._target = f"/topics/{topic}/records"
        self._random = random or Random(0)
        self._asking: dict[Client, Sent] = {}

    def start(self, nursery: trio.Nursery, serving: Serving | IngestProcess) -> None:
        """Run all of them.  With a server and no more they end with it."""
        for _ in range(self.load.connections):
            nursery.start_soon(self.send, _once(serving) if isinstance(serving, IngestProcess) else serving)

    async def send(self, serving: Serving) -> None:
        """Send one request after the other, over one connection after the other."""
        while not self.stopped and (server := await serving()) is not None:
            with contextlib.suppress(*BROKEN):
                client = await server.connect()
                try:
                    await self._send_over(client)
                finally:
                    await client.close()
                    server.clients.remove(client)

    def reset(self, share: float) -> int:
        """Break this share of the connections that wait for an answer, with a reset; how many."""
        waiting = list(self._asking)
        broken = self._random.sample(waiting, int(len(waiting) * share))
        for client in broken:
            assert isinstance(client.stream, trio.SocketStream)
            # Closing with a linger of zero sends RST (socket(7)).
            client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.stream.socket.close()
        return len(broken)

    async def _send_over(self, client: Client) -> None:
        connection = self.journal.connection()
        closes = False
        while not closes and not self.stopped and not has_ended(client):
            kind = self._random.choice(self.load.kinds)
            one = kind in (Kind.SINGLE, Kind.QUEUED)
            keyed = self.load.keys > 0 and self._random.random() < 0.5
            keys = [
                b"k%d" % self._random.randrange(self.load.keys) if keyed else None
                for _ in range(1 if one else self.load.lines)
            ]
            sent = self.journal.begin(connection, keys, self.load.filling_bytes)
            began = trio.current_time()
            self._asking[client] = sent
            try:
                closes = await self._ask(client, kind, sent)
            finally:
                del self._asking[client]
                self.journal.end(sent, trio.current_time() - began)
            if not closes:
                await trio.sleep(self.load.pause_seconds)

    async def _ask(self, client: Client, kind: Kind, sent: Sent) -> bool:
        """Send the request and note its answer; whether the connection ends with it."""
        key = sent.keys[0]
        options = {
            Kind.SINGLE: [] if key is None else [f"key={key.decode()}"],
            Kind.QUEUED: [] if key is None else [f"key={key.decode()}"],
        }.get(kind, [] if key is None else ["key_field=k"])
        if kind is Kind.OFFSETS:
            options.append("offsets=true")
        fields = []
        if kind in (Kind.QUEUED, Kind.COUNTED_QUEUED):
            fields.append("Prefer: respond-async")
        if kind not in (Kind.SINGLE, Kind.QUEUED):
            fields.append("Content-Type: application/x-ndjson")
        target = self._target + ("?" + "&".join(options) if options else "")
        await client.send(request(f"POST {target}", *fields, content=b"\n".join(sent.values())))
        if kind is Kind.OFFSETS:
            return await self._note_results(client, sent)
        answer = await client.answer()
        (sent.note_single if kind in (Kind.SINGLE, Kind.QUEUED) else sent.note_batch)(answer)
        return answer.closes

    async def _note_results(self, client: Client, sent: Sent) -> bool:
        status, fields = await client.head()
        if "content-length" in fields:  # refused as a whole
            answer = Answer(status, fields, await client.content(fields))
            sent.note_batch(answer)
            return answer.closes
        assert status == 200, (status, fields)
        rest = b""
        while piece := await client.chunk():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                sent.note_result(json.loads(line))
        assert not rest
        sent.status = status
        return fields.get("connection") == "close"


def has_ended(client: Client, events: int = select.POLLIN) -> bool:
    """Whether the connection has been closed already: nobody sends a request into that."""
    assert isinstance(client.stream, trio.SocketStream)
    if client.stream.socket.fileno() < 0:
        return True  # by `reset`
    poll = select.poll()
    poll.register(client.stream.socket, events)
    return bool(poll.poll(0))


async def ask_for_one(client: Client, journal: Journal, connection: int, topic: str) -> Answer | None:
    """Send one record and note the answer; None where the connection ended without one, or had before.

    A server may close a connection at the moment at which its client begins to send.  Where it had closed
    when the request was on its way, and not yet just before, nobody can answer (RFC 9112, section 9.6):
    the journal counts such crossings, and has the request no more.
    """
    assert isinstance(client.stream, trio.SocketStream)
    sent = journal.begin(connection, [None], 100)
    data = request(f"POST /topics/{topic}/records", content=sent.values()[0])
    began = trio.current_time()
    answer = None
    if has_ended(client):  # looked at last: nothing lies between this and sending
        journal.requests.remove(sent)
        return None
    crossed = False
    with contextlib.suppress(*BROKEN):
        assert os.write(client.stream.socket.fileno(), data) == len(data)
        crossed = has_ended(client, select.POLLRDHUP)
        answer = await client.answer()
        sent.note_single(answer)
    if crossed and answer is None:
        journal.requests.remove(sent)
        journal.crossed += 1
    else:
        journal.end(sent, trio.current_time() - began)
    return answer


def _once(server: IngestProcess) -> Serving:
    async def serving() -> IngestProcess | None:
        await trio.lowlevel.checkpoint()
        return None if server.refuses else server

    return serving
