"""A system in closed loop, and what is seen of it meanwhile from outside."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench import kernel, load
from bench.brokers import Broker, Target, stored
from bench.cases import Case
from bench.processes import Cores, ended, spent
from bench.study.findings import Observed, Parts, Rate
from bench.study.told import Told, by_file, by_metrics
from bench.systems import RUST_PEERS, Server, System, request_target, serving
from tests.broker.kafka_server import free_port

LOOK_SECONDS = 0.1
WARM_SECONDS = 1.0
STATISTICS_MS = 1000
"""How often librdkafka tells of itself; the peers in Rust have it as often."""
PATIENCE_SECONDS = 60.0


class Serving(NamedTuple):
    """A system that answers, and where."""

    server: Server
    target: Target
    folder: Path
    ask: Callable[[], Told | None] | None = None
    """What it tells of librdkafka, if it does."""


@contextlib.contextmanager
def open_system(
    system: System, case: Case, broker: Broker, where: Cores, options: tuple[str, ...] = ()
) -> Iterator[Serving]:
    """A fresh server on an empty topic.  Raises `NotStarted` as `bench.systems.serving` does."""
    ask: Callable[[], Told | None] | None = None
    with tempfile.TemporaryDirectory(prefix="ingest-study-") as name, broker() as target:
        folder = Path(name)
        if system.name.startswith("ingest"):
            port = free_port()
            options += (f"--management-port={port}", f"--kafka=statistics.interval.ms={STATISTICS_MS}")
            ask = functools.partial(by_metrics, port)
        elif system.name in RUST_PEERS:
            options += (f"--statistics={folder / 'statistics'}",)
            ask = functools.partial(by_file, folder / "statistics")
        with serving(system, case, target, where.server, folder, options) as server:
            yield Serving(server, target, folder, ask)


class Watch:
    """A thread that looks at a server again and again; what it saw is the most of each."""

    def __init__(self, serving: Serving) -> None:
        self.descriptors = 0
        self.accept_queue = kernel.AcceptQueue(0, 0)
        self.queue_records: float | None = None
        self.round_trip_us: float | None = None
        self._serving = serving
        self._ended = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        self._ask()

    def _look(self) -> None:
        server = self._serving.server
        count = 0
        while not self._ended.wait(LOOK_SECONDS):
            self.descriptors = max(self.descriptors, kernel.descriptors(server.pid))
            try:
                self.accept_queue = max(self.accept_queue, kernel.accept_queue(server.port))
            except OSError as error:
                self._error = error
                return
            count += 1
            if count % 10 == 0:
                self._ask()

    def _ask(self) -> None:
        told = None if self._serving.ask is None else self._serving.ask()
        if told is not None:
            self.queue_records = max(self.queue_records or 0.0, told.queue_records)
            self.round_trip_us = told.round_trip_us if told.round_trip_us is not None else self.round_trip_us


def closed_loop(serving: Serving, system: str, case: Case, where: Cores, seconds: float) -> Rate:
    """Most requests a second: each connection sends when it has its answer.

    Raises `LoadFailed` where one answer is not 2xx.
    """
    server, target = serving.server, serving.target
    content = serving.folder / "content"
    content.write_bytes(load.content(case))
    url = f"http://127.0.0.1:{server.port}{request_target(case, target.topic)}"
    content_type = load.LINE_TYPE if case.lines > 1 else ""
    wire = None if target.link is None else target.link.wire_pid

    def put(for_seconds: float) -> tuple[load.Load, float]:
        command = load.command(load.find_wrk(), url, content, case, for_seconds, content_type)
        wrk = ended(command, where.others, for_seconds + PATIENCE_SECONDS)
        return load.parse(wrk.output), wrk.seconds

    put(max(WARM_SECONDS, case.linger_ms / 500))  # an answer takes as long as that, or longer
    sockets = kernel.sockets()
    switches = kernel.switches(server.pid)
    pids = [server.pid, target.pid, *([] if wire is None else [wire])]
    before = [spent(pid) for pid in pids]
    with Watch(serving) as watch:
        counted, load_seconds = put(seconds)
    after = [spent(pid) for pid in pids]
    took = [sum(late) - sum(early) for late, early in zip(after, before, strict=True)]
    switches_after, sockets_after = kernel.switches(server.pid), kernel.sockets()
    found = stored(target)
    return Rate(
        system=system,
        case=case,
        requests=counted.requests,
        seconds=counted.seconds,
        p50_us=counted.p50_us,
        p99_us=counted.p99_us,
        p999_us=counted.p999_us,
        observed=Observed(
            seconds=counted.seconds,
            parts=Parts(
                server_user=after[0].user_seconds - before[0].user_seconds,
                server_system=after[0].system_seconds - before[0].system_seconds,
                broker=took[1],
                load=load_seconds,
                wire=took[2] if wire is not None else 0.0,
            ),
            voluntary=switches_after.voluntary - switches.voluntary,
            involuntary=switches_after.involuntary - switches.involuntary,
            descriptors=watch.descriptors,
            accept_queue=watch.accept_queue.length,
            accept_limit=watch.accept_queue.limit,
            overflows=sockets_after.overflows - sockets.overflows,
            time_wait=sockets_after.time_wait,
            time_wait_before=sockets.time_wait,
            queue_records=watch.queue_records,
            round_trip_us=watch.round_trip_us,
            batch_records=found.records / found.batches if found and found.batches else None,
        ),
    )


def calls_per_request(serving: Serving, case: Case, where: Cores) -> tuple[float | None, str]:
    """System calls of the server for each request, and how they were counted; in a load of their own."""
    url = f"http://127.0.0.1:{serving.server.port}{request_target(case, serving.target.topic)}"
    command = load.command(load.find_wrk(), url, serving.folder / "content", case, 1, "")
    with kernel.counting_calls(serving.server.pid) as calls:
        counted = load.parse(ended(command, where.others, PATIENCE_SECONDS).output)
    return (None if calls.count is None else calls.count / counted.requests), calls.by
