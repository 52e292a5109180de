"""The document at `/openapi.json`, held by schemathesis against the service that serves it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import ingest
from ingest.testing import MemoryProducer
from tests.serving import OFF, serving

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
PARAMETERS = """
[parameters]
"path.cluster" = "memory"
"path.topic" = "orders"
"""
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "4"))
"""How many requests are tried of each operation and kind; `nox -s openapi` tries more."""


HANGS = 3600 if EXAMPLES > 10 else 240


@pytest.mark.timeout(HANGS)
@pytest.mark.parametrize("engine", ["builtin", "h11"])
async def test_schemathesis_finds_no_5xx_and_no_answer_that_the_document_does_not_have(
    engine: str, tmp_path: Path
) -> None:
    producer = MemoryProducer(topics=["events", "orders"])
    http = ingest.HTTP(port=0, engine=engine)  # type: ignore[arg-type]  # one of its literals
    config = ingest.Config(management=OFF, http=http)
    (tmp_path / "schemathesis.toml").write_text(PARAMETERS)
    async with serving(producer, config, hangs=HANGS) as server:
        done = await trio.run_process(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
                *("--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES), "--seed", "1"),
                *("--phases", "examples,coverage,fuzzing", "--no-color", "--generation-database", "none"),
                "--continue-on-failure",
            ],
            cwd=tmp_path,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode()
    assert producer.records
