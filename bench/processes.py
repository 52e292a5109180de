"""Processes of a measurement: started on given cores, asked by /proc what they took, ended for certain."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parent.parent
END_SECONDS = 30.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Cores(NamedTuple):
    """Where the parts of a measurement run; the same set twice where nothing is pinned."""

    server: frozenset[int]
    others: frozenset[int]


def cores(*, pinned: bool) -> Cores:
    """The server's core and those of load and broker.  Raises ValueError where there is one core alone."""
    every = frozenset(os.sched_getaffinity(0))
    if not pinned:
        return Cores(every, every)
    if len(every) < 2:
        raise ValueError("a pinned measurement needs two cores; --unpinned does with one")
    server = frozenset([min(every)])
    return Cores(server, every - server)


@contextlib.contextmanager
def on_cores(wanted: frozenset[int]) -> Iterator[None]:
    """What is started meanwhile is pinned to these, with all of its threads and children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, wanted)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    wanted: frozenset[int],
    output: IO[bytes] | int,
    *,
    talks: bool = False,
    open_files: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, ended with SIGTERM and, where that does not help, SIGKILL.

    `output` gets standard error, and standard output unless `talks`, which makes a pipe of it.
    `open_files` is its limit of descriptors, soft and hard.
    """
    if open_files is not None:
        command = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(open_files), *command]
    with on_cores(wanted):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else output,
            stderr=output,
            cwd=ROOT,  # where `python -m bench.…` finds it
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("INGEST_")},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it has left behind
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Ended(NamedTuple):
    """A program that ran to its end."""

    output: str
    status: int
    seconds: float
    """CPU time that it took itself, user and system."""


def ended(command: Sequence[str], wanted: frozenset[int], timeout_seconds: float) -> Ended:
    """Run a program on these cores, and wait for its end; standard error goes nowhere.

    Raises subprocess.TimeoutExpired, after which the program has been ended.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with running(command, wanted, subprocess.DEVNULL, talks=True) as process:
        output, _ = process.communicate(timeout=timeout_seconds)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # it is the one child that has ended meanwhile
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(output.decode(errors="replace"), process.returncode, taken)


class Spent(NamedTuple):
    """CPU time of a process and its children, in seconds."""

    user_seconds: float
    system_seconds: float


def spent(pid: int) -> Spent:
    """What `pid`, with its threads and its living children, has taken so far."""
    user = system = 0
    for each in _family(pid):
        fields = _stat(each)
        if fields:
            user += int(fields[11])  # proc_pid_stat(5) counts from 1, and two are before our first
            system += int(fields[12])
    return Spent(user / TICKS_A_SECOND, system / TICKS_A_SECOND)


def resident_bytes(pid: int) -> int:
    """What `pid` and its living children have in memory; shared pages count once for each."""
    pages = 0
    for each in _family(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _family(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    family = [pid]
    for each in family:
        family += parents.get(each, ())
    return family


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may have spaces; empty where the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def state(pid: int) -> str:
    """A letter of proc_pid_stat(5), such as R; "" where the process has gone."""
    fields = _stat(pid)
    return fields[0] if fields else ""
