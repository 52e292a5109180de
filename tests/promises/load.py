"""A load generator that does not wait for the answers before it sends on: a process of its own, on epoll.

`Arrivals` come at a constant rate, whatever the server does, and latencies count from the moment at which
a request should have left: a request that finds no connection free waits, and its wait counts, so nothing
is left out because the server was slow (coordinated omission).  `Clients` are the other kind of load: each
asks, waits for its answer, and asks again.

The plan goes in and the answers come out as JSON, through `run_load`.
"""

from __future__ import annotations

import collections
import gc
import heapq
import itertools
import json
import re
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import trio

GIVE_UP_SECONDS = 20.0
"""How long after the last request was due its answer is waited for."""
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [\s\S]*?content-length: (\d+)(?=\r\n)[\s\S]*?\r\n\r\n")
_RETRY_AFTER = re.compile(rb"\r\nretry-after: ([1-5])\r\n")
_RIGHT = {
    200: re.compile(rb'"offset":\d+'),
    404: re.compile(rb'"error_code":40401,[\s\S]*"outcome":"not_written"'),
    503: re.compile(rb'\r\nretry-after: [1-5]\r\n[\s\S]*"error_code":50301,[\s\S]*"outcome":"not_written"'),
}


class Arrivals(NamedTuple):
    """Requests at a constant rate, from `at` on, in seconds from the start; `topics` in turn."""

    name: str
    at: float
    seconds: float
    rate: float
    topics: Sequence[str]
    content_bytes: int = 100


class Clients(NamedTuple):
    """So many clients, each on its own connection, that begin at once."""

    name: str
    at: float
    number: int
    topics: Sequence[str]
    seconds: float = 0.0
    """How long each goes on asking; 0 is until its first 200."""
    honours: bool = True
    """Whether a client that is refused waits for Retry-After, or asks again at once."""
    reconnects: bool = False
    """Whether it does that on a new connection."""
    content_bytes: int = 100


class Answer(NamedTuple):
    """What became of one request."""

    name: str
    """Of its `Arrivals` or `Clients`."""
    due: float
    """When it should have left, in seconds from the start."""
    done: float
    status: int
    """0 where none came."""
    right: bool
    """Whether the content, and Retry-After, are what the status promises."""
    kept: bool
    """Whether the connection was left open."""

    @property
    def seconds(self) -> float:
        return self.done - self.due


def percentile(answers: Iterable[Answer], percent: float) -> float:
    """The latency in seconds that so many percent of these answers stay within."""
    seconds = sorted(answer.seconds for answer in answers)
    assert seconds, "there are no such answers"
    return seconds[min(len(seconds) - 1, int(len(seconds) * percent / 100))]


async def run_load(port: int, connections: int, *plan: Arrivals | Clients) -> list[Answer]:
    """Run the generator, whose arrivals share so many connections; the answers, in the order they came."""
    told = {
        "port": port,
        "connections": connections,
        "arrivals": [each._asdict() for each in plan if isinstance(each, Arrivals)],
        "clients": [each._asdict() for each in plan if isinstance(each, Clients)],
    }
    command = [sys.executable, "-m", "tests.promises.load"]
    done = await trio.run_process(command, stdin=json.dumps(told).encode(), capture_stdout=True)
    return [Answer(*row) for row in json.loads(done.stdout)]


def _request(topic: str, size: int) -> bytes:
    head = f"POST /topics/{topic}/records HTTP/1.1\r\nHost: load\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + b"x" * size


class _Socket:
    """A connection, and who waits for the answer on it."""

    __slots__ = ("buffer", "descriptor", "due", "socket", "to")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.descriptor = self.socket.fileno()
        self.buffer = b""
        self.due = 0.0
        self.to: Callable[[_Socket, int, bytes, bool], None] | None = None


class _Generator:
    def __init__(self, port: int, connections: int) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._open: dict[int, _Socket] = {}
        self._free: list[_Socket] = []
        self._left = connections
        self._asked = 0  # requests without an answer
        self._waiting: collections.deque[tuple[str, float, bytes]] = collections.deque()
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()
        self.answers: list[tuple[str, float, float, int, bool, bool]] = []
        self.begun = time.monotonic()

    # Arrivals share connections ---------------------------------------------------------------------

    def add_arrivals(self, arrivals: Arrivals) -> None:
        requests = itertools.cycle([_request(topic, arrivals.content_bytes) for topic in arrivals.topics])
        ordinal = itertools.count(1)

        def send(due: float) -> None:
            after = arrivals.at + next(ordinal) / arrivals.rate
            if after < arrivals.at + arrivals.seconds:
                self._later(after, send)
            request = next(requests)
            if self._free:
                self._ask(self._free.pop(), arrivals.name, due, request)
            elif self._left:
                self._left -= 1
                self._ask(self._connect(), arrivals.name, due, request)
            else:
                self._waiting.append((arrivals.name, due, request))

        self._later(arrivals.at, send)

    def _ask(self, connection: _Socket, name: str, due: float, request: bytes) -> None:
        def answered(connection: _Socket, status: int, data: bytes, kept: bool) -> None:
            self._note(name, connection.due, status, data, kept)
            if self._waiting:
                self._ask(connection if kept else self._connect(), *self._waiting.popleft())
            elif kept:
                self._free.append(connection)
            else:
                self._left += 1

        self._send(connection, due, request, answered)

    # Clients have connections of their own ----------------------------------------------------------

    def add_clients(self, clients: Clients) -> None:
        requests = itertools.cycle([_request(topic, clients.content_bytes) for topic in clients.topics])
        for _ in range(clients.number):
            self._add_client(clients, next(requests))

    def _add_client(self, clients: Clients, request: bytes) -> None:
        own: list[_Socket] = []

        def send(due: float) -> None:
            if not own:
                own.append(self._connect())
            self._send(own[0], due, request, answered)

        def answered(connection: _Socket, status: int, data: bytes, kept: bool) -> None:
            self._note(clients.name, connection.due, status, data, kept)
            now = time.monotonic() - self.begun
            if kept and clients.reconnects and status != 200:
                self._close(connection)
                kept = False
            if not kept:
                own.clear()
            if (now >= clients.at + clients.seconds) if clients.seconds else (status == 200):
                return
            found = _RETRY_AFTER.search(data)
            self._later(now + (int(found[1]) if found and clients.honours else 0), send)

        self._later(clients.at, send)

    # What both share --------------------------------------------------------------------------------

    def run(self) -> None:
        last = 0.0
        while True:
            now = time.monotonic() - self.begun
            while self._timers and self._timers[0][0] <= now:
                due, _, act = heapq.heappop(self._timers)
                last = now
                act(due)
            if not self._timers and (not self._asked or now > last + GIVE_UP_SECONDS):
                break
            wait = max(0.0, self._timers[0][0] - now) if self._timers else 0.1
            for descriptor, _ in self._epoll.poll(min(wait, 0.1)):
                if descriptor in self._open:
                    self._receive(self._open[descriptor])
        unanswered = [(each.due, 0) for each in self._open.values() if each.to is not None]
        for due, status in unanswered + [(due, 0) for _, due, _ in self._waiting]:
            self._note("unanswered", due, status, b"", kept=False)

    def _later(self, at: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._timers, (at, next(self._count), act))

    def _connect(self) -> _Socket:
        connection = _Socket(self._port)
        self._open[connection.descriptor] = connection
        self._epoll.register(connection.descriptor, select.EPOLLIN)
        return connection

    def _close(self, connection: _Socket) -> None:
        self._epoll.unregister(connection.descriptor)
        del self._open[connection.descriptor]
        connection.socket.close()

    def _send(
        self,
        connection: _Socket,
        due: float,
        request: bytes,
        to: Callable[[_Socket, int, bytes, bool], None],
    ) -> None:
        connection.due, connection.to = due, to
        self._asked += 1
        try:
            sent = connection.socket.send(request)
        except OSError:
            return  # the server has closed: the read tells
        assert sent == len(request), "the kernel did not take a whole request"

    def _receive(self, connection: _Socket) -> None:
        try:
            data = connection.socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        to = connection.to
        connection.buffer += data
        found = _ANSWER.match(connection.buffer)
        complete = found is not None and len(connection.buffer) >= found.end() + int(found[2])
        if data and not complete:
            return
        answer, connection.buffer = connection.buffer, b""
        kept = bool(data) and b"\r\nconnection: close\r\n" not in answer
        connection.to = None
        if not kept:
            self._close(connection)
        if to is not None:
            self._asked -= 1
            to(connection, int(found[1]) if found is not None and complete else 0, answer, kept)
        else:
            self._free.remove(connection)
            self._left += 1

    def _note(self, name: str, due: float, status: int, data: bytes, kept: bool) -> None:
        right = status in _RIGHT and _RIGHT[status].search(data) is not None
        self.answers.append((name, due, time.monotonic() - self.begun, status, right, kept))


def main() -> None:
    """Carry out the plan on standard input."""
    plan: dict[str, Any] = json.load(sys.stdin)
    gc.disable()
    generator = _Generator(plan["port"], plan["connections"])
    for arrivals in plan["arrivals"]:
        generator.add_arrivals(Arrivals(**arrivals))
    for clients in plan["clients"]:
        generator.add_clients(Clients(**clients))
    generator.run()
    json.dump(generator.answers, sys.stdout)


if __name__ == "__main__":
    main()
