"""The real Kafka, for the folders whose tests need one, and what a session says at its end.

Folders give their tests a marker, so that a session picks them: `broker`, `promises` and `clients`.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.broker.kafka_server import KafkaMissing, RealKafka
from tests.commands import SECONDS, Running
from tests.promises.record import Record, add_record

FOLDER = Path(__file__).parent
MARKED_FOLDERS = ("broker", "promises", "clients")
REPORT = pytest.StashKey[list[str]]()
RECORDS = pytest.StashKey[list[Record]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record",
        metavar="COMMAND",
        help="write the figures reached into docs/explanation/reliability.md, as shown by COMMAND",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in MARKED_FOLDERS:
            if FOLDER / name in item.path.parents:
                item.add_marker(name)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Nothing configured, and a runtime folder of its own, where the broker inside is found."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    return own | {
        "INGEST_MANAGEMENT__PORT": "0",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


@pytest.fixture
def ingest(environ: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ingest", *arguments]
        return subprocess.run(
            command, env=environ | more, capture_output=True, encoding="utf-8", timeout=SECONDS, check=False
        )

    return run


@pytest.fixture
def start(environ: dict[str, str]) -> Callable[..., AbstractContextManager[Running]]:
    @contextmanager
    def run(*arguments: str) -> Iterator[Running]:
        command = [sys.executable, "-m", "ingest", *arguments]
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return run


@pytest.fixture(scope="session")
def session_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    try:
        server = RealKafka(tmp_path_factory.mktemp("kafka"))
    except KafkaMissing as missing:
        pytest.fail(str(missing), pytrace=False)  # never skipped: without a real Kafka nothing is shown
    server.start()
    yield server
    server.stop()


@pytest.fixture
def kafka(session_kafka: RealKafka) -> Iterator[RealKafka]:
    """A running broker, and afterwards again, whatever the test did to it."""
    yield session_kafka
    if session_kafka.is_running():
        session_kafka.thaw()
        session_kafka.wait_until_unfenced()
    else:
        session_kafka.start()


@pytest.fixture
def new_topic(kafka: RealKafka) -> Callable[..., str]:
    """Creates a topic with a name of its own."""

    def create(partitions: int = 1, config: dict[str, str] | None = None) -> str:
        return kafka.create_topic(f"t-{secrets.token_hex(4)}", partitions, config)

    return create


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to what is printed at the end of the session."""
    return request.config.stash.setdefault(REPORT, []).append


@pytest.fixture
def reached(request: pytest.FixtureRequest) -> Callable[[int, str], None]:
    """Takes the figure that a row of the promises has reached, to be printed and, with `--record`, kept.

    What a test adds replaces what the same test had added in an earlier session.
    """
    records = request.config.stash.setdefault(RECORDS, [])

    def add(row: int, figure: str) -> None:
        records.append(Record(row, request.node.nodeid, figure))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(REPORT, [])
    if lines:
        terminalreporter.section("against a real Kafka")
        for line in lines:
            terminalreporter.write_line(line)
    records = config.stash.get(RECORDS, [])
    if records:
        terminalreporter.section("promises")
        for record in sorted(records):
            terminalreporter.write_line(f"row {record.row}: {record.figure}")
    command = config.getoption("--record")
    if records and command is not None:
        add_record(records, command)
