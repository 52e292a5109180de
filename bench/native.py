"""The programs in C, for which Python would be too slow beside what is measured: built when needed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from bench.processes import ROOT

SOURCES = Path(__file__).parent / "native"
BUILT = ROOT / "build" / "native"


class NotBuilt(Exception):
    """A program that cannot be had here; the text says what to install, or what the compiler said."""


def program(name: str) -> Path:
    """`wire`, `steady` or `walk`, built from this very source.  Raises `NotBuilt`."""
    source = SOURCES / f"{name}.c"
    path = BUILT / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:8]}"
    if path.exists():
        return path
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotBuilt(f"{name} is in C, and there is no `cc` on the PATH (Debian: apt-get install gcc)")
    BUILT.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(unfinished), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise NotBuilt(f"{name}: {done.stderr.strip()[-300:]}")
    unfinished.rename(path)
    return path
