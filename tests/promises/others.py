"""The others: clients that do nothing wrong while somebody attacks, and how long they had to wait."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator

import trio

from tests.broker.ingest_process import IngestProcess
from tests.client import request
from tests.promises.crowd import until

ADDRESS = "127.0.0.1"
PAUSE_SECONDS = 0.02
TIMEOUT_SECONDS = 20.0
USED_TO_IT = 50
"""After how many answers waits are measured: the first ones look up the topic and warm the process."""
PROBE = request("POST /", "Prefer: return=minimal", content=b"probe")


class Others:
    """One client that keeps its connection and one that makes a new one for each record, by turns."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.kept_seconds = 0.0
        """The longest that the first of them waited."""
        self.new_seconds = 0.0
        """The longest that the second of them waited, connecting included."""
        self.answers: Counter[str] = Counter()
        """How often each status came; `failed` is a connection that gave none."""
        self._port = port
        self._tls = tls
        self._over = threading.Event()

    @property
    def were_served(self) -> bool:
        """Whether every record was answered 204, and there were some."""
        return set(self.answers) == {"204"}

    def run(self) -> None:
        """Ask until `stop`; in a thread, since the attack may keep the event loop of the tests."""
        with self._connect() as kept:
            while not self._over.wait(PAUSE_SECONDS):
                self._ask(kept)
                self._ask(None)

    def stop(self) -> None:
        self._over.set()

    @property
    def slowest_seconds(self) -> float:
        """The longest that any of them waited."""
        return max(self.kept_seconds, self.new_seconds)

    def _ask(self, kept: socket.socket | None) -> None:
        began = time.perf_counter()
        status = "failed"
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            connected = opened.enter_context(self._connect()) if kept is None else kept
            connected.sendall(PROBE)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                piece = connected.recv(4096)
                if not piece:
                    raise ConnectionAbortedError
                answer += piece
            status = answer[9:12].decode()
        seconds = time.perf_counter() - began
        if kept is None:
            self.new_seconds = max(self.new_seconds, seconds)
        else:
            self.kept_seconds = max(self.kept_seconds, seconds)
        self.answers[status] += 1

    def _connect(self) -> socket.socket:
        connected = socket.create_connection((ADDRESS, self._port), timeout=TIMEOUT_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return (
            connected if self._tls is None else self._tls.wrap_socket(connected, server_hostname="localhost")
        )


@contextlib.asynccontextmanager
async def open_others(server: IngestProcess, tls: ssl.SSLContext | None = None) -> AsyncIterator[Others]:
    """Have the others ask while the block lasts; they have begun and are used to it when it begins."""
    others = Others(server.port, tls)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, others.run)
        try:
            await until(lambda: others.answers.total() >= USED_TO_IT, TIMEOUT_SECONDS)
            others.answers.clear()
            others.kept_seconds = others.new_seconds = 0.0
            yield others
        finally:
            others.stop()
