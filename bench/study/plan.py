"""What the study measures: systems, phases, what is changed one at a time, and the grid of its figures."""

from __future__ import annotations

import dataclasses
import resource
from dataclasses import dataclass, field

from bench.cases import LINES, Case
from bench.study.steady import Durations
from bench.study.storm import KINDS
from bench.study.storms import ELSEWHERE, FROZEN
from bench.systems import BUILT_PEERS

OURS = "ingest"
SYSTEMS = [OURS, *BUILT_PEERS]

FILES_FEW = 1024
FILES_MANY = 65_536
"""The limits of the document; of the second what is allowed, see `files_many`."""


def files_many() -> int:
    """65,536, or the highest limit of descriptors that this session may give."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FILES_MANY if most == resource.RLIM_INFINITY else min(FILES_MANY, most)


PHASE_1 = Case(broker="kafka", linger_ms=5, open_files=FILES_FEW)
"""Local Kafka, the producer's defaults, and the shell's limit of descriptors."""


def phase_2(many: int | None = None) -> Case:
    """Kafka elsewhere, larger batches and queue, a tuned linger, and many descriptors.

    `many` is what was many where something was measured, if that is not here; so it is below.
    """
    return Case(broker="kafka-1ms", linger_ms=1, profile="tuned", open_files=many or files_many())


def factors(many: int | None = None) -> dict[str, Case]:
    """Phase 1 with one thing changed, by what it is."""
    second = phase_2(many)
    return {
        "broker 0 ms away": dataclasses.replace(PHASE_1, broker="kafka-0ms"),
        "broker 1 ms away": dataclasses.replace(PHASE_1, broker="kafka-1ms"),
        "broker 5 ms away": dataclasses.replace(PHASE_1, broker="kafka-5ms"),
        f"ulimit -n {second.open_files}": dataclasses.replace(PHASE_1, open_files=second.open_files),
        "producer tuned, linger.ms 1": dataclasses.replace(
            PHASE_1, profile=second.profile, linger_ms=second.linger_ms
        ),
        "linger.ms 0, an old default": dataclasses.replace(PHASE_1, linger_ms=0),
        "linger.ms 0.5, the one before today's": dataclasses.replace(PHASE_1, linger_ms=0.5),
        "batch.num.messages 1000, an old default": dataclasses.replace(PHASE_1, profile="old"),
        "promise queued": dataclasses.replace(PHASE_1, promise="queued"),
        "a new connection for each request": dataclasses.replace(PHASE_1, fresh_percent=100),
        "half on new connections": dataclasses.replace(PHASE_1, fresh_percent=50),
    }


DEFAULT_64 = Case(linger_ms=5)
AT_64 = (DEFAULT_64, Case(), Case(linger_ms=0))
AT_512 = tuple(dataclasses.replace(case, connections=512) for case in (DEFAULT_64, Case()))
QUEUED = Case(promise="queued")
BATCHES = Case(connections=32, content=LINES, lines=100)
GRID = [*AT_64, *AT_512, QUEUED, BATCHES]
"""The cases of the figures, on the mock cluster, which holds nobody up."""


def holding(many: int | None = None) -> Case:
    """The case of the highest constant rate: phase 2, with connections for what is under way in 50 ms."""
    return dataclasses.replace(phase_2(many), connections=256)


@dataclass(frozen=True)
class StormPlan:
    """One storm; `systems` empty is all."""

    kind: str
    open_files: int
    options: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    promise: str = "delivered"
    seconds: float = 0.0
    """Where it is not as long as the others."""
    reuse: str = ""
    """tcp_tw_reuse where the storm comes from, if that is elsewhere."""


FROZEN_SECONDS = 6.0
"""As long as it takes to fill a queue of 100,000 records at 17,000 a second, and shorter than the 8 s after
which the peers give a record up."""


def storms(kinds: tuple[str, ...] = KINDS) -> list[StormPlan]:
    """Each kind under both limits; what a frozen broker does; and the accept loop's answer to errors."""
    many = files_many()
    return [
        *(StormPlan(kind, files) for files in (FILES_FEW, many) for kind in kinds),
        StormPlan(FROZEN, many, promise="queued", seconds=FROZEN_SECONDS),
        *(StormPlan(ELSEWHERE, many, systems=(OURS, "uring-tcp"), reuse=reuse) for reuse in ("0", "1")),
        *(
            StormPlan("idle", FILES_FEW, (f"--accept-errors={what}",), ("uring-tcp", "tokio-tcp"))
            for what in ("retry", "pause", "end")
        ),
    ]


@dataclass(frozen=True)
class Pace:
    """How much of it, and for how long."""

    name: str
    rounds: int = 3
    """Of the grid."""
    phase_rounds: int = 2
    """Of both phases; what is changed one at a time, and for the hypotheses, has one."""
    seconds: float = 2.0
    """Of a measurement in closed loop, after one of warming up."""
    grid: list[Case] = field(default_factory=lambda: list(GRID))
    factors: tuple[str, ...] = field(default_factory=lambda: tuple(factors()))
    durations: Durations = field(default_factory=Durations)
    storms: list[StormPlan] = field(default_factory=storms)
    storm_connections: int = 4000
    storm_seconds: float = 2.5
    patience_seconds: float = 8.0
    hypotheses: bool = True


def full() -> Pace:
    """For the page: at most 40 minutes, of which the rows of the figures get the most rounds."""
    return Pace("full")


def quick() -> Pace:
    """For its workings, not its figures: every part of it once, at most 6 minutes."""
    return Pace(
        "quick",
        rounds=1,
        phase_rounds=1,
        seconds=1.0,
        grid=[Case()],
        factors=("half on new connections",),
        durations=Durations(trial=1.0, hold=2.0, overload=1.0, after=2.0, trials=2, precision=0.3),
        storms=[
            StormPlan("close", files_many()),
            StormPlan("idle", FILES_FEW),
            StormPlan("half-open", FILES_FEW),
        ],
        storm_connections=3000,
        storm_seconds=1.5,
        patience_seconds=2.0,
        hypotheses=False,
    )
