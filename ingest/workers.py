"""Several processes on one port: started, seen as one, begun again when one dies, and drained together.

Each has a loop, a producer and its share of the limits of its own (`ingest.worker`); the one that starts
them serves no record.

The listening sockets are opened here and stay open while a process is begun again, so who connects
meanwhile waits and is not refused.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio
from trio_util import periodic

from ingest.config import Config
from ingest.control import ABANDON, STOP, Seen, begin_line, read_lines
from ingest.delivery import Ledger
from ingest.http.listeners import listening_sockets, open_tls
from ingest.management.exposition import ValueCollector, open_registry, process_collector
from ingest.management.pages import Pages, serve_pages
from ingest.management.sums import Sums
from ingest.service import listening_for_operators, listening_url, log_warnings, open_broker_inside

log = logging.getLogger(__name__)

STEADY_SECONDS = 30.0
"""How long a process lives before its end counts as the first again."""
MOST_ENDS = 5
"""How many ends in a row, each of a process that had not become steady, are the last."""
PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.1, 5.0
"""The pause after the first of them; each further one is twice as long, and none longer than the second."""
ENDING_SECONDS = 2.0
"""How long a process has that is told to abandon, or is to have ended, before it is killed."""
OVERDUE_SECONDS = 0.5
"""How long after the end of the grace it is killed."""
SILENT_SECONDS, HUNG_SECONDS = 3, 30
"""How long a process may say nothing until it counts as not ready, and until it is killed.  Counted by
looking at it each second: of a machine that was stopped for a minute no process is guilty."""


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
        self.listening = trio.Event()
        """Set once all of them listen, and at the end."""
        self.drained = False
        """Whether all came to their end; stays false where they were abandoned."""
        self.ledger = Ledger()
        """What became of the records, of processes that are gone."""
        self.left_unknown = 0
        """How many records' outcome became unknown in the drain."""
        self._sockets = sockets
        self._lines = [begin_line(number, config, broker, own) for number, own in enumerate(sockets, 1)]
        self._shutdown = config.shutdown
        self._seen: dict[int, Seen] = {}  # what each process that is there said last
        self._silent: dict[int, int] = {}  # for how many looks each of them has said nothing
        self._were_ready: set[int] = set()  # which of them have been ready
        self._processes: dict[int, trio.Process] = {}
        self._sums = Sums(process_collector())
        self._ended = 0
        self._overdue_at = math.inf
        self._failed = False
        self._stopped = trio.Event()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why records cannot be taken, in words; empty while they can."""
        if self.stop_requested.is_set():
            return ("draining",)
        # One that is begun again does not count before it is ready, while others are.
        counting = self._were_ready or self._seen.keys()
        if not counting:
            return ("no worker is there",)
        found = [reason for number in counting for reason in self._seen[number].reasons]
        found += [
            f"worker {number} has said nothing for {self._silent[number]} seconds"
            for number in self._seen
            if self._silent[number] >= SILENT_SECONDS
        ]
        return tuple(dict.fromkeys(found))

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
                "ingest_workers_ready": lambda: sum(not seen.reasons for seen in self._seen.values()),
                "ingest_workers_limit": lambda: len(self._lines),
                "ingest_workers_ended_total": lambda: self._ended,
            }
        )
        return Pages(self, open_registry(self._sums, own))

    async def run(self, task_status: trio.TaskStatus[Workers]) -> None:
        """Start them, and return when they have drained."""
        began = None
        count = len(self._lines)
        try:
            async with trio.open_nursery() as nursery:
                for number in range(1, count + 1):
                    nursery.start_soon(self._keep, number)
                task_status.started(self)
                await self.stop_requested.wait()
                began = trio.current_time()
                self._overdue_at = began + self._shutdown.grace_seconds + OVERDUE_SECONDS
                nursery.cancel_scope.deadline = self._overdue_at
                grace_seconds = self._shutdown.grace_seconds
                log.info("draining", extra={"workers": count, "grace_seconds": grace_seconds})
            self.drained = not nursery.cancel_scope.cancelled_caught
        finally:
            self._stopped.set()
            self.listening.set()
            last = {"workers": count, **self.ledger.sums, "left_unknown": self.left_unknown}
            if self._ended:
                last["ended"] = self._ended  # and what each of them counted in its last second is missing
            if self.drained and began is not None:
                log.info("drained", extra={**last, "seconds": round(trio.current_time() - began, 2)})
            else:
                log.warning("abandoned", extra=last)

    async def announce(self) -> None:
        """Say so once all of them listen."""
        await self.listening.wait()
        if not self.stop_requested.is_set():
            extra = {"url": self.url, "brokers": self.brokers, "workers": len(self._lines)}
            log.info("listening", extra=extra)

    async def _keep(self, number: int) -> None:
        """Have a process of this number until it is to stop."""
        ends = 0
        while not self.stop_requested.is_set() or self._somebody_waits(number):
            began = trio.current_time()
            pid = None
            try:
                process, control = await self._begin(number)
            except (OSError, RuntimeError) as error:  # no memory, process or thread is to be had
                log.error("worker not begun", extra={"worker": number, "error": str(error)})
                if self.stop_requested.is_set():
                    break
            else:
                pid = process.pid
                with control:
                    status, told = await self._run(number, process, control)
                if told:
                    break
                log.error("worker ended", extra={"worker": number, "pid": pid, "status": status})
                self._ended += 1
                self._failed = True  # what was queued in it may be lost
            ends = 1 if trio.current_time() - began >= STEADY_SECONDS else ends + 1
            if ends >= MOST_ENDS and (pid is not None or not self._processes):
                log.error("worker ends again and again: giving up", extra={"worker": number, "times": ends})
                self._failed = True
                self.stop_requested.set()
            with trio.move_on_after(min(PAUSE_SECONDS * 2 ** (ends - 1), MOST_PAUSE_SECONDS)):
                await self.stop_requested.wait()
        self._close(number)

    def _somebody_waits(self, number: int) -> bool:
        """Whether the kernel has accepted connections for a process that is not there."""
        poll = select.poll()
        for listening in self._sockets[number - 1]:
            if listening.fileno() >= 0:
                poll.register(listening, select.POLLIN)
        return bool(poll.poll(0))

    def _close(self, number: int) -> None:
        for listening in self._sockets[number - 1]:
            listening.close()

    async def _begin(self, number: int) -> tuple[trio.Process, socket.socket]:
        """Start a process; with it, our end of the socket between us."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                descriptors = [each.fileno() for each in (theirs, *self._sockets[number - 1])]
                # A session of its own: a signal that a terminal sends to all would be there twice.
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-P", "-m", "ingest.worker", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    start_new_session=True,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
        except BaseException:
            ours.close()
            raise
        log.info("worker begun", extra={"worker": number, "pid": process.pid})
        return process, ours

    async def _run(self, number: int, process: trio.Process, control: socket.socket) -> tuple[int, bool]:
        """Stay with a process until its end.

        Returns its status, less than 0 for a signal (subprocess.Popen), and whether it had been told to stop.
        """
        self._processes[number] = process
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(control))
        told = False

        async def tell() -> None:
            nonlocal told
            await self.stop_requested.wait()
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(STOP)
                told = True
                # Its listening sockets are the last ones then, and close as those of a single process do.
                self._close(number)

        try:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(self._lines[number - 1])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(tell)
                    await self._listen(number, stream)
                    nursery.cancel_scope.cancel()
            with trio.move_on_after(ENDING_SECONDS):
                await process.wait()
        finally:
            patience = ENDING_SECONDS if trio.current_time() < self._overdue_at else 0
            status = await _end(process, control, patience)
            self._count(number, told=told)
            if patience == 0 and status < 0:
                log.error("worker did not end in time", extra={"worker": number, "pid": process.pid})
        return status, told

    async def look(self) -> None:
        """See each second that processes say something, until cancelled."""
        async for _ in periodic(1):
            for number, process in self._processes.items():
                self._silent[number] = self._silent.get(number, 0) + 1
                if self._silent[number] >= HUNG_SECONDS:
                    log.error("worker hangs: killing it", extra={"worker": number, "pid": process.pid})
                    process.kill()

    async def _listen(self, number: int, stream: trio.SocketStream) -> None:
        """Hear what a process says until it ends."""
        with contextlib.suppress(trio.BrokenResourceError):
            async for line in read_lines(stream):
                seen = msgspec.json.decode(line, type=Seen)
                self._seen[number] = seen
                self._silent[number] = 0
                if not seen.reasons:
                    self._were_ready.add(number)
                self._sums.put(number, seen.families)
                if len(self._seen) == len(self._lines):
                    self.listening.set()

    def _count(self, number: int, *, told: bool) -> None:
        """Add up what a process that is gone has done; of what it still had nobody will hear."""
        del self._processes[number]
        self._silent.pop(number, None)
        self._were_ready.discard(number)
        seen = self._seen.pop(number, None)
        pending = 0
        if seen is not None:
            theirs = Ledger(seen.accepted, seen.delivered, seen.failed, seen.unknown)
            pending = theirs.pending
            self.ledger.accepted += theirs.accepted
            self.ledger.delivered += theirs.delivered
            self.ledger.failed += theirs.failed
            self.ledger.unknown += theirs.unknown + pending
            self.left_unknown += seen.left_unknown + (pending if told else 0)
        self._sums.end(number, pending)
        if told and (seen is None or not seen.ended_well):
            self._failed = True


async def serve_with_workers(
    config: Config, count: int, *, task_status: trio.TaskStatus[Workers] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve with so many processes until `Workers.shutdown` has drained, or until cancelled, which abandons.

    To be run with `await nursery.start(serve_with_workers, config, 2)`, which gives the `Workers` at once;
    `Workers.listening` is set when all of them do.  Raises `ConfigError` for what cannot be opened, and
    where a share of the limits is too small.
    """
    open_tls(config.http)
    share = config.share(count)
    log_warnings(config)
    host = config.http.host
    with contextlib.ExitStack() as listening:
        # Alone at first: beside others it would be shared with a service that is there already.
        with listening_sockets(host, config.http.port) as alone:
            port = alone[0].getsockname()[1]
        sockets = [
            listening.enter_context(listening_sockets(host, port, beside_others=True)) for _ in range(count)
        ]
        watched = listening.enter_context(listening_for_operators(config))
        async with open_broker_inside(config) as broker, trio.open_nursery() as watching:
            workers = Workers(share, broker, sockets)
            if watched:
                workers.management_url = listening_url("http", watched)
                watching.start_soon(serve_pages, watched, workers.pages())
                log.info("management", extra={"url": workers.management_url})
            watching.start_soon(workers.look)
            watching.start_soon(workers.announce)
            await workers.run(task_status)
            watching.cancel_scope.cancel()


async def _end(process: trio.Process, control: socket.socket, patience: float) -> int:
    """Have a process end, if it has not: by its word, and then by force; returns its status."""
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            with contextlib.suppress(OSError):
                control.send(ABANDON)
            with trio.move_on_after(patience):
                await process.wait()
        if process.poll() is None:
            process.kill()
        await process.wait()
    return process.returncode or 0
