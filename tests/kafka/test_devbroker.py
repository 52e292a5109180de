from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import trio
from confluent_kafka import Producer

from ingest.kafka.consumer import open_topic
from ingest.kafka.devbroker import find, open_dev_broker


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's runtime folder, empty; and so is the folder for temporary files."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return runtime


async def test_what_is_written_can_be_read_by_others(runtime: Path) -> None:
    async with open_dev_broker() as address:
        assert address.startswith("127.0.0.1:")
        settings = {"bootstrap.servers": address}

        def write_and_read() -> bytes | None:
            producer = Producer(settings)
            producer.produce("events", b"hello", on_delivery=lambda *_: None)
            assert producer.flush(10) == 0
            with open_topic("events", settings, from_beginning=True) as records:
                return next(records).value

        assert await trio.to_thread.run_sync(write_and_read) == b"hello"


async def test_the_running_broker_is_found_until_it_ends() -> None:
    assert find() is None
    async with open_dev_broker() as address:
        assert find() == address
    assert find() is None


async def test_of_several_the_one_started_last_is_found_while_it_runs(runtime: Path) -> None:
    async with open_dev_broker() as first:
        async with open_dev_broker() as second:
            assert first != second
            assert find() == second
        assert find() == first
    assert left_in(runtime) == []


async def test_the_file_goes_with_a_cancelled_broker(runtime: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_dev_broker():
            assert left_in(runtime) != []
            scope.cancel()
            await trio.sleep_forever()
    assert left_in(runtime) == []


def left_in(runtime: Path) -> list[Path]:
    return [path for path in runtime.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "content", ["", "\n", "x 127.0.0.1:1", "1", "4194305 127.0.0.1:1", "1 2 3", "\udcff", "-5 a:1"]
)
async def test_what_a_crash_left_behind_is_not_found(runtime: Path, content: str) -> None:
    async with open_dev_broker() as address:
        (running,) = left_in(runtime)
        left = running.with_name("broker-1")
        left.write_bytes(content.encode(errors="surrogateescape"))
        assert find() == address
    assert find() is None
    assert left_in(runtime) == [left]


@pytest.mark.parametrize("folder", [None, "missing", "readonly"])
async def test_without_a_runtime_folder_of_ours_there_is_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    if folder is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / folder))
    if folder == "readonly":
        (tmp_path / folder).write_text("a file")
    async with open_dev_broker() as address:
        assert find() == address
        ours = tmp_path / f"ingest-{os.getuid()}"
        assert [path.read_text() for path in left_in(ours)] == [f"{os.getpid()} {address}\n"]
        assert ours.stat().st_mode & 0o077 == 0
    assert find() is None
