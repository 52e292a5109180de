"""One process of several: serves on the sockets that it is given, until it is told to stop.

`ingest.workers` starts it as `python -m ingest.worker DESCRIPTOR`, the number of the socket over which the
two talk.  It takes no signal but SIGKILL: they are for the one that started it.
"""

from __future__ import annotations

import functools
import signal
import socket
import sys
from collections.abc import Callable

import msgspec
import trio

from ingest import logs, process
from ingest.config import Config
from ingest.control import ABANDON, Begin, Seen, read_lines
from ingest.management.exposition import process_collector
from ingest.management.sums import Family, read_families
from ingest.service import Server, Shared, serve

TELL_SECONDS = 1.0
"""How often it says what it counts."""


def main() -> None:
    """Run until the end, and exit: 0 drained, 1 with an unknown outcome or abandoned."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    process.spare_memory()
    control = socket.socket(fileno=int(sys.argv[1]))
    with control.makefile("rb", buffering=0) as first:  # which takes nothing of what follows the line
        line = first.readline()
    if not line.endswith(b"\n"):  # who started it is gone
        sys.exit(1)
    begin = msgspec.json.decode(line, type=Begin)
    config = Config(**begin.config)
    logs.configure(config.log.format, worker=begin.number)
    with logs.written_aside():
        process.share_interpreter()
        code = trio.run(_serve, config, begin, control)
    sys.exit(code)


async def _serve(config: Config, begin: Begin, control: socket.socket) -> int:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(control))
    sockets = tuple(socket.socket(fileno=each) for each in begin.descriptors)
    run = functools.partial(serve, config, shared=Shared(sockets, begin.broker))
    server: Server | None = None
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as serving:
            server = await serving.start(run)
            nursery.start_soon(_obey, server, stream, nursery)
            nursery.start_soon(_keep_telling, server, stream, ended, nursery)
        ended.set()
        nursery.cancel_scope.deadline = trio.current_time() + TELL_SECONDS
    return 0 if server is not None and server.ended_well else 1


async def _obey(server: Server, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
    """Drain when told so, or when who started it is gone; give up when told so."""
    try:
        async for word in read_lines(stream):
            if word + b"\n" == ABANDON:
                nursery.cancel_scope.cancel()
                return
            nursery.start_soon(server.shutdown)
    except trio.BrokenResourceError:
        pass
    nursery.start_soon(server.shutdown)


async def _keep_telling(
    server: Server, stream: trio.SocketStream, ended: trio.Event, nursery: trio.Nursery
) -> None:
    """Say what is counted again and again, at last when it has ended, which ends the others."""
    read = functools.partial(read_families, [server.metrics, process_collector()])
    while not ended.is_set():
        await _tell(server, stream, read)
        with trio.move_on_after(TELL_SECONDS):
            await ended.wait()
    await _tell(server, stream, read)
    nursery.cancel_scope.cancel()


async def _tell(server: Server, stream: trio.SocketStream, read: Callable[[], list[Family]]) -> None:
    ledger = server.ledger
    seen = Seen(
        accepted=ledger.accepted,
        delivered=ledger.delivered,
        failed=ledger.failed,
        unknown=ledger.unknown,
        reasons=list(server.reasons),
        families=read(),
        ended_well=server.ended_well if server.drained else None,
        left_unknown=server.left_unknown,
    )
    try:
        await stream.send_all(msgspec.json.encode(seen) + b"\n")
    except trio.BrokenResourceError:  # nobody listens; that is noticed where words are read
        return


if __name__ == "__main__":
    main()
