"""The mock cluster in a process of its own, so that it shares no interpreter with who measures."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator

import trio

from tests.mock_kafka import METADATA, open_mock_kafka


class SlowKafka:
    """A mock cluster with the topic `load`; made by `open_slow_kafka`."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""
        self.address = ""
        """What `bootstrap.servers` takes."""

    async def read_line(self) -> str:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            data = await self._process.stdout.receive_some()
            assert data, "the mock cluster's process has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def _tell(self, line: str) -> str:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")
        return await self.read_line()

    async def set_latency(self, seconds: float) -> None:
        """How long the broker takes to answer anything."""
        await self._tell(f"latency {seconds}")

    async def metadata_requests(self) -> list[float]:
        """When Metadata requests have come so far, in seconds."""
        return [float(at) for at in (await self._tell("metadata")).split()]


@contextlib.asynccontextmanager
async def open_slow_kafka() -> AsyncIterator[SlowKafka]:
    """Run it; it answers at once until it is told otherwise."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.promises.slow_kafka"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        kafka = SlowKafka(process)
        kafka.address = await kafka.read_line()
        yield kafka
    finally:
        process.kill()
        with trio.CancelScope(shield=True):  # it was killed: there is nothing to wait for
            await process.wait()


def main() -> None:
    """Obey the lines on standard input, one line of answer each."""
    with open_mock_kafka() as kafka:
        kafka.create("load")
        kafka.track()
        _say(kafka.address)
        for line in sys.stdin:
            command, _, value = line.strip().partition(" ")
            if command == "latency":
                kafka.set_latency(float(value))
                _say("")
            else:
                _say(" ".join(str(at) for at in kafka.requests(METADATA)))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
