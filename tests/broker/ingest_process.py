"""`ingest serve` as its users run it: a process of its own, known by its log, its answers and its end."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import trio

from tests.client import Client

START_SECONDS = 20.0
END_SECONDS = 40.0


class IngestProcess:
    """A running `ingest serve`; made by `open_ingest`."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.log: list[str] = []
        """Its lines, as they came."""
        self.port = 0
        self.clients: list[Client] = []
        self.refuses = False
        """Whether it was seen not to take connections any more."""
        self._listens = trio.Event()
        self._log_ended = trio.Event()

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for data in self.process.stderr:
            *lines, rest = (rest + bytes(data)).split(b"\n")
            for line in lines:
                self.log.append(line.decode())
                found = re.search(r"\blistening\W+url\W+https?://127\.0\.0\.1:(\d+)\b", self.log[-1])
                if found is not None:
                    self.port = int(found[1])
                    self._listens.set()
        self._log_ended.set()
        self._listens.set()

    async def listening(self) -> None:
        with trio.fail_after(START_SECONDS):
            await self._listens.wait()
        assert self.port, "\n".join(self.log)

    async def connect(self) -> Client:
        """A new connection to it, closed with it at the latest."""
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        except OSError:
            self.refuses = True
            raise
        client = Client(stream)
        self.clients.append(client)
        return client

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait; the exit code."""
        self.process.send_signal(how)
        return await self.ended()

    async def ended(self) -> int:
        with trio.fail_after(END_SECONDS):
            await self._log_ended.wait()
            return await self.process.wait()

    def drained(self) -> dict[str, float]:
        """The fields of the line with which a drain ends; empty where there is none."""
        return self._last("drained")

    def abandoned(self) -> dict[str, float]:
        """The same for the line that stands there instead when it was told not to wait."""
        return self._last("abandoned")

    def _last(self, event: str) -> dict[str, float]:
        for line in self.log:
            if f" {event} " in line:
                pairs = (pair.split("=") for pair in shlex.split(line.partition(f" {event} ")[2]))
                return {name: float(value) for name, value in pairs}
        return {}

    def most_resident_bytes(self) -> int:
        """The most memory it has had in RAM so far, or since `forget_most_resident`."""
        return self._status_bytes("VmHWM")

    def forget_most_resident(self) -> None:
        """Let the most begin anew with what is resident now (proc_pid_clear_refs(5))."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def resident_bytes(self) -> int:
        """The memory it has in RAM now."""
        return self._status_bytes("VmRSS")

    def _status_bytes(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def cpu_seconds(self) -> float:
        """The time it has spent computing so far, in itself and in the kernel."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def limit_files(self, files: int) -> None:
        """Let it have no more open from now on, which it does not know."""
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (files, files))


@contextlib.asynccontextmanager
async def open_ingest(
    *arguments: str,
    environ: Mapping[str, str] = {},
    program: Sequence[str] = ("ingest",),
) -> AsyncIterator[IngestProcess]:
    """Run `ingest serve` on a free port; killed at the end if it still runs.

    `program` is a module with the same command line, and arguments of its own before it.
    """
    command = [sys.executable, "-m", *program, "serve", "--port", "0", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**clean, "INGEST_MANAGEMENT__PORT": "0", **environ},
    )
    async with trio.open_nursery() as nursery:
        server = IngestProcess(process)
        nursery.start_soon(server.read_log)
        try:
            await server.listening()
            yield server
            assert not any("Traceback" in line for line in server.log), server.log
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):  # it was killed, or has ended: there is nothing to wait for
                for client in server.clients:
                    await client.close()
                await process.wait()
