"""What the kernel says of a server: its calls, switches and descriptors, and of its sockets.

All of it is read from outside, from /proc and over netlink; nothing is asked of the server itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TRACER_SECONDS = 10.0

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_LISTEN = 10
"""Numbers of linux/netlink.h, sock_diag(7) and tcp_states.h."""


class AcceptQueue(NamedTuple):
    """Connections that the kernel has made and the server has not accepted, and how many may wait so."""

    length: int
    limit: int


def accept_queue(port: int) -> AcceptQueue:
    """Of all sockets that listen on this port of IPv4 together, as `ss -ltn` shows it (sock_diag(7))."""
    # struct inet_diag_req_v2: family, protocol, extensions, padding, states, and an id, which a dump ignores.
    request = struct.pack("=BBBBI48x", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    length = limit = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(5)
        netlink.send(header + request)
        done = False
        while not done:
            found, done = listening(netlink.recv(1 << 16), port)
            length += sum(queue.length for queue in found)
            limit += sum(queue.limit for queue in found)
    return AcceptQueue(length, limit)


def listening(answer: bytes, port: int) -> tuple[list[AcceptQueue], bool]:
    """The queues of this port in one answer of sock_diag, and whether it was the last.  Raises OSError."""
    found: list[AcceptQueue] = []
    while len(answer) >= 16:
        size, kind = struct.unpack_from("=IH", answer)
        if kind == _NLMSG_DONE:
            return found, True
        if kind == _NLMSG_ERROR:
            raise OSError(-struct.unpack_from("=i", answer, 16)[0], "sock_diag")
        # struct inet_diag_msg: four bytes, source and destination port, …, at 56 the queues.
        (source,) = struct.unpack_from("!H", answer, 16 + 4)
        if source == port:
            found.append(AcceptQueue(*struct.unpack_from("=II", answer, 16 + 56)))
        answer = answer[(size + 3) & ~3 :]
    return found, False


def listening_in(table: str, port: int) -> AcceptQueue | None:
    """The same from the text of /proc/net/tcp, which does not tell the limit (0); None if nobody listens."""
    lengths = [
        int(fields[4].partition(":")[2], 16)
        for fields in (line.split() for line in table.splitlines()[1:])
        if int(fields[1].partition(":")[2], 16) == port and int(fields[3], 16) == _LISTEN
    ]
    return AcceptQueue(sum(lengths), 0) if lengths else None


class Sockets(NamedTuple):
    """Of the whole network namespace."""

    time_wait: int
    opened: int
    """Connections that listening sockets have made since the start (PassiveOpens of RFC 4022)."""
    overflows: int
    """Connections that found an accept queue full."""


def sockets() -> Sockets:
    """Now."""
    return read_sockets(
        Path("/proc/net/sockstat").read_text(),
        Path("/proc/net/snmp").read_text(),
        Path("/proc/net/netstat").read_text(),
    )


def read_sockets(sockstat: str, snmp: str, netstat: str) -> Sockets:
    """From the texts of the files of these names."""
    time_wait = re.search(r"^TCP: .*\btw (\d+)", sockstat, re.MULTILINE)
    assert time_wait is not None, "sockstat has no tw"
    return Sockets(
        int(time_wait[1]),
        _counter(snmp, "Tcp", "PassiveOpens"),
        _counter(netstat, "TcpExt", "ListenOverflows"),
    )


def _counter(text: str, group: str, name: str) -> int:
    names, values = (line.split() for line in text.splitlines() if line.startswith(f"{group}:"))
    return int(values[names.index(name)])


def descriptors(pid: int) -> int:
    """That it has open; 0 if it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


class Switches(NamedTuple):
    """Context switches of all threads so far."""

    voluntary: int
    involuntary: int


def switches(pid: int) -> Switches:
    """Of the threads that there are; what threads did that have ended is lost."""
    voluntary = involuntary = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            text = status.read_text()
            voluntary += int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
            involuntary += int(text.partition("\nnonvoluntary_ctxt_switches:")[2].split()[0])
    return Switches(voluntary, involuntary)


class Ring(NamedTuple):
    """The state of an io_uring instance, as io_uring_show_fdinfo of Linux writes it."""

    sq_head: int
    sq_tail: int
    cq_head: int
    cq_tail: int
    overflow: int
    """Completions that found no room in the ring."""

    @property
    def unread(self) -> int:
        """Completions that the program has not looked at yet."""
        return self.cq_tail - self.cq_head


def rings(pid: int) -> list[Ring]:
    """Of each ring that the process has and that tells; none where it uses no io_uring, or has ended.

    A ring that is in use at that very moment says nothing of itself.
    """
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(link) == "anon_inode:[io_uring]":
                    ring = read_ring(Path(f"/proc/{pid}/fdinfo/{link.name}").read_text())
                    found += [] if ring is None else [ring]
    return found


def read_ring(text: str) -> Ring | None:
    """From a file of /proc/PID/fdinfo: lines like `SqHead:`, and one for each completion in overflow."""
    numbers = dict(re.findall(r"^(\w+):[ \t]+(\d+)", text, re.MULTILINE))
    if "SqTail" not in numbers:
        return None
    overflow = text.partition("CqOverflowList:")[2]
    head, tail, cq_head, cq_tail = (
        int(numbers.get(name, 0)) for name in ("SqHead", "SqTail", "CqHead", "CqTail")
    )
    return Ring(head, tail, cq_head, cq_tail, overflow.count("user_data"))


class Calls:
    """System calls that a process makes meanwhile; `count` is None where nothing here can count them."""

    def __init__(self) -> None:
        self.count: int | None = None
        self.by = "not counted: there is neither perf nor strace"


@contextlib.contextmanager
def counting_calls(pid: int) -> Iterator[Calls]:
    """Count with perf's tracepoint, or with strace, which makes each call several times as slow."""
    calls = Calls()
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as folder:
        output = Path(folder, "counted")
        for command, by in _tracers(pid, output):
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as tracer:
                try:
                    tracer.wait(0.3)
                except subprocess.TimeoutExpired:  # it runs
                    try:
                        yield calls
                    finally:
                        tracer.send_signal(signal.SIGINT)
                        tracer.wait(TRACER_SECONDS)
                    calls.count, calls.by = read_calls(output.read_text()), by
                    return
        yield calls


def _tracers(pid: int, output: Path) -> Iterator[tuple[list[str], str]]:
    if shutil.which("perf"):
        event = ["-e", "raw_syscalls:sys_enter"]
        yield ["perf", "stat", "-x,", *event, "-o", str(output), "-p", str(pid)], "perf stat"
    if shutil.which("strace"):
        yield ["strace", "-c", "-f", "-o", str(output), "-p", str(pid)], "strace -c -f"


def read_calls(text: str) -> int | None:
    """The sum in what `perf stat -x,` or `strace -c` has written."""
    perf = re.search(r"^(\d+),[^,]*,raw_syscalls:sys_enter", text, re.MULTILINE)
    if perf:
        return int(perf[1])
    strace = re.search(r"^100\.00\s+\S+\s+\S+\s+(\d+)\s.*total$", text, re.MULTILINE)
    return int(strace[1]) if strace else None
