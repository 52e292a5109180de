"""`ingest`, and how long its event loop was kept from all else: `python -m tests.promises.loop serve …`.

Everything else is the real program.  The longest pass of the loop, from one look at what is ready to the
next, stands in the file that LOOP_FILE names, as a double; who reads it may set it back to nothing.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import trio

_DOUBLE = struct.Struct("d")


class Loop:
    """The longest pass of the loop of another process, through a file."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(_DOUBLE.pack(0.0))
        self.environ = {"LOOP_FILE": str(file)}
        """What the other process has to be started with."""
        self._file = file

    def forget(self) -> None:
        """Let the longest begin anew."""
        with self._file.open("r+b") as opened:
            opened.write(_DOUBLE.pack(0.0))

    @property
    def longest_seconds(self) -> float:
        seconds: float = _DOUBLE.unpack(self._file.read_bytes())[0]
        return seconds


class Watch(trio.abc.Instrument):
    """Notes passes that are longer than any before, in the mapped file."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped
        self._began = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        self._began = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        seconds = time.perf_counter() - self._began
        if seconds > _DOUBLE.unpack_from(self._mapped)[0]:
            _DOUBLE.pack_into(self._mapped, 0, seconds)


def main() -> None:
    """Run the command line with a watched loop."""
    with Path(os.environ["LOOP_FILE"]).open("r+b") as opened:
        watch = Watch(mmap.mmap(opened.fileno(), _DOUBLE.size))
    run: Any = functools.partial(trio.run, instruments=[watch])
    trio.run = run
    from ingest import cli

    sys.argv[0] = "ingest"
    cli.main()


if __name__ == "__main__":
    main()
