from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest.http.engines import ENGINES
from tests.mock_kafka import MockKafka, open_mock_kafka


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """What `--http` takes; every test that asks for it runs on each engine."""
    name: str = request.param
    return name


@pytest.fixture
def cluster() -> Iterator[MockKafka]:
    """A mock cluster with the topic `events`, outside of the process whose memory is measured."""
    with open_mock_kafka() as running:
        running.create("events")
        yield running
