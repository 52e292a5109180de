"""Storms of connections against one server, with a probe from outside: whether it accepts, and recovers."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import trio

from bench import kernel
from bench.cases import Case
from bench.link import Link
from bench.load import record
from bench.processes import Cores, running, spent, state
from bench.study.findings import Probe, Sample, Storm
from bench.study.rates import Serving

PROBE_SECONDS = 0.1
"""Between one probe and the next, whether that one has its answer or not."""
PROBE_TIMEOUT = 1.0
GOOD_PROBES = 10
"""Answered in a row after the storm: then it has recovered."""
BEFORE_SECONDS = 0.5
FROZEN = "broker frozen"
"""The kind in which the storm's requests are kept alive, and the broker stands still meanwhile."""
ELSEWHERE = "close, from elsewhere"
"""The kind whose connections come over a link, where the client has its own ports, as on another machine."""
PORTS = "32768 38911"
"""What a client elsewhere has, fewer than usual, so that they can come to their end within a storm."""
KIND = {FROZEN: "keep-alive", ELSEWHERE: "close"}


def storm(
    serving: Serving, system: str, kind: str, case: Case, where: Cores, options: tuple[str, ...],
    *, seconds: float, patience_seconds: float, link: Link | None = None,
) -> Storm:  # fmt: skip
    """One storm of `case.connections`, watched until the server has recovered, or patience is at its end."""
    watched = _Watched(serving, case)
    inside, host = ((), "127.0.0.1") if link is None else (link.inside, link.here)
    command = [*inside, sys.executable, "-m", "bench.study.storm", host, str(serving.server.port)]
    command += [KIND.get(kind, kind), str(case.connections), str(seconds)]
    thaw = partial(os.kill, serving.target.pid, signal.SIGCONT)
    with contextlib.ExitStack() as stack:
        if kind == FROZEN:
            stack.callback(thaw)
        found = trio.run(
            partial(
                watched.run, command, where, serving.target.pid if kind == FROZEN else None, patience_seconds
            )
        )
    took = watched.ended - watched.begun
    return Storm(
        system=system,
        kind=kind,
        open_files=case.open_files or 0,
        connections=case.connections,
        options=list(options),
        opened=found["opened"],
        answered=found["answered"],
        failed=found["failed"],
        seconds=took,
        probes=in_order(watched.probes),
        samples=watched.samples,
        recovered_seconds=recovered(watched.probes, took),
        died=state(serving.server.pid) in ("", "Z", "X"),
        client_time_wait=found["time_wait"],
    )


def in_order(probes: Iterable[Probe]) -> list[Probe]:
    """By when they began; their answers come in any."""
    return sorted(probes, key=lambda probe: probe.at)


def good(probe: Probe) -> bool:
    """Answered with a 2xx, in time."""
    return 200 <= probe.status < 300


def recovered(probes: list[Probe], ended: float) -> float | None:
    """Seconds from the storm's end to the begin of the first probe since which all are good.

    0 where all that ended after it are; None where the last is not good.
    """
    after = in_order(probe for probe in probes if probe.at + probe.seconds >= ended)
    bad = [number for number, probe in enumerate(after) if not good(probe)]
    if not after or (bad and bad[-1] == len(after) - 1):
        return None
    return max(0.0, after[bad[-1] + 1].at - ended) if bad else 0.0


class _Watched:
    """A server while a storm goes over it; times are seconds since the storm's begin."""

    def __init__(self, serving: Serving, case: Case) -> None:
        self.probes: list[Probe] = []
        self.samples: list[Sample] = []
        self.begun = self.ended = math.inf
        self._server = serving.server
        self._over = trio.Event()
        self._rings: list[kernel.Ring] = []
        """As they were last seen."""
        content = record(1, case.size_bytes)
        self._request = (
            "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        self._opened_before = kernel.sockets().opened

    async def run(
        self, command: list[str], where: Cores, frozen: int | None, patience_seconds: float
    ) -> dict[str, Any]:
        self.begun = trio.current_time() + BEFORE_SECONDS
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._probe_again, nursery)
            nursery.start_soon(self._sample_again)
            await trio.sleep(BEFORE_SECONDS)
            self._opened_before = kernel.sockets().opened
            if frozen is not None:
                os.kill(frozen, signal.SIGSTOP)
            with running(command, where.others, subprocess.DEVNULL, talks=True) as process:
                self.begun = trio.current_time()
                assert process.stdout is not None
                output = await trio.to_thread.run_sync(process.stdout.read)
                self.ended = trio.current_time()
            if frozen is not None:
                os.kill(frozen, signal.SIGCONT)
            with trio.move_on_after(patience_seconds):
                await self._over.wait()
            nursery.cancel_scope.cancel()
        found: dict[str, Any] = json.loads(output)
        return found

    def _is_over(self) -> bool:
        last = in_order(probe for probe in self.probes if probe.at > self.ended - self.begun)[-GOOD_PROBES:]
        return len(last) == GOOD_PROBES and all(good(probe) for probe in last)

    async def _probe_again(self, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(self._probe)
            await trio.sleep(PROBE_SECONDS)

    async def _probe(self) -> None:
        begun, connected, answer = trio.current_time(), False, b""
        with trio.move_on_after(PROBE_TIMEOUT), contextlib.suppress(OSError, trio.BrokenResourceError):
            stream = await trio.open_tcp_stream("127.0.0.1", self._server.port)
            async with stream:
                connected = True
                await stream.send_all(self._request)
                answer = await stream.receive_some(4096)
        status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
        self.probes.append(Probe(begun - self.begun, connected, status, trio.current_time() - begun))
        if self._is_over():
            self._over.set()

    async def _sample_again(self) -> None:
        while True:
            self.samples.append(self._sample())
            await trio.sleep(PROBE_SECONDS)

    def _sample(self) -> Sample:
        server, sockets = self._server, kernel.sockets()
        self._rings = rings = kernel.rings(server.pid) or self._rings
        return Sample(
            at=trio.current_time() - self.begun,
            accept_queue=kernel.accept_queue(server.port).length,
            descriptors=kernel.descriptors(server.pid),
            opened=sockets.opened - self._opened_before,
            time_wait=sockets.time_wait,
            unread=sum(ring.unread for ring in rings),
            overflow=sum(ring.overflow for ring in rings),
            submitted=sum(ring.sq_tail for ring in rings),
            cpu_seconds=sum(spent(server.pid)),
        )
