"""The broker inside: librdkafka's mock cluster, for when no Kafka is named.

It is for development: it lives in this process's memory, keeps about 5 MiB a partition and drops the
oldest beyond, listens on loopback alone, and is gone with the process.  Other programs can produce to
it and consume from it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import trio
from confluent_kafka import KafkaException, Producer

from ingest.errors import ConfigError

START_SECONDS = 5.0


def _runtime_folder() -> Path:
    """Where the addresses of running brokers are written: the user's runtime folder (XDG Base Directory)."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if folder and os.access(folder, os.W_OK | os.X_OK):  # not so after sudo, or in a container
        return Path(folder) / "ingest"
    return Path(tempfile.gettempdir()) / f"ingest-{os.getuid()}"


def find() -> str | None:
    """The address (`host:port`) of the inside broker that this user runs, the one started last; or None."""
    found: list[tuple[int, str]] = []
    for path in _runtime_folder().glob("broker-*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError, ValueError):
            status = path.stat()
            pid, address = path.read_text().split()
            os.kill(int(pid), 0)
            if status.st_uid == os.getuid():
                found.append((status.st_mtime_ns, address))
    return max(found)[1] if found else None


@contextlib.asynccontextmanager
async def open_dev_broker() -> AsyncIterator[str]:
    """Run a broker inside this process; yields its address, `host:port`.

    The address is written to a file in the user's runtime folder, where `find` reads it.
    """
    broker, address = await trio.to_thread.run_sync(_start)
    folder = _runtime_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"broker-{address.rpartition(':')[2]}"
    unfinished = folder / f".{path.name}"
    unfinished.write_text(f"{os.getpid()} {address}\n")
    unfinished.replace(path)
    try:
        yield address
    finally:
        path.unlink(missing_ok=True)
        del broker


def _start() -> tuple[Producer, str]:
    """The mock cluster lives as long as the client that asked for it (librdkafka's test.mock.num.brokers)."""
    broker = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    try:
        (only,) = broker.list_topics(timeout=START_SECONDS).brokers.values()
    except KafkaException as error:
        raise ConfigError(f"the broker inside did not start: {error.args[0].str()}") from None
    return broker, f"{only.host}:{only.port}"
