"""The command line: arguments become a Config, a Config becomes a running service, an end an exit code.

Nothing about a request is decided here.  Exit codes: 0 drained, 1 the stop left an outcome unknown or a
queued record was lost, 2 wrong configuration.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Annotated

import trio
import typer

import ingest
from ingest import logs, process
from ingest.errors import ConfigError
from ingest.formats.table import check_formats
from ingest.http.listeners import open_tls
from ingest.kafka import devbroker
from ingest.kafka.client import check_settings
from ingest.kafka.consumer import ConsumedRecord, open_topic
from ingest.loading import as_toml, load
from ingest.settings import read_files
from ingest.systemd import notify
from ingest.workers import Workers, serve_with_workers, usable_cores

log = logging.getLogger(__name__)

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The configuration, in TOML.")
]
Brokers = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", metavar="HOST:PORT,…", help="Kafka's brokers; else one runs inside."),
]
KafkaSettings = Annotated[
    list[str] | None,
    typer.Option("--kafka", metavar="KEY=VALUE", help="A setting of librdkafka; may be repeated."),
]


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="ingest")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ingest {ingest.__version__}")
        raise typer.Exit


@app.callback()
def _ingest(
    version: Annotated[  # the callback answers it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take events over HTTP and put each one into Apache Kafka."""


@app.command()
def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen.")] = None,
    port: Annotated[str | None, typer.Option(metavar="PORT", help="0 takes a free one.")] = None,
    bootstrap_servers: Brokers = None,
    kafka: KafkaSettings = None,
    route: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=TOPIC", help="A route; may be repeated; replaces the configured ones."),
    ] = None,
    topic: Annotated[str | None, typer.Option(metavar="NAME", help='The topic behind "/".')] = None,
    http: Annotated[str | None, typer.Option(metavar="auto|builtin|h11", help="The HTTP/1 parser.")] = None,
    grace_seconds: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="What a drain may take.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="text|json", help="What the log is written as.")
    ] = None,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write a line for each request too.")
    ] = False,
    management_port: Annotated[
        str | None, typer.Option(metavar="PORT", help="Where health and metrics are; 0 takes a free one.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="balanced|latency|throughput", help="What librdkafka is set up for."),
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N|auto", help="Processes on the port; auto: one for each core.")
    ] = None,
) -> None:
    """Serve, until SIGTERM or SIGINT; a second one gives up what is pending."""
    process.spare_memory()
    with _config_errors():
        settings = load(
            config,
            os.environ,
            {
                "--host": host,
                "--port": port,
                "--bootstrap-servers": bootstrap_servers,
                "--kafka": kafka,
                "--route": route,
                "--topic": topic,
                "--http": http,
                "--grace-seconds": grace_seconds,
                "--log-format": log_format,
                "--access-log": access_log or None,
                "--management-port": management_port,
                "--workers": workers,
                "--profile": profile,
            },
        )
        check_settings(settings.producer_settings)  # before anything is opened or logged
        check_formats(settings)
        logs.configure(settings.log.format)
        with logs.written_aside():
            process.raise_file_limit()
            process.share_interpreter()
            code = trio.run(_serve, settings)
    raise typer.Exit(code)


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            "--bootstrap-servers", metavar="HOST:PORT,…", help="Kafka's brokers; else the one inside."
        ),
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="From the oldest record; else from now on.")
    ] = False,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="End after N records.")] = None,
    kafka: KafkaSettings = None,
    config: ConfigFile = None,
) -> None:
    """Print the records of TOPIC, one JSON line each."""
    logs.configure("text")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _config_errors():
            flags = {"--bootstrap-servers": bootstrap_servers, "--kafka": kafka}
            settings = read_files(load(config, os.environ, flags).kafka)
            if "bootstrap.servers" not in settings:
                settings["bootstrap.servers"] = _inside_broker()
            with open_topic(topic, settings, from_beginning=from_beginning) as records:
                for record in islice(records, count):
                    sys.stdout.buffer.write(_line(record))
                    sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # whoever read has enough, as head does; Python would flush once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command()
def check(file: Annotated[Path | None, typer.Argument(metavar="[FILE]")] = None) -> None:
    """Say what is wrong with the configuration, or print it as it is in force, with secrets masked."""
    with _config_errors():
        config = load(file, os.environ, {})
        check_settings(config.producer_settings)
        check_formats(config)
        open_tls(config.http)
        written = as_toml(config, _count(config))
    warnings = list(config.warnings)
    if "bootstrap.servers" not in config.producer_settings:
        warnings.append("no Kafka is named: serve starts a broker for development inside, in memory")
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(written, nl=False)


@contextmanager
def _config_errors() -> Iterator[None]:
    """End the program with one line and exit code 2 for a ConfigError, also one that comes in a group."""
    wrong: list[ConfigError] = []
    try:
        yield
    except* ConfigError as group:
        wrong = list(_leaves(group))
    for error in wrong:
        typer.echo(f"config: {error}", err=True)
    if wrong:
        raise typer.Exit(2)


def _leaves(group: BaseExceptionGroup[ConfigError]) -> Iterator[ConfigError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _count(config: ingest.Config) -> int:
    """How many processes are to serve."""
    wanted = config.tuning.workers
    return usable_cores() if wanted == "auto" else wanted


async def _serve(config: ingest.Config) -> int:
    """Serve until a signal; returns the exit code."""
    server: ingest.Server | Workers | None = None
    count = _count(config)
    run = ingest.serve if count == 1 else partial(serve_with_workers, count=count)
    stops = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        stops.append(signal.SIGHUP)
    async with trio.open_nursery() as nursery:
        abandoning = nursery.cancel_scope

        async def obey(task_status: trio.TaskStatus[None]) -> None:
            await _next_signal(stops, task_status)
            if server is None:
                abandoning.cancel()
                return
            notify("STOPPING=1")
            nursery.start_soon(server.shutdown)
            await _next_signal(stops)
            abandoning.cancel()

        await nursery.start(obey)
        async with trio.open_nursery() as serving:
            server = await serving.start(run, config)
            if isinstance(server, Workers):
                await server.listening.wait()
            if not server.stop_requested.is_set():
                notify("READY=1")
        nursery.cancel_scope.cancel()
    return 0 if server is None or server.ended_well else 1


async def _next_signal(
    stops: list[signal.Signals], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Wait for one of the signals.  Afterwards they are ignored: the exit code stays what it is.

    The handler ignores what follows before it does anything else, since Python would run it inside itself
    for signals that come fast, until its stack is full.
    """
    came = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def note(signum: int, _frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_IGN)
        token.run_sync_soon(came.set)

    for each in stops:
        signal.signal(each, note)
    task_status.started()
    try:
        await came.wait()
    finally:
        for each in stops:
            signal.signal(each, signal.SIG_IGN)


def _inside_broker() -> str:
    address = devbroker.find()
    if address is None:
        raise ConfigError("no brokers: name them with --bootstrap-servers, or run ingest serve without them")
    return address


def _line(record: ConsumedRecord) -> bytes:
    values = record._asdict()
    values["key"] = _shown(record.key)
    values["headers"] = [[name, _shown(value)] for name, value in record.headers]
    values["value"] = _shown(record.value)
    line = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    # JSON lets these stand, but a terminal obeys the first, and some readers break lines at the others.
    line = re.sub("[\x7f-\x9f\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", line)
    return line.encode() + b"\n"


def _shown(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
