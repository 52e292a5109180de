from __future__ import annotations

from collections.abc import Callable

import pytest

from ingest.http.engines import ENGINES
from ingest.http.protocol import HTTPProtocol


@pytest.fixture(params=list(ENGINES))
def make_protocol(request: pytest.FixtureRequest) -> Callable[[], HTTPProtocol]:
    """Makes an HTTPProtocol; every test that asks for it runs on each engine."""
    return ENGINES[request.param]
