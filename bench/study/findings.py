"""What the study has found, as values, and the JSON that everything published is made of.

A run is a list of steps.  Each has a key, and what it found is written as soon as it is done, so that a run
that was cut goes on where it stopped.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.cases import Case
from bench.results import Spread, spread


class Parts(Struct, frozen=True):
    """Processor time over a load, in seconds of one core."""

    server_user: float
    server_system: float
    broker: float
    load: float
    wire: float = 0.0
    """Of the program that delays frames, where there is one."""

    @property
    def server(self) -> float:
        """User and system together."""
        return self.server_user + self.server_system

    @property
    def others(self) -> float:
        """What shares the other core."""
        return self.broker + self.load + self.wire


class Observed(Struct, frozen=True):
    """Of a server under a load of so many seconds, from outside."""

    seconds: float
    parts: Parts
    voluntary: int
    """Context switches of its threads: it waited."""
    involuntary: int
    """Context switches of its threads: another had its turn."""
    descriptors: int
    """The most that were open."""
    accept_queue: int
    """The longest that was seen."""
    accept_limit: int
    overflows: int
    """Connections that found it full."""
    time_wait: int
    """Sockets in TIME_WAIT at the end."""
    time_wait_before: int
    calls_per_request: float | None = None
    """System calls, counted in a load of its own after the other."""
    calls_by: str = ""
    queue_records: float | None = None
    """In librdkafka's queue, the most that the system told of."""
    round_trip_us: float | None = None
    """librdkafka's own, to the broker, the median."""
    batch_records: float | None = None
    """In a batch, as a broker that stores them has them."""


class Rate(Struct, frozen=True, tag=True):
    """A system in closed loop."""

    system: str
    case: Case
    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    observed: Observed

    @property
    def per_second(self) -> float:
        """Requests."""
        return self.requests / self.seconds

    @property
    def records_per_second(self) -> float:
        """The same for contents of many records."""
        return self.per_second * self.case.lines

    @property
    def user_us(self) -> float:
        """The server's processor time for a request, in its own code and its libraries'."""
        return self.observed.parts.server_user / self.requests * 1e6

    @property
    def system_us(self) -> float:
        """The same in the kernel."""
        return self.observed.parts.server_system / self.requests * 1e6

    @property
    def cpu_us(self) -> float:
        """Both together."""
        return self.observed.parts.server / self.requests * 1e6


class Trial(Struct, frozen=True):
    """A constant rate, for a while."""

    per_second: float
    """That was asked for."""
    seconds: float
    requests: int
    answered: int
    p50_us: int
    p90_us: int
    p99_us: int
    p999_us: int
    most_us: int
    wrong: dict[str, int]
    """What failed, by how."""

    def holds(self, bound_us: float) -> bool:
        """Whether every request had its answer, and 99 of 100 within the bound."""
        return not self.wrong and self.answered == self.requests > 0 and self.p99_us <= bound_us


Tenth = tuple[int, int, int, int, int]
"""Of a tenth of a second: requests due in it, of these answered, failed, and over 50 ms; answers in it."""


class Hold(Struct, frozen=True, tag=True):
    """The search for the highest constant rate."""

    system: str
    case: Case
    bound_us: float
    trials: list[Trial]
    """Short ones, in their order: the curve of times against the rate."""
    held: Trial | None
    """The long one; None where no rate held."""
    seconds: list[int]
    """Answers in each of its seconds."""


class Recovery(Struct, frozen=True, tag=True):
    """An overload, and what came after it."""

    system: str
    case: Case
    capacity: float
    """Requests a second that it was held against: the overload was twice as much."""
    overload: Trial
    after: Trial
    tenths: list[Tenth]
    recovered_seconds: float | None
    """Since the end of the overload; None where it did not within the time that there was."""


class Sample(Struct, frozen=True, array_like=True):
    """A look at a server in a storm; seconds since its begin."""

    at: float
    accept_queue: int
    descriptors: int
    opened: int
    """Connections that the kernel has made for listening sockets since the storm began."""
    time_wait: int
    unread: int = 0
    """Completions in its io_uring rings that it has not looked at."""
    overflow: int = 0
    submitted: int = 0
    """The tails of its submission rings: they stand still where its loop does."""
    cpu_seconds: float = 0.0
    """The server's processor time since it was started."""


class Probe(Struct, frozen=True, array_like=True):
    """One request of somebody else, on a connection of its own."""

    at: float
    connected: bool
    status: int
    """0 where there was no answer within a second."""
    seconds: float


class Storm(Struct, frozen=True, tag=True):
    """Thousands of connections at once."""

    system: str
    kind: str
    open_files: int
    connections: int
    options: list[str]
    opened: int
    """Connections that the storm made."""
    answered: int
    failed: dict[str, int]
    """Connections of the storm that failed, by how."""
    seconds: float
    """From the first connection to the last's end."""
    probes: list[Probe]
    samples: list[Sample]
    recovered_seconds: float | None
    """From the storm's end to the first probe after which all are answered; None where none was in time."""
    died: bool
    client_time_wait: int = 0
    """Sockets in TIME_WAIT at the storm's end, where its connections came from."""

    @property
    def during(self) -> list[Probe]:
        """The probes that began while it lasted."""
        return [probe for probe in self.probes if 0 <= probe.at < self.seconds]

    @property
    def busy(self) -> float:
        """Cores that the server took while it lasted."""
        meanwhile = [sample for sample in self.samples if 0 <= sample.at <= self.seconds]
        if len(meanwhile) < 2:
            return 0.0
        first, last = meanwhile[0], meanwhile[-1]
        return (last.cpu_seconds - first.cpu_seconds) / (last.at - first.at)

    @property
    def accepts_per_second(self) -> float:
        """Connections made less those that still waited, over the storm."""
        while_it_was = [sample for sample in self.samples if sample.at <= self.seconds]
        if not while_it_was or not self.seconds:
            return 0.0
        last = while_it_was[-1]
        return max(0.0, last.opened - last.accept_queue) / self.seconds


class LinkFound(Struct, frozen=True, tag=True):
    """A link as it was measured; `bench.link.Quality`'s fields."""

    broker: str
    how: str
    round_trip_p50_us: float
    round_trip_p99_us: float
    bulk_bytes_per_second: float
    bulk_frames_per_second: float


class Checked(Struct, frozen=True, tag=True):
    """A system that keeps a promise: so many records sent, each found once."""

    system: str
    promise: str
    records: int


class Failed(Struct, frozen=True, tag=True):
    """A step that did not come to its end."""

    system: str
    what: str
    reason: str


Finding = Rate | Hold | Recovery | Storm | LinkFound | Checked | Failed


class Findings(Struct):
    """A whole run, as a file of bench/results/study has it."""

    date: str
    commit: str
    machine: str
    versions: dict[str, str]
    settings: dict[str, Any]
    left_out: dict[str, str] = {}
    """Systems, brokers and tools that had no part, and why."""
    steps: dict[str, Finding] = {}

    def of(self, kind: type[Any]) -> list[Any]:
        """The findings of one kind, in the order of the run."""
        return [finding for finding in self.steps.values() if isinstance(finding, kind)]

    def rates(self, system: str, case: Case) -> list[Rate]:
        """All rounds of a system in a case."""
        return [each for each in self.of(Rate) if each.system == system and each.case == case]

    def spread(
        self, system: str, case: Case, metric: Callable[[Rate], float] = lambda rate: rate.per_second
    ) -> Spread | None:
        """Over the rounds; None where it was not measured."""
        values = [metric(rate) for rate in self.rates(system, case)]
        return spread(values) if values else None

    def median(
        self, system: str, case: Case, metric: Callable[[Rate], float] = lambda rate: rate.per_second
    ) -> float | None:
        """The median of `spread`."""
        found = self.spread(system, case, metric)
        return None if found is None else found.median

    def systems(self) -> list[str]:
        """Those that something was found about, in the order of the run."""
        named = (getattr(finding, "system", "") for finding in self.steps.values())
        return [name for name in dict.fromkeys(named) if name]

    def write(self, path: Path) -> Path:
        """Whole or not at all, so that a run that is cut leaves what it had."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        unfinished.rename(path)
        return path


def read(path: Path) -> Findings:
    """A file that `Findings.write` wrote.  Raises msgspec.ValidationError where it is of another version."""
    return msgspec.json.decode(path.read_bytes(), type=Findings)


def middle(values: Sequence[float]) -> float:
    """The median, and 0 of nothing."""
    return statistics.median(values) if values else 0.0
