"""A storm of connections to a server on this machine, as a program of its own: one line of JSON at the end.

python -m bench.study.storm HOST PORT KIND CONNECTIONS SECONDS

All connect at once, and then, until the seconds are over, each

    keep-alive   sends a request, and the next when it has its answer
    close        sends a request, and when it has its answer closes, and another takes its place
    reset        sends half a request, resets the connection, and another takes its place
    idle         sends nothing
    half-open    sends half a head

At the end they close, but for half-open ones: these go away without a word, as when a cable is pulled, so
that the server still has them (TCP_REPAIR, for which the program has to be root; else they close too).
"""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

from bench import kernel
from bench.load import record

KINDS = ("keep-alive", "close", "reset", "idle", "half-open")
AGAIN = ("close", "reset")
"""Kinds in which another connection takes the place of one that is over."""
TCP_REPAIR = 19
"""linux/tcp.h"""
AT_ONCE = 256


class Crowd:
    """Its connections, in one loop without a thread."""

    def __init__(self, host: str, port: int, kind: str, count: int) -> None:
        content = record(0, 200)
        head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        self.opened = self.answered = 0
        self.failed: collections.Counter[str] = collections.Counter()
        self._address = (host, port)
        self._kind = kind
        self._count = count
        self._whole = head + content
        self._send = {
            "keep-alive": self._whole, "close": self._whole, "reset": self._whole[:-100], "idle": b"",
            "half-open": head[:20],
        }[kind]  # fmt: skip
        self._poll = select.epoll()
        self._there: dict[int, socket.socket] = {}
        self._connected: set[int] = set()

    def run(self, seconds: float) -> float:
        """The storm; how long it was, from the first connection to the last one's end."""
        begun = time.monotonic()
        wanted = self._count
        while (left := begun + seconds - time.monotonic()) > 0:
            for _ in range(min(AT_ONCE, wanted)):
                wanted -= 1
                self._connect()
            for descriptor, _ in self._poll.poll(0 if wanted else min(left, 0.1), AT_ONCE):
                if not self._go_on(descriptor) and self._kind in AGAIN:
                    wanted += 1
        for one in list(self._there.values()):
            self._leave(one)
        return time.monotonic() - begun

    def _connect(self) -> None:
        try:
            one = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._count_failure(error)
            return
        found = one.connect_ex(self._address)
        if found not in (0, errno.EINPROGRESS):
            self.failed[errno.errorcode[found]] += 1
            one.close()
            return
        self._there[one.fileno()] = one
        self._poll.register(one, select.EPOLLOUT)

    def _go_on(self, descriptor: int) -> bool:
        """The next step of one of them; False when it is over."""
        one = self._there[descriptor]
        try:
            if descriptor not in self._connected:
                self._begin(one)
                return self._kind != "reset" or self._reset(one)
            return self._read(one)
        except OSError as error:
            self._count_failure(error)
        self._end(one)
        return False

    def _begin(self, one: socket.socket) -> None:
        error = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        self._connected.add(one.fileno())
        self._poll.modify(one, select.EPOLLIN)
        self.opened += 1
        if self._send:
            one.send(self._send)

    def _reset(self, one: socket.socket) -> bool:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end(one)
        return False

    def _read(self, one: socket.socket) -> bool:
        answer = one.recv(4096)
        if not answer:
            self.failed["closed by the server"] += 1
            self._end(one)
            return False
        self.answered += 1  # a small answer comes in one piece
        if not answer.startswith(b"HTTP/1.1 2"):
            self.failed[answer[9:12].decode("latin-1")] += 1
        if self._kind == "close":
            self._end(one)
            return False
        if self._kind == "keep-alive":
            one.send(self._whole)
        return True

    def _count_failure(self, error: OSError) -> None:
        self.failed[errno.errorcode.get(error.errno or 0, str(error))] += 1

    def _end(self, one: socket.socket) -> None:
        self._there.pop(one.fileno(), None)
        self._connected.discard(one.fileno())
        one.close()

    def _leave(self, one: socket.socket) -> None:
        if self._kind == "half-open":
            with contextlib.suppress(OSError):
                one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        self._end(one)


def main(write: Callable[[str], object] = print) -> None:
    """Be the storm."""
    host, port, kind, count, seconds = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    crowd = Crowd(host, int(port), kind, int(count))
    took = crowd.run(float(seconds))
    found = {"opened": crowd.opened, "answered": crowd.answered, "failed": crowd.failed, "seconds": took}
    write(json.dumps({**found, "time_wait": kernel.sockets().time_wait}))


if __name__ == "__main__":
    main()
