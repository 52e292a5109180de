"""A broker that forgets, for a while, that there is one: as Kafka does that has lost its controller."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

LIST_OFFSETS, METADATA, API_VERSIONS = 2, 3, 18
UNSUPPORTED_VERSION = 35
TOPIC = b"t"


class ForgetfulBroker:
    """Answers ApiVersions, Metadata and ListOffsets; made by `open_forgetful_broker`.

    Its lists of the cluster have one topic, led by itself; `empty_lists` of them, every second, no broker.
    """

    def __init__(self, listener: socket.socket, empty_lists: int) -> None:
        self.port: int = listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        """What `bootstrap.servers` takes."""
        self._listener = listener
        self._empty_lists = empty_lists
        self._lists = 0
        self.ends_told = 0
        """How often it was asked for the partition's end."""

    @property
    def forgets(self) -> bool:
        """Whether there are lists without brokers to come."""
        return self._lists < 2 * self._empty_lists

    def serve(self) -> None:
        """Serve connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve_one, args=(client,), daemon=True).start()

    def _serve_one(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), client, client.makefile("rb") as stream:
            while True:
                (size,) = struct.unpack(">i", stream.read(4))
                kind, version, number = struct.unpack(">hhi", stream.read(size)[:8])
                if kind == API_VERSIONS:
                    content = self._versions(version)
                elif kind == METADATA:
                    content = self._list()
                else:
                    content = self._ends()
                client.sendall(struct.pack(">ii", 4 + len(content), number) + content)

    def _versions(self, version: int) -> bytes:
        # Of version 0, which is told to whoever asks in a later one (KIP-511).
        error = UNSUPPORTED_VERSION if version else 0
        known = (LIST_OFFSETS, 1, 1, METADATA, 1, 1, API_VERSIONS, 0, 0)
        return struct.pack(">hi9h", error, 3, *known)

    def _list(self) -> bytes:
        self._lists += 1
        there = not (self._lists % 2 == 0 and self._lists <= 2 * self._empty_lists)
        host = b"127.0.0.1"
        broker = struct.pack(">ih", 1, len(host)) + host + struct.pack(">ih", self.port, -1)
        partition = struct.pack(">hiiiiii", 0, 0, 1 if there else -1, 1, 1, 1, 1)
        topic = struct.pack(">hh", 0, len(TOPIC)) + TOPIC + struct.pack(">?i", False, 1) + partition
        brokers = struct.pack(">i", 1) + broker if there else struct.pack(">i", 0)
        return brokers + struct.pack(">ii", 1 if there else -1, 1) + topic

    def _ends(self) -> bytes:
        self.ends_told += 1
        partition = struct.pack(">iihqq", 1, 0, 0, -1, 0)
        return struct.pack(">ih", 1, len(TOPIC)) + TOPIC + partition


@contextlib.contextmanager
def open_forgetful_broker(empty_lists: int) -> Iterator[ForgetfulBroker]:
    """Run one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        broker = ForgetfulBroker(listener, empty_lists)
        serving = threading.Thread(target=broker.serve)
        serving.start()
        try:
            yield broker
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()
