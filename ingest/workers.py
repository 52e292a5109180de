"""Several processes on one port: started, seen as one, begun again when one dies, and drained together.

Each has a loop, a producer and its share of the limits of its own (`ingest.worker`); the one that starts
them serves no record.  They talk over a socket for each, in lines of JSON: down go the configuration and
the words STOP and ABANDON, up goes what a process counts.  A process that reads the end drains: whoever
started it is gone.

The listening sockets are opened here and stay open while a process is begun again, so who connects
meanwhile waits and is not refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import trio
from msgspec import Struct

from ingest.config import Config
from ingest.http.listeners import open_sockets, open_tls
from ingest.management.exposition import ValueCollector, open_registry, process_collector
from ingest.management.pages import Pages, serve_pages
from ingest.management.sums import Family, Sums
from ingest.producer import Ledger
from ingest.service import listening_url, log_warnings, open_broker_inside

log = logging.getLogger(__name__)

STOP, ABANDON = b"stop\n", b"abandon\n"
STEADY_SECONDS = 30.0
"""How long a process lives before its end counts as the first again."""
MOST_ENDS = 5
"""How many ends in a row, each of a process that had not become steady, are the last."""
PAUSE_SECONDS = 0.1
"""The pause after the first of them; each further one is twice as long."""
ENDING_SECONDS = 2.0
"""How long a process has that is told to abandon, or is to have ended, before it is killed."""


class Begin(Struct, frozen=True):
    """The first line to a process."""

    number: int
    config: dict[str, Any]
    broker: str | None
    """The broker inside the one that starts it."""
    descriptors: list[int]
    """Of the listening sockets."""


class Seen(Struct, frozen=True):
    """What a process says each second, and at last when it has drained."""

    accepted: int
    delivered: int
    failed: int
    unknown: int
    reasons: list[str]
    """Why it is not ready."""
    families: list[Family]
    ended_well: bool | None = None
    """None before the end."""
    left_unknown: int = 0


def begin_line(number: int, config: Config, broker: str | None, sockets: list[socket.socket]) -> bytes:
    """`Begin`, for one of several."""
    values = {name: getattr(config, name) for name in config.__struct_fields__}
    builtins = msgspec.to_builtins(values, enc_hook=_plain)
    begin = Begin(number, builtins, broker, [each.fileno() for each in sockets])
    return msgspec.json.encode(begin) + b"\n"


def _plain(value: object) -> object:
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise NotImplementedError(type(value))


def usable_cores() -> int:
    """How many cores this process may use: of its affinity, and of its control group (cgroups(7), v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


class Workers:
    """Running processes, as `serve_with_workers` hands them to `nursery.start`."""

    def __init__(self, config: Config, broker: str | None, sockets: Sequence[list[socket.socket]]) -> None:
        """`sockets` are the listening ones of each process."""
        self.url = listening_url("http" if config.http.tls_certificate_file is None else "https", sockets[0])
        """Where they listen, `http://host:port`."""
        self.brokers = broker or str(config.kafka["bootstrap.servers"])
        """The brokers that all of them have, `host:port,…`."""
        self.management_url = ""
        """Where health and metrics of all are, `http://host:port`; "" where that is off."""
        self.stop_requested = trio.Event()
        """Set by `shutdown`, and when processes end again and again; from then on all drain."""
        self.drained = False
        """Whether all came to their end; stays false where they were abandoned."""
        self.ledger = Ledger()
        """What became of the records, of processes that are gone."""
        self.left_unknown = 0
        """How many records' outcome became unknown in the drain."""
        self._sockets = sockets
        self._lines = [begin_line(number, config, broker, own) for number, own in enumerate(sockets, 1)]
        self._shutdown = config.shutdown
        self._streams: dict[int, trio.SocketStream] = {}
        self._seen: dict[int, Seen] = {}  # what each process that is there said last
        self._sums = Sums(process_collector())
        self._ended = 0
        self._failed = False
        self._all_there = trio.Event()
        self._stopped = trio.Event()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why records cannot be taken, in words; empty while they can."""
        if self.stop_requested.is_set():
            return ("draining",)
        if not self._seen:
            return ("no process is there",)
        return tuple(dict.fromkeys(reason for seen in self._seen.values() for reason in seen.reasons))

    @property
    def ended_well(self) -> bool:
        """Whether `shutdown` came to its end, with every outcome known and nothing lost that was answered."""
        return self.drained and not self._failed

    async def shutdown(self) -> None:
        """Have all drain; returns when that is done, at the latest after `shutdown.grace_seconds`."""
        self.stop_requested.set()
        await self._stopped.wait()

    def pages(self) -> Pages:
        """What an operator sees of all of them."""
        own = ValueCollector(
            {
                "ingest_ready": lambda: not self.reasons,
                "ingest_workers": lambda: len(self._seen),
                "ingest_workers_limit": lambda: len(self._lines),
                "ingest_workers_ended_total": lambda: self._ended,
            }
        )
        return Pages(self, open_registry(self._sums, own))

    async def run(self, task_status: trio.TaskStatus[Workers]) -> None:
        """Start them, and return when they have drained."""
        began = None
        try:
            async with trio.open_nursery() as nursery:
                for number in range(1, len(self._lines) + 1):
                    nursery.start_soon(self._keep, number)
                await self._all_there.wait()
                log.info(
                    "listening", extra={"url": self.url, "brokers": self.brokers, "workers": len(self._lines)}
                )
                task_status.started(self)
                await self.stop_requested.wait()
                began = trio.current_time()
                nursery.cancel_scope.deadline = began + self._shutdown.grace_seconds + ENDING_SECONDS
                grace_seconds = self._shutdown.grace_seconds
                log.info("draining", extra={"workers": len(self._lines), "grace_seconds": grace_seconds})
                # Theirs are the last ones then, and close as those of a single process do.
                for listening in (each for sockets in self._sockets for each in sockets):
                    listening.close()
                for stream in list(self._streams.values()):
                    with contextlib.suppress(trio.BrokenResourceError):  # its end is seen elsewhere
                        await stream.send_all(STOP)
            self.drained = not nursery.cancel_scope.cancelled_caught
        finally:
            self._stopped.set()
            sums = {
                name: getattr(self.ledger, name) for name in ("accepted", "delivered", "failed", "unknown")
            }
            last = {"workers": len(self._lines), **sums, "left_unknown": self.left_unknown}
            if self.drained and began is not None:
                log.info("drained", extra={**last, "seconds": round(trio.current_time() - began, 2)})
            else:
                log.warning("abandoned", extra=last)

    async def _keep(self, number: int) -> None:
        """Have a process of this number until it is to stop."""
        ended = 0
        while not self.stop_requested.is_set():
            began = trio.current_time()
            status = await self._run(number)
            if self.stop_requested.is_set():
                break
            self._ended += 1
            ended = 1 if trio.current_time() - began >= STEADY_SECONDS else ended + 1
            pause = PAUSE_SECONDS * 2 ** (ended - 1)
            extra = {"worker": number, "status": status}
            if ended >= MOST_ENDS:
                log.error("worker ends again and again: giving up", extra={**extra, "times": ended})
                self._failed = True
                self.stop_requested.set()
                self._all_there.set()
                break
            log.error("worker ended", extra={**extra, "begun_again_after_seconds": pause})
            with trio.move_on_after(pause):
                await self.stop_requested.wait()

    async def _run(self, number: int) -> int:
        """Run one process to its end; returns its status, less than 0 for a signal (subprocess.Popen)."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            descriptors = [each.fileno() for each in (theirs, *self._sockets[number - 1])]
            # A group of its own: a signal that a terminal sends to all would be there twice.
            process = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-m", "ingest.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                process_group=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            theirs.close()
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            try:
                await self._listen(number, stream)
                with trio.move_on_after(ENDING_SECONDS):
                    await process.wait()
            finally:
                status = await _end(process, ours)
                self._count(number)
        return status

    async def _listen(self, number: int, stream: trio.SocketStream) -> None:
        """Tell a process what it is to do, and hear what it says until it ends."""
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(self._lines[number - 1])
            self._streams[number] = stream
            if self.stop_requested.is_set():
                await stream.send_all(STOP)
            async for line in read_lines(stream):
                seen = msgspec.json.decode(line, type=Seen)
                self._seen[number] = seen
                self._sums.put(number, seen.families)
                if len(self._seen) == len(self._lines):
                    self._all_there.set()

    def _count(self, number: int) -> None:
        """Add up what a process that is gone has done; of what it still had nobody will hear."""
        self._streams.pop(number, None)
        self._sums.end(number)
        seen = self._seen.pop(number, None)
        if seen is not None:
            known = seen.delivered + seen.failed + seen.unknown
            self.ledger.accepted += seen.accepted
            self.ledger.delivered += seen.delivered
            self.ledger.failed += seen.failed
            self.ledger.unknown += seen.unknown + seen.accepted - known
            self.left_unknown += seen.left_unknown
        if self.stop_requested.is_set() and (seen is None or not seen.ended_well):
            self._failed = True


async def serve_with_workers(
    config: Config, count: int, *, task_status: trio.TaskStatus[Workers] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve with so many processes until `Workers.shutdown` has drained, or until cancelled, which abandons.

    To be run with `await nursery.start(serve_with_workers, config, 2)`, which gives the `Workers` once all
    listen.  Raises `ConfigError` for what cannot be opened, and where a share of the limits is too small.
    """
    open_tls(config.http)
    share = config.share(count)
    log_warnings(config)
    with contextlib.ExitStack() as listening:

        def listen(host: str, port: int, option: str, *, beside_others: bool = False) -> list[socket.socket]:
            sockets = open_sockets(host, port, option=option, beside_others=beside_others)
            for each in sockets:
                listening.callback(each.close)
            return sockets

        # Alone at first: beside others it would be shared with a service that is there already.
        alone = open_sockets(config.http.host, config.http.port)
        port = alone[0].getsockname()[1]
        for each in alone:
            each.close()
        sockets = [listen(config.http.host, port, "http", beside_others=True) for _ in range(count)]
        own = config.management
        watched = listen(own.host, own.port, "management.port") if own.enabled else []
        async with open_broker_inside(config) as broker, trio.open_nursery() as watching:
            workers = Workers(share, broker, sockets)
            if watched:
                workers.management_url = listening_url("http", watched)
                watching.start_soon(serve_pages, watched, workers.pages())
                log.info("management", extra={"url": workers.management_url})
            await workers.run(task_status)
            watching.cancel_scope.cancel()


async def read_lines(stream: trio.SocketStream) -> AsyncIterator[bytes]:
    """The lines that come, without their ends, until there are no more."""
    buffer = bytearray()
    async for data in stream:
        buffer += data
        *lines, rest = buffer.split(b"\n")
        buffer = bytearray(rest)
        for line in lines:
            yield bytes(line)


async def _end(process: trio.Process, control: socket.socket) -> int:
    """Have a process end, if it has not: by its word, and then by force; returns its status."""
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            with contextlib.suppress(OSError):
                control.send(ABANDON)
            with trio.move_on_after(ENDING_SECONDS):
                await process.wait()
        if process.poll() is None:
            process.kill()
        await process.wait()
    return process.returncode or 0
