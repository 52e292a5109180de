"""serve(): opens the parts in order and closes them in reverse.  Composition only."""

from __future__ import annotations

import contextlib
import functools
import logging
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import trio

from ingest.budget import Budget
from ingest.config import Config
from ingest.delivery import Ledger
from ingest.faultlog import FaultLog
from ingest.formats.seam import Format
from ingest.http.arrivals import open_arrivals
from ingest.http.connection import Connection
from ingest.http.engines import engine
from ingest.http.listeners import Listeners, listening_sockets, open_tls
from ingest.http.streams import ByteStream
from ingest.intake import Intake
from ingest.kafka.devbroker import open_dev_broker
from ingest.kafka.producer import KafkaProducer, open_kafka_producer
from ingest.kafka.statistics import Statistics
from ingest.management.exposition import ServiceCollector, open_registry, process_collector
from ingest.management.pages import Pages, serve_pages
from ingest.management.readiness import Readiness, keep_looking
from ingest.metrics import Metrics
from ingest.producer import Producer
from ingest.records import RECORD_OVERHEAD_BYTES
from ingest.sections import MOST_CONNECTIONS
from ingest.settings import KafkaValue
from ingest.turn import Turn

log = logging.getLogger(__name__)

RESERVED_FILES = 64, 256
"""Descriptors kept from connections at the least and at the most, and between them a quarter of all: three
clients of librdkafka have a socket and more for each broker, and there are the management port and files."""
CLOSING_SECONDS = 0.4
"""What a drain keeps of its grace for ending threads and librdkafka, after the last connection."""
LAST_SECONDS = 1.6
"""How long before that content which is not complete is waited for no more; in a short grace, less."""


class Shared(NamedTuple):
    """What a process among several is given by the one that started it."""

    sockets: tuple[socket.socket, ...] = ()
    """Listening ones; none: to be opened."""
    broker: str | None = None
    """The broker inside that one, `host:port`; None: none is there."""


class Server:
    """A running service, as `serve` hands it to `nursery.start`."""

    def __init__(
        self,
        url: str,
        management_url: str,
        brokers: str,
        producer: Producer,
        stopped: trio.Event,
        readiness: Readiness,
        metrics: ServiceCollector,
    ) -> None:
        self.url = url
        """Where it listens, `http://host:port`."""
        self.management_url = management_url
        """Where health and metrics are, `http://host:port`; "" where that is off."""
        self.brokers = brokers
        """The brokers it was given, `host:port,…`; "" where the producer was given."""
        self.producer = producer
        """What requests are sent with; an embedding program may send with it too."""
        self.stop_requested = trio.Event()
        """Set by `shutdown`; from then on the service drains."""
        self.drained = False
        """Whether `shutdown` came to its end; stays false where the service was abandoned."""
        self.metrics = metrics
        """Its metrics: a collector, for a registry of prometheus-client's."""
        self._stopped = stopped
        self._readiness = readiness

    @property
    def ready(self) -> bool:
        """Whether records can be taken: follows Kafka and head-room, with hysteresis; false in a drain."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready, in words; empty while it is."""
        return ("draining",) if self.stop_requested.is_set() else self._readiness.reasons

    @property
    def ledger(self) -> Ledger:
        """What became of the records so far."""
        return self.producer.ledger

    @property
    def left_unknown(self) -> int:
        """How many records' outcome became unknown since `shutdown`; of earlier ones callers were told."""
        return self.ledger.left_unknown

    @property
    def ended_well(self) -> bool:
        """Whether `shutdown` came to its end, with every outcome known and nothing lost that was answered."""
        return self.drained and not (self.left_unknown or self.ledger.lost or self.ledger.pending)

    async def shutdown(self) -> None:
        """Drain: finish what was begun, take nothing new, and return when that is done.

        At the latest after `shutdown.grace_seconds`.  Cancelling the nursery instead abandons, and ends
        this wait too.
        """
        if not self.stop_requested.is_set():
            self.ledger.close()
        self.stop_requested.set()
        await self._stopped.wait()


@contextlib.asynccontextmanager
async def open_producer(kafka: Mapping[str, KafkaValue]) -> AsyncIterator[Producer]:
    """The pipeline without HTTP: a producer with librdkafka's settings `kafka` over the service's defaults.

    Without `bootstrap.servers` a broker for development is started inside this process.  When the
    block ends, what is pending gets `timeouts.answer_seconds`; when it is cancelled, it is given up.

    Raises `ConfigError` for a setting that is wrong.
    """
    config = Config(kafka=kafka)
    async with _open_producer(config, Budget(config.limits.held_bytes)) as (producer, _):
        yield producer


async def serve(
    config: Config,
    *,
    producer: Producer | None = None,
    formats: Sequence[Format] = (),
    shared: Shared | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `Server.shutdown` has drained, or until cancelled, which abandons.

    To be run with `await nursery.start(serve, config)`, which gives the `Server` once it listens.  Kafka
    need not be up.  A `producer` that is given stays its owner's: it is neither drained nor closed here.
    `formats` are asked before those that are built in; see `Format`.  `shared` is for `ingest.workers`.

    Error handling: raises `ConfigError` for what cannot be opened.  No request can end it.

    Resource handling: installs no signal handler and configures no logging; its threads have a limiter
    of their own.
    """
    shared = shared or Shared()
    tls = open_tls(config.http)
    budget = Budget(config.limits.held_bytes)
    if not shared.sockets:
        log_warnings(config)
        if config.tuning.workers not in (1, "auto"):
            warning = f"tuning.workers = {config.tuning.workers}: the command line starts them; this is one"
            log.warning("config", extra={"warning": warning})
    stopped = trio.Event()
    with contextlib.ExitStack() as listening:
        listening.callback(stopped.set)
        for given in shared.sockets:
            listening.callback(given.close)

        sockets = list(shared.sockets)
        if not sockets:
            sockets = listening.enter_context(listening_sockets(config.http.host, config.http.port))
        watched = listening.enter_context(listening_for_operators(config))
        server: Server | None = None
        began: float | None = None
        try:
            async with contextlib.AsyncExitStack() as opened:
                taker, brokers, statistics = producer, "", _no_statistics
                own_kafka: KafkaProducer | None = None
                if taker is None:
                    kafka, brokers = await opened.enter_async_context(
                        _open_producer(config, budget, shared.broker)
                    )
                    taker, own_kafka, statistics = kafka, kafka, lambda: kafka.statistics
                metrics, readiness = Metrics(), Readiness()
                faults = FaultLog(log)
                turn = Turn()
                intake = Intake(config, taker, budget, metrics, faults, turn, formats)
                make_protocol = engine(config.http.engine)
                # A producer of somebody else's does not know of parking.
                arrivals = None if own_kafka is None else open_arrivals(turn)
                if arrivals is not None:
                    opened.callback(arrivals.close)

                def connect(stream: ByteStream, peer: str) -> Connection:
                    refuse = functools.partial(intake.refuse, peer)
                    return Connection(
                        stream,
                        peer,
                        make_protocol(),
                        intake,
                        refuse,
                        config.timeouts,
                        faults,
                        budget,
                        turn,
                        arrivals,
                        None if arrivals is None else intake.short_way,
                    )

                listeners = Listeners(sockets, connect, tls=tls, most=_most_connections(config))
                gauges = _gauges(budget, listeners)
                collector = ServiceCollector(metrics, taker.ledger, gauges, statistics)
                url = listening_url("http" if tls is None else "https", sockets)
                seen_at = listening_url("http", watched) if watched else ""
                server = Server(url, seen_at, brokers, taker, stopped, readiness, collector)
                gauges["ingest_ready"] = functools.partial(getattr, server, "ready")
                async with trio.open_nursery() as watching:
                    watching.start_soon(keep_looking, readiness, taker, budget)
                    if arrivals is not None:
                        watching.start_soon(arrivals.watch)
                    if watched:
                        registry = open_registry(collector, process_collector())
                        watching.start_soon(serve_pages, watched, Pages(server, registry))
                        log.info("management", extra={"url": seen_at})
                    began = await _serve_and_drain(config, server, listeners, own_kafka, task_status)
                    watching.cancel_scope.cancel()
        finally:
            if server is not None:
                _end(server, began)


def log_warnings(config: Config) -> None:
    """Say at start what a configuration allows and should be known."""
    for warning in config.warnings:
        log.warning("config", extra={"warning": warning})


@contextlib.contextmanager
def listening_for_operators(config: Config) -> Iterator[list[socket.socket]]:
    """The listening sockets of the management port, until the block ends; none where that is off."""
    own = config.management
    if not own.enabled:
        yield []
        return
    with listening_sockets(own.host, own.port, option="management.port") as sockets:
        yield sockets


def listening_url(scheme: str, sockets: Sequence[socket.socket]) -> str:
    """Where `sockets` listen, `http://host:port`."""
    host, port = sockets[0].getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _no_statistics() -> Statistics | None:
    return None


def _gauges(budget: Budget, listeners: Listeners) -> dict[str, Callable[[], float]]:
    """What is read when somebody asks for metrics."""
    return {
        "ingest_held_bytes": lambda: budget.held_bytes,
        "ingest_held_bytes_limit": lambda: budget.limit_bytes,
        "ingest_queue_records_limit": lambda: budget.limit_bytes // RECORD_OVERHEAD_BYTES,
        "ingest_connections": lambda: len(listeners.connections),
        "ingest_connections_limit": lambda: listeners.most,
    }


def _end(server: Server, began: float | None) -> None:
    """Log the last line: what became of every record.  `began` is when the drain did; None: abandoned."""
    sums = server.ledger.sums
    if began is None:
        log.warning("abandoned", extra=sums)
    else:
        server.drained = True
        seconds = round(trio.current_time() - began, 2)
        log.info("drained", extra={**sums, "left_unknown": server.left_unknown, "seconds": seconds})


async def _serve_and_drain(
    config: Config,
    server: Server,
    listeners: Listeners,
    kafka: KafkaProducer | None,
    task_status: trio.TaskStatus[Server],
) -> float:
    """Serve, then close from the outside in; returns when the drain began.  `kafka` is drained too."""
    shutdown = config.shutdown
    async with trio.open_nursery() as sweeping:
        sweeping.start_soon(listeners.sweep)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(listeners.accept, connections)
                log.info("listening", extra={"url": server.url, "brokers": server.brokers})
                task_status.started(server)
                await server.stop_requested.wait()
                began = trio.current_time()
                deadline = began + shutdown.grace_seconds
                log.info("draining", extra={"grace_seconds": shutdown.grace_seconds})
                await trio.sleep(shutdown.drain_delay_seconds)
                if kafka is not None:
                    kafka.stop_lingering()
                listeners.drain()
                await listeners.let_none_begin()
                accepting.cancel_scope.cancel()
            listeners.close(connections)
            end = deadline - CLOSING_SECONDS
            left = shutdown.grace_seconds - shutdown.drain_delay_seconds - CLOSING_SECONDS
            last = min(LAST_SECONDS, left / 2)
            giving_up = end - last / 3
            connections.cancel_scope.deadline = end
            with trio.move_on_at(end - last):
                await listeners.ended()
            listeners.hurry()
            # Kafka gets its time for what was taken last, and requests that wait for room go on meanwhile.
            with trio.move_on_at(giving_up):
                await listeners.ended()
            if kafka is not None:
                await kafka.drain(giving_up)
        sweeping.cancel_scope.cancel()
    return began


@contextlib.asynccontextmanager
async def open_broker_inside(config: Config) -> AsyncIterator[str | None]:
    """The address of a broker for development where the configuration names no Kafka; else None."""
    if "bootstrap.servers" in config.kafka:
        yield None
        return
    async with open_dev_broker() as address:
        log.warning(
            "no Kafka is named: a broker for development runs inside, in memory, about 5 MiB a partition",
            extra={"brokers": address},
        )
        yield address


@contextlib.asynccontextmanager
async def _open_producer(
    config: Config, budget: Budget, broker: str | None = None
) -> AsyncIterator[tuple[KafkaProducer, str]]:
    """A configuration's Kafka producer, and its brokers: `broker`, or the inside one, if none is named."""
    settings = config.producer_settings
    async with contextlib.AsyncExitStack() as opened:
        if broker is None:
            broker = await opened.enter_async_context(open_broker_inside(config))
        inside = broker is not None
        if broker is not None:
            settings["bootstrap.servers"] = broker
        auto_create = config.creates_topics
        if "allow.auto.create.topics" not in config.kafka:
            settings["allow.auto.create.topics"] = auto_create
        producer = await opened.enter_async_context(
            open_kafka_producer(
                settings,
                budget=budget,
                record_bytes=config.limits.record_bytes,
                answer_seconds=config.timeouts.answer_seconds,
                allow=config.topics.allow,
                auto_create=auto_create,
                inside=inside,
                topics=[route.topic for route in config.routes if route.topic is not None],
            )
        )
        for route in config.routes:
            if route.topic is not None:
                producer.ledger.topic(route.topic)  # counted on its own, whatever other topics there are
        yield producer, str(settings["bootstrap.servers"])


def _most_connections(config: Config) -> int:
    """As many as are configured, and as the limit of open files leaves."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    least, most = RESERVED_FILES
    left = max(1, files - max(least, min(files // 4, most)))
    if files == resource.RLIM_INFINITY:
        left = sys.maxsize
    wanted = config.limits.connections
    if wanted is None:
        return min(MOST_CONNECTIONS, left)
    if wanted > left:
        warning = f"limits.connections = {wanted}: the limit of {files} open files leaves {left}"
        log.warning("config", extra={"warning": warning})
    return min(wanted, left)
