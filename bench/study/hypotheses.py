"""What the figures of the document may have been: each a hypothesis, and what else must then follow.

A hypothesis does not choose its figure's free number to fit, and then count as shown: it is held to what must
change, and by how much, where one other thing does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from bench.cases import Case
from bench.study.findings import Findings, Rate
from bench.study.plan import OURS, PHASE_1
from bench.systems import SYSTEMS

CLOSE_TO = 0.25
"""A rate that is so near to the figure counts as it."""

ONE = dataclasses.replace(PHASE_1, connections=1)
TWO = dataclasses.replace(PHASE_1, connections=2)
EIGHT = dataclasses.replace(PHASE_1, connections=8)
TWENTY_FOUR = dataclasses.replace(PHASE_1, connections=24)
ONE_LINGER_0 = dataclasses.replace(ONE, linger_ms=0)
ONE_QUEUED = dataclasses.replace(ONE, promise="queued")
OLD_64 = dataclasses.replace(PHASE_1, linger_ms=1000)
OLD_128 = dataclasses.replace(OLD_64, connections=128)
FRESH = dataclasses.replace(PHASE_1, fresh_percent=100)
FRESH_QUEUED = dataclasses.replace(FRESH, promise="queued")
FRESH_TUNED = dataclasses.replace(FRESH, linger_ms=1, profile="tuned")
LEFT = "each request leaves a socket in TIME_WAIT"
ONE_AWAY = dataclasses.replace(ONE, broker="kafka-1ms", linger_ms=1, profile="tuned")
EIGHT_AWAY = dataclasses.replace(ONE_AWAY, connections=8)
"""As phase 2 has it, but for the limit of descriptors, which so few do not come near."""
KEPT_QUEUED = dataclasses.replace(PHASE_1, promise="queued")
POLLED = dataclasses.replace(KEPT_QUEUED, threads=2, poll_ms=1, pinned=False)
POLLED_8 = dataclasses.replace(POLLED, connections=8)
POLLED_ALONE = dataclasses.replace(POLLED, threads=1)
POLLED_BY = dataclasses.replace(POLLED, poll_ms=0)
"""A poll that holds nobody up."""


def per_second(rate: Rate) -> float:
    """Requests."""
    return rate.per_second


def cores_used(rate: Rate) -> float:
    """By the server."""
    return rate.observed.parts.server / rate.observed.seconds


def time_wait_per_request(rate: Rate) -> float:
    """Sockets that stay in TIME_WAIT for each request; fewer where some have come to their end meanwhile."""
    return max(0, rate.observed.time_wait - rate.observed.time_wait_before) / rate.requests


@dataclass(frozen=True)
class Prediction:
    """What must follow: a metric of `of`, over that of `against` if there is one, from `least` to `most`."""

    text: str
    of: Case
    least: float
    most: float
    against: Case | None = None
    metric: Callable[[Rate], float] = per_second


@dataclass(frozen=True)
class Hypothesis:
    """Of one of the document's figures, reported for `system`."""

    figure: int
    system: str
    text: str
    case: Case
    """In which the figure itself would be seen."""
    predictions: tuple[Prediction, ...]


HYPOTHESES = (
    Hypothesis(
        132,
        "tokio-hyper",
        "one request at a time, each waiting for its delivery, and so for the whole linger of 5 ms",
        ONE,
        (
            Prediction("two connections do twice as much", TWO, 1.7, 2.3, ONE),
            Prediction("without linger it is at least twice as much", ONE_LINGER_0, 2, 1e9, ONE),
            Prediction("answers that do not wait are at least ten times as many", ONE_QUEUED, 10, 1e9, ONE),
        ),
    ),
    Hypothesis(
        132,
        "tokio-hyper",
        "the linger of librdkafka before 0.11, 1,000 ms, and about 132 connections that each wait for it",
        OLD_128,
        (
            Prediction("half of the connections do half as much", OLD_64, 0.45, 0.55, OLD_128),
            Prediction("with today's 5 ms it is at least fifty times as much", PHASE_1, 50, 1e9, OLD_64),
        ),
    ),
    Hypothesis(
        1500,
        "uring-tcp",
        "eight connections, each waiting for its delivery and a linger of 5 ms",
        EIGHT,
        (
            Prediction("eight connections do eight times as much as one", EIGHT, 6.5, 9.5, ONE),
            Prediction("and 64 eight times as much as eight", PHASE_1, 6.5, 9.5, EIGHT),
        ),
    ),
    Hypothesis(
        1500,
        "uring-tcp",
        "a new connection for each request, answered when it is queued",
        FRESH_QUEUED,
        (
            Prediction("connections that are kept do five times as much", KEPT_QUEUED, 5, 1e9, FRESH_QUEUED),
            Prediction(LEFT, FRESH_QUEUED, 0.5, 1.5, metric=time_wait_per_request),
        ),
    ),
    Hypothesis(
        1500,
        "uring-tcp",
        "a loop on each of two cores that polls the producer itself, for 1 ms after each record, and answers "
        "nobody else meanwhile",
        POLLED,
        (
            Prediction("one loop does nearly 1,000 a second, and never more", POLLED_ALONE, 800, 1000),
            Prediction("which takes a core: such a poll spins", POLLED_ALONE, 0.9, 1.1, metric=cores_used),
            Prediction("two do at most twice as much", POLLED, 1.3, 2, POLLED_ALONE),
            Prediction("eight connections do as much as 64", POLLED_8, 0.8, 1.25, POLLED),
            Prediction("a poll of no time does at least five times as much", POLLED_BY, 5, 1e9, POLLED),
        ),
    ),
    Hypothesis(
        4500,
        "tokio-tcp",
        "the eight connections of 1,500 again, with the tuned producer, and Kafka 1 ms away: three times as "
        "much by the settings alone",
        EIGHT_AWAY,
        (
            Prediction("eight connections do eight times as much as one", EIGHT_AWAY, 6.5, 9.5, ONE_AWAY),
            Prediction("three times as much as in phase 1", EIGHT_AWAY, 2.25, 3.75, EIGHT),
        ),
    ),
    Hypothesis(
        4500,
        "tokio-tcp",
        "24 connections, each waiting for its delivery and a linger of 5 ms",
        TWENTY_FOUR,
        (Prediction("24 connections do three times as much as eight", TWENTY_FOUR, 2.6, 3.4, EIGHT),),
    ),
    Hypothesis(
        4500,
        "tokio-tcp",
        "a new connection for each request, waiting for its delivery with the tuned producer, "
        "which is also why there were no ephemeral ports left",
        FRESH_TUNED,
        (
            Prediction(
                "the producer's settings are worth little beside it: the defaults do at least 0.7 of it",
                FRESH, 0.7, 1.3, FRESH_TUNED,
            ),
            Prediction("answers that do not wait do at most 1.5 of it", FRESH_QUEUED, 0.7, 1.5, FRESH_TUNED),
            Prediction(LEFT, FRESH_TUNED, 0.5, 1.5, metric=time_wait_per_request),
        ),
    ),
)  # fmt: skip


def cases() -> list[tuple[str, Case]]:
    """What has to be measured for all of them: systems, ours beside each, and cases; each once."""
    wanted = []
    for hypothesis in HYPOTHESES:
        of = [hypothesis.case]
        for prediction in hypothesis.predictions:
            of += [prediction.of, *([] if prediction.against is None else [prediction.against])]
        wanted += [(system, case) for system in systems(hypothesis) for case in of]
    return list(dict.fromkeys(wanted))


def systems(hypothesis: Hypothesis) -> list[str]:
    """Those that it is tested on: the reported one, and ours where that can do the same."""
    return [name for name in (hypothesis.system, OURS) if SYSTEMS[name].takes(hypothesis.case)]


@dataclass(frozen=True)
class Held:
    """A prediction, and what came of it; None where it was not measured."""

    prediction: Prediction
    value: float | None

    @property
    def word(self) -> str:
        """How the table puts it."""
        if self.value is None:
            return "not measured"
        return "follows" if self.prediction.least <= self.value <= self.prediction.most else "does not follow"


@dataclass(frozen=True)
class Tested:
    """A hypothesis on a system, the reported one or ours."""

    hypothesis: Hypothesis
    system: str
    rate: float | None
    held: list[Held]

    @property
    def word(self) -> str:
        """The verdict: a figure that is met by chance counts for nothing where a prediction fails."""
        words = {held.word for held in self.held}
        if self.rate is None or "not measured" in words:
            return "not measured"
        near = abs(self.rate / self.hypothesis.figure - 1) <= CLOSE_TO
        if "does not follow" in words:
            return "refuted"
        return "reproduced" if near else "not reproduced"


def test(findings: Findings, hypothesis: Hypothesis, system: str) -> Tested:
    """Hold it against what was measured."""
    held = []
    for prediction in hypothesis.predictions:
        value = findings.median(system, prediction.of, prediction.metric)
        if value is not None and prediction.against is not None:
            against = findings.median(system, prediction.against, prediction.metric)
            value = value / against if against else None
        held.append(Held(prediction, value))
    return Tested(hypothesis, system, findings.median(system, hypothesis.case), held)
