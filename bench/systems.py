"""The systems: how each is started for a case, and where its requests go."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.brokers import Target
from bench.cases import KEYED, LINES, PROFILES, RECORD, VALIDATED, Case
from bench.processes import ROOT, running
from tests.broker.kafka_server import free_port

START_SECONDS = 20.0
BUILT = ROOT / "build" / "peers"
"""Where `nox -s peers` leaves the peers in Rust and Go."""
RUST_PEERS = ("tokio-hyper", "tokio-tcp", "uring-tcp", "glommio-tcp")
BUILT_PEERS = (*RUST_PEERS, "go-franz")


class NotStarted(Exception):
    """A system that does not exist here, or does not come up; the text is its own last word."""


@dataclass(frozen=True)
class System:
    """One HTTP server; `command` gives its command line for a case, a port and a folder of its own."""

    name: str
    command: Callable[[Case, Target, int, Path], list[str]]
    takes: Callable[[Case], bool]
    """Whether it has a part in a case."""

    @property
    def built(self) -> bool:
        """Whether it is one of the peers in Rust and Go, which `nox -s peers` builds."""
        return self.name in BUILT_PEERS


class Server(NamedTuple):
    """A system that answers."""

    pid: int
    port: int


def _peer(module: str, *options: str) -> Callable[[Case, Target, int, Path], list[str]]:
    def command(case: Case, target: Target, port: int, _folder: Path) -> list[str]:
        program = [sys.executable, "-m", f"bench.peers.python.{module}", f"--port={port}"]
        kafka = [f"--brokers={target.address}", f"--topic={target.topic}"]
        grid = [f"--linger-ms={case.linger_ms:g}", f"--batch-bytes={case.batch_bytes}"]
        return [*program, *kafka, f"--promise={case.promise}", *grid, *options]

    return command


def _built(program: str) -> Callable[[Case, Target, int, Path], list[str]]:
    def command(case: Case, target: Target, port: int, _folder: Path) -> list[str]:
        path = BUILT / program
        if not path.exists():
            raise NotStarted("not built: nox -s peers builds it, where its tools are there")
        kafka = [f"--brokers={target.address}", f"--topic={target.topic}", f"--promise={case.promise}"]
        grid = [f"--linger-ms={case.linger_ms:g}", f"--batch-bytes={case.batch_bytes}"]
        more = [] if case.profile == "default" else [f"--profile={case.profile}"]
        more += [] if case.threads == 1 else [f"--threads={case.threads}"]
        more += [] if case.poll_ms is None else [f"--poll-ms={case.poll_ms}"]
        return [str(path), f"--port={port}", *kafka, *grid, *more]

    return command


def _ingest(*options: str) -> Callable[[Case, Target, int, Path], list[str]]:
    def command(case: Case, target: Target, port: int, folder: Path) -> list[str]:
        config = folder / "ingest.toml"
        # A topic's name and a promise are plain enough for JSON's quotes to be TOML's.
        config.write_text(
            f"[[routes]]\npath = '/'\ntopic = {json.dumps(target.topic)}\npromise = '{case.promise}'\n"
            f"[kafka]\n'linger.ms' = {case.linger_ms:g}\n'batch.size' = {case.batch_bytes}\n"
            + "".join(f"'{name}' = {value}\n" for name, value in PROFILES[case.profile].items())
        )
        program = [sys.executable, "-m", "ingest", "serve", f"--config={config}", f"--port={port}"]
        return [*program, "--management-port=0", f"--bootstrap-servers={target.address}", *options]

    return command


def _any(case: Case) -> bool:
    return case.threads == 1 and case.poll_ms is None


def _one_record(case: Case) -> bool:
    return _any(case) and case.content == RECORD


def _not_pinned(case: Case) -> bool:
    return _any(case) and not case.pinned


def _over_tcp(case: Case) -> bool:
    return case.content == RECORD


def _franz(case: Case) -> bool:
    # franz-go has no limit of records in a batch that could be an old one.
    return _one_record(case) and case.profile != "old"


SYSTEMS = {
    system.name: system
    for system in (
        System("ingest", _ingest("--http=builtin"), _any),
        System("ingest-h11", _ingest("--http=h11"), _any),
        System("ingest-2-workers", _ingest("--workers=2"), _not_pinned),
        System("uvicorn-httptools", _peer("uvicorn_asgi", "--http=httptools"), _one_record),
        System("uvicorn-h11", _peer("uvicorn_asgi", "--http=h11"), _one_record),
        System("granian", _peer("granian_rsgi"), _one_record),
        System("hypercorn-trio", _peer("hypercorn_trio"), _one_record),
        System("starlette-aiokafka", _peer("starlette_aiokafka"), _one_record),
        System("fastapi-aiokafka", _peer("fastapi_aiokafka"), _one_record),
        System("tokio-hyper", _built("rust/release/tokio-hyper"), _one_record),
        System("tokio-tcp", _built("rust/release/tokio-tcp"), _over_tcp),
        System("uring-tcp", _built("rust/release/uring-tcp"), _over_tcp),
        System("glommio-tcp", _built("rust/release/glommio-tcp"), _over_tcp),
        System("go-franz", _built("go/go-franz"), _franz),
    )
}

BEFORE = "ingest-before"


def before(checkout: Path) -> System:
    """`ingest` of another checkout, to hold a change against what was there before."""
    own = _ingest("--http=builtin")

    def command(case: Case, target: Target, port: int, folder: Path) -> list[str]:
        _, *arguments = own(case, target, port, folder)
        # Not what the folder that this runs in has.
        return ["env", f"PYTHONPATH={checkout.resolve()}", sys.executable, "-P", *arguments]

    return System(BEFORE, command, _any)


LOOPS = {
    "produce-loop": lambda case: case.content != RECORD,
    "poll-loop": lambda case: case.connections == 1,
}
"""The loops of `bench.bare` without HTTP, and the cases that they are the measure of."""

QUERIES = {
    RECORD: "/",
    LINES: "/topics/{topic}/records?validate=false",
    VALIDATED: "/topics/{topic}/records",
    KEYED: "/topics/{topic}/records?key_field=id",
}


def request_target(case: Case, topic: str) -> str:
    """Where a request of this case goes: peers take one record at any path."""
    return QUERIES[case.content].format(topic=topic)


@contextlib.contextmanager
def serving(
    system: System,
    case: Case,
    target: Target,
    wanted: frozenset[int],
    folder: Path,
    options: Sequence[str] = (),
) -> Iterator[Server]:
    """The system, on these cores, once a record that was sent to it got its answer.

    `options` come last on its command line.
    """
    port = free_port()
    command = [*system.command(case, target, port, folder), *options]
    output = folder / "output"
    with (
        output.open("wb") as file,
        running(command, wanted, file, open_files=case.open_files) as process,
    ):
        try:
            _answers(port, process)
        except NotStarted as error:
            words = output.read_text(errors="replace").strip().splitlines()
            raise NotStarted(f"{error}: {words[-1]}" if words else str(error)) from None
        yield Server(process.pid, port)


def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    status: int | str = "nothing"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotStarted(f"ended with {process.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        try:
            connection.request("POST", "/", b'{"id":"first"}')
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            status = repr(error)
        finally:
            connection.close()
        if isinstance(status, int) and status < 300:
            return
        time.sleep(0.05)
    raise NotStarted(f"no 2xx within {START_SECONDS:.0f} s, at last {status}")
