"""What was measured, as values: medians over rounds, and the JSON that everything published is made of."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.cases import Case

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "bench"
"""Where every run leaves its results."""
QUIET = 0.5
"""The load average up to which nobody else seems to be at work."""
PUBLISHED = ROOT / "bench" / "results"
"""Where those go that the page is made of."""
PACKAGES = [
    "aiokafka", "confluent-kafka", "fastapi", "granian", "h11", "httptools", "hypercorn", "ingest", "msgspec",
    "starlette", "trio", "uvicorn", "uvloop",
]  # fmt: skip


@dataclass(frozen=True)
class Metrics:
    """One measurement.  Times of answers are in microseconds, and so is CPU time a request."""

    requests_per_second: float
    records_per_second: float
    p50_us: float | None
    p99_us: float | None
    p999_us: float | None
    user_us: float
    system_us: float
    resident_bytes: int
    others_busy: float
    """Cores that load and broker took together: near 1, pinned, they were what held the server up."""

    @property
    def cpu_us(self) -> float:
        """User and system together."""
        return self.user_us + self.system_us

    def __str__(self) -> str:
        cpu = f"{self.user_us:.1f} + {self.system_us:.1f} µs CPU"
        p99 = f", p99 {self.p99_us / 1000:.1f} ms" if self.p99_us is not None else ""
        rest = f"{self.resident_bytes / 1e6:.0f} MB, others {self.others_busy:.0%} of a core"
        return f"{self.requests_per_second:,.0f} requests/s, {cpu}{p99}, {rest}"


@dataclass(frozen=True)
class Measurement:
    """A system in a case in a round; without metrics it failed, and `failure` says how."""

    case: Case
    system: str
    round: int
    metrics: Metrics | None
    failure: str = ""


class Spread(NamedTuple):
    """A metric over the rounds."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Results:
    """A whole run, as a file of bench/results has it."""

    date: str
    commit: str
    machine: str
    brokers: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, Any]
    checks: list[str]
    left_out: dict[str, str]
    measurements: list[Measurement]

    def cases(self) -> list[Case]:
        """In the order of the run."""
        return list(dict.fromkeys(each.case for each in self.measurements))

    def systems(self, case: Case) -> list[str]:
        """In the order of the run; those too whose rounds failed."""
        return list(dict.fromkeys(each.system for each in self.measurements if each.case == case))

    def failure(self, case: Case, system: str) -> str:
        """Why it has no figures here: one failed round is enough; "" where all is well."""
        failures = [each.failure for each in self._of(case, system) if each.metrics is None]
        return failures[0] if failures else ""

    def spread(self, case: Case, system: str, metric: Callable[[Metrics], float | None]) -> Spread | None:
        """Over the rounds; None where it was not measured, or a round failed."""
        values = []
        for each in self._of(case, system):
            value = metric(each.metrics) if each.metrics is not None else None
            if value is None:
                return None
            values.append(value)
        return spread(values) if values else None

    def _of(self, case: Case, system: str) -> list[Measurement]:
        return [each for each in self.measurements if each.case == case and each.system == system]

    def write(self, folder: Path = FOLDER) -> Path:
        """Into a file of its own; returns which."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.date.replace(':', '')}.json"
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n")
        return path


def read(path: Path) -> Results:
    """A file that `Results.write` wrote."""
    data = json.loads(path.read_text())
    measurements = [
        Measurement(
            **{
                **each,
                "case": Case(**each["case"]),
                "metrics": Metrics(**each["metrics"]) if each["metrics"] is not None else None,
            }
        )
        for each in data.pop("measurements")
    ]
    return Results(**data, measurements=measurements)


def with_before(folder: Path) -> list[tuple[Path, Results]]:
    """The runs in a folder in which an earlier `ingest` took part, the latest of each commit, in order."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        results = read(path)
        if "before" in results.settings:
            found[results.settings["before"]] = path, results
    return list(found.values())


def spread(values: Sequence[float]) -> Spread:
    """The median with the least and the most."""
    return Spread(statistics.median(values), min(values), max(values))


def now() -> str:
    """The time as a run is named by it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit(checkout: Path = ROOT) -> str:
    """What was measured; with a plus where the tree had changes that nobody can look up."""
    command = ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout)
    return done.stdout.strip()


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Of what took part, and is installed."""
    found = {"CPython": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def pinned_versions() -> dict[str, str]:
    """Of what the peers in Rust and Go are made of, as their manifests pin it."""
    peers = Path(__file__).parent / "peers"
    crates = tomllib.loads((peers / "rust" / "Cargo.toml").read_text())["workspace"]["dependencies"]
    found = {}
    for name, pin in crates.items():
        version = pin if isinstance(pin, str) else pin.get("version")
        if version is not None:
            found[name] = version.removeprefix("=")
    module = (peers / "go" / "go.mod").read_text()
    found |= re.findall(r"^\t\S+/(franz-go) v(\S+)$", module, re.MULTILINE)
    return found


def machine() -> str:
    """The processor, its cores, and the kernel."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Linux {platform.release()}"
