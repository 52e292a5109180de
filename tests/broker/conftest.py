"""The real Kafka of this folder's tests, and the report that they end with."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker.kafka_server import KafkaMissing, RealKafka

FOLDER = Path(__file__).parent
REPORT = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.broker)


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(REPORT, [])
    if lines:
        terminalreporter.section("against a real Kafka")
        for line in lines:
            terminalreporter.write_line(line)
