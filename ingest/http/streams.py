"""A TCP socket as a connection wants it: raw non-blocking calls, and waiting only where they say so."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import Protocol

import trio

WITH_THE_END = getattr(socket, "MSG_MORE", 0)  # Linux has it
"""A flag for what is sent just before `send_eof`: it goes out with that, in one segment."""

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 seconds: close() sends RST


class ByteStream(Protocol):
    """What a connection asks of its transport: `TCPStream`, `trio.SSLStream`, or a memory stream in tests."""

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """Some bytes, b"" at the end; may return without a checkpoint."""

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send all of `data`; may return without a checkpoint."""

    async def aclose(self) -> None:
        """Close, also when cancelled."""


class TCPStream(trio.abc.HalfCloseableStream):
    """A connected TCP socket.  Raises OSError of the peer's doing, as the calls give it.

    A stream of Trio's, so that TLS can run on it, but one that passes a checkpoint only where it waits.
    """

    __slots__ = ("_socket", "emptied")

    def __init__(self, connected: socket.socket) -> None:
        """Takes over `connected`, which must not block."""
        self._socket = connected
        self.emptied = False
        """Whether the last read took all there was, so that the next would find nothing."""

    async def receive_some(self, max_bytes: int | None = 65_536) -> bytes:
        """See `ByteStream.receive_some`."""
        while True:
            await self.wait_readable()
            data = self.receive_now(max_bytes or 65_536)
            if data is not None:
                return data

    async def wait_readable(self) -> None:
        """Wait until something has come, unless it is known to have."""
        if self.emptied:
            await trio.lowlevel.wait_readable(self._socket)

    def receive_now(self, most: int) -> bytes | None:
        """What has come, b"" at the end; None where nothing has."""
        try:
            data = self._socket.recv(most)
        except (BlockingIOError, InterruptedError):
            self.emptied = True
            return None
        self.emptied = len(data) < most
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `ByteStream.send_all`."""
        rest: bytes | bytearray | memoryview = data
        while (sent := self.send_now(rest)) < len(rest):
            if sent:
                rest = memoryview(rest)[sent:]
            else:
                await trio.lowlevel.wait_writable(self._socket)

    def send_now(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """How many bytes of `data` the kernel has taken; `flags` are those of send(2)."""
        try:
            return self._socket.send(data, flags)
        except (BlockingIOError, InterruptedError):
            return 0

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes more."""
        await trio.lowlevel.wait_writable(self._socket)

    async def send_eof(self) -> None:
        """Close our direction; the peer reads an end."""
        with contextlib.suppress(OSError):  # it has gone already
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close without waiting, for TLS on top of this."""
        self.close()

    def close(self) -> None:
        """Close at once.  Nobody waits for the socket: who does is cancelled first."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._socket.fileno()

    def readable(self) -> bool:
        """Whether something has arrived, or the end."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def reset(self) -> None:
        """Make the close abrupt, so that a peer which takes nothing leaves nothing behind in the kernel."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
