"""Listening sockets, and the loop that accepts: many connections a wake-up, within a cap.

`trio.serve_listeners` accepts one connection a wake-up, writes a traceback ten times a second when
descriptors run out, and ends when a handler raises; this loop does none of that.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import select
import socket
import ssl
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Set

import trio
from trio_util import periodic

from ingest.errors import ConfigError
from ingest.faultlog import FaultLog
from ingest.http.connection import Connection
from ingest.http.exchange import Phase
from ingest.http.streams import ByteStream, TCPStream
from ingest.sections import HTTP

BACKLOG = 4096
SEND_BUFFER_BYTES = 131_072
"""What the kernel takes of a connection's answers (Linux doubles it); its own choice begins at 2.5 MB."""
ACCEPTS_A_WAKE = 512
"""How many connections are accepted before other tasks get their turn."""
BEGUN_AT_ONCE = 64
"""How many accepted connections begin before other tasks get their turn: that costs more than accepting."""
EXPIRED_AT_ONCE = 64
"""How many connections are ended for their deadline before other tasks get their turn."""
SWEEP_SECONDS = 0.5
"""How late a connection's deadline can be noticed."""
EXHAUSTED_SECONDS = 0.25
"""The pause before accepting again when the process or the kernel is out of descriptors or memory."""
EVICTED_SECONDS = 0.05
"""How long a connection waits for its client at least before a new one may end it, and how long it takes at
the most until such a one is looked for again."""
EVICTED_AT_ONCE = 64
"""How many connections are ended for new ones before other tasks get their turn."""
WITHOUT_REQUEST = frozenset({Phase.IDLE, Phase.HEAD})
"""What a connection without a request waits for."""
HANDSHAKE_SECONDS = 0.1
"""How long a handshake that had begun may take to become a connection, when listening ends."""

_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>; not in the socket module
# Classic BPF over the TCP header (socket(7), SO_ATTACH_FILTER): drop SYN without ACK, pass everything else.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x54, 0, 0, 0x12),  # of these SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # pass
    )
)

_RESETS = {errno.ECONNRESET, errno.EPIPE}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def open_sockets(
    host: str, port: int, *, option: str = "http.port", beside_others: bool = False
) -> list[socket.socket]:
    """Listening TCP sockets for every address of `host`; port 0 takes one free port for all of them.

    With `beside_others` further ones of the same user can be opened for the same port: the kernel shares
    connections out among them (SO_REUSEPORT, socket(7)).

    Raises `ConfigError`, which names `option`, where that cannot be done.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if beside_others:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # What is accepted has both from here.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listening.bind((address[0], port, *address[2:]))
            port = listening.getsockname()[1]
            listening.listen(BACKLOG)
            listening.setblocking(False)
    except (OSError, UnicodeError) as error:  # a host that cannot be written as a domain name is the latter
        for listening in sockets:
            listening.close()
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{option}: cannot listen on {host} port {port}: {reason or error}") from None
    return sockets


@contextlib.contextmanager
def listening_sockets(
    host: str, port: int, *, option: str = "http.port", beside_others: bool = False
) -> Iterator[list[socket.socket]]:
    """What `open_sockets` opens, until the block ends."""
    sockets = open_sockets(host, port, option=option, beside_others=beside_others)
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


def open_tls(config: HTTP) -> ssl.SSLContext | None:
    """The TLS context of the configured certificate, or None without one.

    Raises `ConfigError` where the files cannot be used.
    """
    if config.tls_certificate_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tls_certificate_file, config.tls_key_file)
    except (OSError, ssl.SSLError) as error:
        files = f"{config.tls_certificate_file} and {config.tls_key_file}"
        raise ConfigError(f"http: cannot use the certificate and key in {files}: {error}") from None
    return context


class Listeners:
    """Accepts connections, runs each in a task, and sweeps their deadlines."""

    def __init__(
        self,
        sockets: list[socket.socket],
        connect: Callable[[ByteStream, str], Connection],
        *,
        tls: ssl.SSLContext | None = None,
        most: int,
        evicts: Set[Phase] = WITHOUT_REQUEST,
    ) -> None:
        """`connect` makes the connection of a stream and a peer's address; `most` are open at once.

        A further one ends another that waits for its client in one of the phases `evicts`; where there is
        none, it waits in the kernel's queue.
        """
        self.sockets = sockets
        self.connections: set[Connection] = set()
        self._connect = connect
        self._tls = tls
        self._evicts = evicts
        self.most = most
        """How many connections can be open at once."""
        self._accepted: deque[tuple[socket.socket, str]] = deque()  # and not begun yet
        self._one_accepted = trio.Event()
        self._one_left = trio.Event()
        self._draining = False
        self._faults = FaultLog(logging.getLogger(__name__), seconds=1, clock=trio.current_time)

    async def accept(self, connections: trio.Nursery) -> None:
        """Accept from all sockets until cancelled; each connection is a task in `connections`."""
        try:
            async with trio.open_nursery() as nursery:
                for listening in self.sockets:
                    nursery.start_soon(self._accept_from, listening)
                while True:
                    # The kernel's queue has to be emptied faster than connections can begin: a client that
                    # finds it full tries again a second later.
                    await self._one_accepted.wait()
                    self._begin(connections, BEGUN_AT_ONCE)
                    await trio.lowlevel.checkpoint()
        finally:
            self._begin(connections, len(self._accepted))

    async def sweep(self) -> None:
        """End what has waited too long, until cancelled."""
        async for _ in periodic(SWEEP_SECONDS):
            await self._end_late_ones()

    async def _end_late_ones(self) -> None:
        now = trio.current_time()
        waiting: dict[int, Connection] = {}
        poll = select.poll()
        expired: list[Connection] = []
        for connection in self.connections:
            if connection.deadline <= now:
                expired.append(connection)
            elif connection.phase is Phase.ANSWER and connection.socket is not None:
                descriptor = connection.socket.fileno()
                waiting[descriptor] = connection
                poll.register(descriptor, 0)  # errors and hang-ups are told unasked
        if waiting:
            for descriptor, event in poll.poll(0):
                if event & select.POLLERR:
                    waiting[descriptor].abandon()
        for number, connection in enumerate(expired, 1):
            # Still: others ran meanwhile.
            if connection.deadline <= now and connection in self.connections:
                connection.expire()
            if number % EXPIRED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    async def let_none_begin(self) -> None:
        """Let no handshake begin any more, and those under way become connections.

        Closing a listening socket resets what the kernel has accepted after our last look: a client that
        had connected and sent.  So the kernel accepts nothing more first (Linux alone can), while we still
        do; who tries to connect meanwhile tries again in a second, and is refused then.
        """
        program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
        described = struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # a sandbox may not know it
                for listening in self.sockets:
                    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
                await trio.sleep(HANDSHAKE_SECONDS)

    def close(self, connections: trio.Nursery) -> None:
        """Stop listening.  What the kernel has accepted already is still served."""
        for listening in self.sockets:
            with contextlib.suppress(OSError):
                while self._accept_one(listening):
                    pass
            listening.close()
        self._begin(connections, len(self._accepted))

    async def ended(self) -> None:
        """Wait until no connection is open."""
        while self.connections:
            await self._one_left.wait()

    def drain(self) -> None:
        """Let every connection finish its request and end."""
        self._draining = True
        for connection in self.connections:
            connection.drain()

    def hurry(self) -> None:
        """Have every request answered whose content is still coming."""
        for connection in self.connections:
            connection.hurry()

    async def _accept_from(self, listening: socket.socket) -> None:
        evicted_at_once = 1
        while True:
            # A token before accept: a connection that cannot be served waits in the kernel's backlog.
            while self._open >= self.most:
                await trio.lowlevel.wait_readable(listening)
                if self._open < self.most:  # some have left meanwhile
                    break
                if self._evict(evicted_at_once):
                    evicted_at_once = min(2 * evicted_at_once, EVICTED_AT_ONCE)
                with trio.move_on_after(EVICTED_SECONDS):
                    await self._one_left.wait()
            await trio.lowlevel.wait_readable(listening)
            try:
                for _ in range(min(ACCEPTS_A_WAKE, self.most - self._open)):
                    if not self._accept_one(listening):
                        evicted_at_once = 1  # nobody waits any more
                        break
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                extra = {"error": error.strerror, "connections": len(self.connections)}
                self._faults(logging.ERROR, "accept failed", extra)
                await trio.sleep(EXHAUSTED_SECONDS)

    def _evict(self, most: int) -> bool:
        """End connections of the peer that has most; whether there was one to end.

        Those first that have waited longest, and nobody else's: a client that takes every connection must
        not get those of others as well.
        """
        peers = [connection.peer for connection in self.connections] + [peer for _, peer in self._accepted]
        ((peer, _),) = Counter(peers).most_common(1)
        until = trio.current_time() - EVICTED_SECONDS
        waiting = [
            connection
            for connection in self.connections
            if connection.peer == peer and connection.phase in self._evicts and connection.since <= until
        ]
        waiting.sort(key=lambda connection: connection.since)
        for connection in waiting[:most]:
            # What has come is read first: a request may be lost in no other way.
            if connection.socket is None or not connection.socket.readable():
                connection.abandon()
            else:
                connection.notice()
        return bool(waiting)

    def _accept_one(self, listening: socket.socket) -> bool:
        try:
            accepted, address = listening.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED or error.errno == errno.EBADF:
                raise
            return True  # the client took its connection back (accept(2) passes such errors on)
        # No more is done here than has to be: the kernel's queue fills as fast as another core can connect.
        self._accepted.append((accepted, address[0]))
        self._one_accepted.set()
        return True

    def _begin(self, connections: trio.Nursery, most: int) -> None:
        """Begin up to `most` connections.

        One that was reset while it waited is closed, whatever it had sent: nobody is there to answer, and
        thousands that come like that would hold up everybody who waits behind them.
        """
        left = False
        for _ in range(min(max(most, ACCEPTS_A_WAKE), len(self._accepted))):
            if not most:
                break
            accepted, peer = self._accepted.popleft()
            if accepted.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in _RESETS:
                accepted.close()
                left = True
                continue
            most -= 1
            accepted.setblocking(False)
            tcp = TCPStream(accepted)
            stream: ByteStream = tcp
            if self._tls is not None:
                stream = trio.SSLStream(tcp, self._tls, server_side=True, https_compatible=True)
            connection = self._connect(stream, peer)
            if self._draining:
                connection.drain()
            self.connections.add(connection)
            connections.start_soon(self._serve, connection)
        if not self._accepted:
            self._one_accepted = trio.Event()
        if left:
            self._note_left()

    @property
    def _open(self) -> int:
        return len(self.connections) + len(self._accepted)

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)
            self._note_left()

    def _note_left(self) -> None:
        self._one_left.set()
        self._one_left = trio.Event()
