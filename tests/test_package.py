"""The distributions, and README's first command, as somebody meets them who has nothing else.

Run by `nox -s package`, which builds them and says in INGEST_DIST where they are.  Needs a package index.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.package

LICENCES = {"LICENSE-MIT", "LICENSE-APACHE"}


@pytest.fixture(scope="module")
def wheel() -> Path:
    (path,) = Path(os.environ["INGEST_DIST"]).glob("*.whl")
    return path


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The tree as the sdist has it: nothing built, no environment."""
    (path,) = Path(os.environ["INGEST_DIST"]).glob("*.tar.gz")
    subprocess.run(["tar", "-xf", path, "-C", tmp_path], check=True)
    (tree,) = tmp_path.iterdir()
    return tree


def test_wheel_has_the_package_its_types_and_both_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "ingest/py.typed" in names
    assert {Path(name).name for name in names if "/licenses/" in name} == LICENCES
    assert {name.split("/")[0] for name in names} == {"ingest", wheel.name.split("-py3")[0] + ".dist-info"}


def test_sdist_has_all_that_the_checks_need(unpacked: Path) -> None:
    there = {path.name for path in unpacked.iterdir()}
    assert {"ingest", "tests", "docs", "noxfile.py", "pyproject.toml", "README.md", *LICENCES} <= there


def test_wheel_installs_alone_and_says_its_version(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    subprocess.run([tmp_path / "bin" / "pip", "install", "--quiet", wheel], check=True)
    said = subprocess.check_output([tmp_path / "bin" / "ingest", "--version"], text=True, cwd=tmp_path)
    assert said.strip() == f"ingest {wheel.name.split('-')[1]}"
    subprocess.run(
        [tmp_path / "bin" / "python", "-W", "error", "-c", "import ingest"], check=True, cwd=tmp_path
    )


@pytest.fixture
def first_command(unpacked: Path) -> Iterator[subprocess.Popen[str]]:
    """README's first command, running in an unpacked tree, on a free port."""
    (line,) = re.findall(
        r"^python3 -m venv .*/ingest serve$", (unpacked / "README.md").read_text(), re.MULTILINE
    )
    there = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    with subprocess.Popen(
        ["sh", "-c", line],
        cwd=unpacked,
        env=there
        | {
            "INGEST_HTTP__PORT": "0",
            "XDG_RUNTIME_DIR": str(unpacked),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        yield running
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)


def test_first_command_of_readme_installs_and_serves_until_it_is_interrupted(
    first_command: subprocess.Popen[str],
) -> None:
    assert first_command.stdout is not None
    said: list[str] = []
    for line in first_command.stdout:
        said.append(line)
        if address := re.search(r"listening.*(http://127\.0\.0\.1:\d+)", line):
            break
    else:
        pytest.fail("".join(said))
    with urllib.request.urlopen(f"{address[1]}/", data=b'{"id":1}', timeout=10) as answer:
        assert answer.status == 200
        assert answer.read().startswith(b'{"topic":"events"')
    os.killpg(first_command.pid, signal.SIGINT)
    rest, _ = first_command.communicate(timeout=30)  # of the shell's exit code only the signal can be told
    assert "drained accepted=1 delivered=1 failed=0 unknown=0" in rest
