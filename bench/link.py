"""A link to a broker elsewhere: a network namespace of its own, behind a pair of veths, with a round trip.

Where the kernel has netem, that delays the packets.  Where it has not, a second namespace stands between two
pairs, in which `native/wire.c` hands whole frames across, each half a round trip late.  Both ends keep their
own TCP either way.  Offloads are off, so that a frame is what goes over a wire: at most 1,500 bytes, with its
checksum.

python -m bench.link     (the far end of its measurement)
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.native import NotBuilt, program
from bench.processes import running

PREFIX = "ingest-study-"
MTU_BYTES = 1500
FRAME_PAYLOAD_BYTES = 1448
"""What TCP puts into a full frame, beside its headers with timestamps."""
ECHOES = 500
BULK_SECONDS = 2.0
WORD_SECONDS = 30.0

_SIOCETHTOOL = 0x8946
_OFFLOADS_OFF = {
    "tx-checksum": 0x17,
    "scatter-gather": 0x19,
    "tso": 0x1F,
    "gso": 0x24,
    "gro": 0x2C,
}
"""Commands of linux/ethtool.h (ETHTOOL_STXCSUM, …), each with the value 0."""


class LinkMissing(Exception):
    """There can be no such link on this machine; the text says why."""


@dataclass(frozen=True)
class Link:
    """One that is there."""

    here: str
    there: str
    """Addresses of both ends; RFC 2544 keeps 198.18.0.0/15 for measurements."""
    inside: tuple[str, ...]
    """What a command has in front of it to run at the far end."""
    how: str
    wire_pid: int | None
    """What takes processor time for it."""


@dataclass(frozen=True)
class Quality:
    """What a link is, measured and not what it was asked to be."""

    how: str
    round_trip_p50_us: float
    round_trip_p99_us: float
    """Of a byte and its echo, while nothing else is on the link."""
    bulk_bytes_per_second: float
    """Of one TCP connection."""
    bulk_frames_per_second: float


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise LinkMissing(f"`{' '.join(command)}`: {done.stderr.strip()}")


def offloads_off(interface: str) -> None:
    """Frames leave as they are, and with their checksums: as `ethtool -K … off` has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        for command in _OFFLOADS_OFF.values():
            value = array.array("B", struct.pack("II", command, 0))
            request = struct.pack("16sP8x", interface.encode(), value.buffer_info()[0])
            with contextlib.suppress(OSError):  # one that this kernel cannot change is not on either
                fcntl.ioctl(anything, _SIOCETHTOOL, request)


@contextlib.contextmanager
def open_link(round_trip_ms: float, wanted: frozenset[int]) -> Iterator[Link]:
    """The link, gone at the end with all that runs in its namespaces' devices; the wire is on these cores.

    Raises LinkMissing where a tool, a right or a feature of the kernel is.
    """
    if os.geteuid() != 0:
        raise LinkMissing("network namespaces need root")
    if shutil.which("ip") is None:
        raise LinkMissing("there is no `ip` on the PATH (Debian: apt-get install iproute2)")
    _sweep()
    number = os.getpid()
    far, between = f"{PREFIX}{number}-far", f"{PREFIX}{number}-between"
    near_end, near_wire, far_end, far_wire = (f"is{number}{name}" for name in ("a", "b", "d", "c"))
    here, there = f"198.18.{number % 256}.1", f"198.18.{number % 256}.2"
    inside = ("ip", "netns", "exec", far)
    with contextlib.ExitStack() as stack:
        _namespace(stack, far)
        netem = round_trip_ms > 0 and _has_netem()
        direct = round_trip_ms == 0 or netem
        if direct:
            _pair(stack, near_end, far_end)
        else:
            _namespace(stack, between)
            _pair(stack, near_end, near_wire)
            _pair(stack, far_end, far_wire)
            for interface in (near_wire, far_wire):
                _ip("link", "set", interface, "netns", between)
                _ip("-n", between, "link", "set", interface, "up")
        _ip("link", "set", far_end, "netns", far)
        _ip("-n", far, "address", "add", f"{there}/30", "dev", far_end)
        _ip("-n", far, "link", "set", far_end, "up")
        _ip("-n", far, "link", "set", "lo", "up")
        _ip("address", "add", f"{here}/30", "dev", near_end)
        _ip("link", "set", near_end, "up")
        if direct:
            if netem:
                delay = ["netem", "delay", f"{round_trip_ms / 2}ms", "limit", "100000"]
                _run(["tc", "qdisc", "add", "dev", near_end, "root", *delay])
                _run([*inside, "tc", "qdisc", "add", "dev", far_end, "root", *delay])
            yield Link(here, there, inside, "veth, netem" if netem else "veth", None)
            return
        try:
            wire = program("wire")
        except NotBuilt as error:
            raise LinkMissing(str(error)) from None
        command = ["ip", "netns", "exec", between, str(wire), near_wire, far_wire]
        command.append(str(round(round_trip_ms * 500)))
        process = stack.enter_context(running(command, wanted, sys.stderr.buffer, talks=True))
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise LinkMissing("the wire did not start")
        yield Link(here, there, inside, "two veths, frames delayed by native/wire.c", process.pid)


def _namespace(stack: contextlib.ExitStack, name: str) -> None:
    _ip("netns", "add", name)
    stack.callback(_gone, "netns", "delete", name)


def _pair(stack: contextlib.ExitStack, one: str, other: str) -> None:
    try:
        _ip("link", "add", one, "mtu", str(MTU_BYTES), "type", "veth", "peer", "name", other)
    except LinkMissing as error:
        raise LinkMissing(f"no veth: {error}") from None
    stack.callback(_gone, "link", "delete", one)  # which ends the other, in whatever namespace that is
    for interface in (one, other):
        offloads_off(interface)


def _gone(*arguments: str) -> None:
    with contextlib.suppress(LinkMissing, subprocess.TimeoutExpired):  # gone already, with its namespace
        _ip(*arguments)


def _has_netem() -> bool:
    if shutil.which("tc") is None:
        return False
    # In a namespace of its own, whose loopback nobody uses.
    command = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def _sweep() -> None:
    """Take away what a run has left that was killed."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=30, check=False)
    for line in listed.stdout.splitlines():
        name = line.split()[0]
        number = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and not Path("/proc", number).exists():
            _gone("netns", "delete", name)


def set_there(link: Link, path: str, value: str) -> None:
    """Write into a file of /proc/sys/net at the far end, which has its own.  Raises LinkMissing."""
    _run([*link.inside, "sh", "-c", 'echo "$1" > "$0"', path, value])


def quality(link: Link) -> Quality:
    """Measure it, against a far end of our own."""
    command = [*link.inside, sys.executable, "-m", "bench.link"]
    every = frozenset(os.sched_getaffinity(0))
    with running(command, every, sys.stderr.buffer, talks=True) as far_end:
        assert far_end.stdout is not None
        port = int(far_end.stdout.readline())
        with socket.create_connection((link.there, port), timeout=WORD_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times = sorted(_echo_seconds(connection) for _ in range(ECHOES))
            begun, sent, content = time.perf_counter(), 0, bytes(1 << 16)
            while time.perf_counter() < begun + BULK_SECONDS:
                sent += connection.send(content)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
            per_second = sent / (time.perf_counter() - begun)
    return Quality(
        how=link.how,
        round_trip_p50_us=times[len(times) // 2] * 1e6,
        round_trip_p99_us=times[len(times) * 99 // 100] * 1e6,
        bulk_bytes_per_second=per_second,
        bulk_frames_per_second=per_second / FRAME_PAYLOAD_BYTES,
    )


def _echo_seconds(connection: socket.socket) -> float:
    begun = time.perf_counter()
    connection.send(b"?")
    connection.recv(1)
    return time.perf_counter() - begun


def main() -> None:
    """Be the far end: send so many bytes back, one by one, and read the rest."""
    with socket.create_server(("", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(ECHOES):
                connection.send(connection.recv(1))
            content = bytearray(1 << 18)
            while connection.recv_into(content):
                pass
            connection.send(b".")


if __name__ == "__main__":
    main()
