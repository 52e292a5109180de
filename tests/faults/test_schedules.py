"""Seeded schedules of faults on a real Kafka: five of them with the broker's tests, the rest as a soak.

`INGEST_FAULT_SEED=17` in the environment runs that one schedule in place of those of a session.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable

import pytest

from tests.broker.kafka_server import RealKafka
from tests.faults.journal import Fate
from tests.faults.schedules import Fault, Schedule, draw, run_schedule

log = logging.getLogger(__name__)

ONE_SEED = os.environ.get("INGEST_FAULT_SEED")
FEW = [1, 2, 3, 4, 5]
"""Together they have every kind of fault."""
SOAK_SCHEDULES = 52
SOAK_RECORDS = 1_000_000


def test_a_seed_makes_the_same_schedule_each_time() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_the_few_schedules_have_every_kind_of_fault() -> None:
    assert {event.fault for seed in FEW for event in draw(seed).events} == set(Fault)


def test_some_freezes_of_the_soak_last_longer_than_an_answer_may_take() -> None:
    schedules = [draw(seed) for seed in range(SOAK_SCHEDULES)]
    longer = [seed for seed, schedule in enumerate(schedules) if longest_freeze(schedule) > 0]
    assert len(longer) >= SOAK_SCHEDULES // 5


def longest_freeze(schedule: Schedule) -> float:
    """The longest freeze of a schedule, beyond timeouts.answer_seconds."""
    freezes = [event.seconds for event in schedule.events if event.fault is Fault.FREEZE]
    return max(freezes, default=0) - schedule.answer_seconds


@pytest.mark.broker
@pytest.mark.parametrize("seed", FEW if ONE_SEED is None else [int(ONE_SEED)])
async def test_every_answer_is_true_whatever_fails_meanwhile(
    kafka: RealKafka, new_topic: Callable[..., str], report: Callable[[str], None], seed: int
) -> None:
    schedule = draw(seed)
    log.warning("%s", schedule)
    run = await run_schedule(schedule, kafka, new_topic(partitions=3), records=5_000)
    report(f"{schedule}; {run.verdict}; slowest answer {run.journal.slowest_seconds:.1f} s")
    run.check(schedule)


@pytest.mark.soak
async def test_nothing_answered_is_lost_over_many_schedules(
    kafka: RealKafka, new_topic: Callable[..., str], reached: Callable[[int, str], None]
) -> None:
    seeds = range(1000, 1000 + SOAK_SCHEDULES) if ONE_SEED is None else [int(ONE_SEED)]
    fates: Counter[Fate] = Counter()
    faults: Counter[Fault] = Counter()
    wrong: list[str] = []
    for seed in seeds:
        schedule = draw(seed)
        log.warning("%s", schedule)
        run = await run_schedule(
            schedule, kafka, new_topic(partitions=3), records=SOAK_RECORDS // SOAK_SCHEDULES + 1
        )
        log.warning("%s", run.verdict)
        try:
            run.check(schedule)
        except AssertionError as error:
            wrong.append(f"{schedule}: {error}")
            log.error("%s", wrong[-1])
        fates.update(run.verdict.fates)
        faults.update(event.fault for event in schedule.events)
    told = ", ".join(f"{count} × {fault.value}" for fault, count in faults.most_common())
    assert not wrong, f"{len(wrong)} of {len(seeds)} schedules: {wrong}"
    assert ONE_SEED is not None or fates.total() >= SOAK_RECORDS
    over = f"of {fates.total():,} records over {len(seeds)} schedules ({told})"
    reached(1, f"0 lost {over}")
    reached(5, f"0 duplicates and 0 of {fates[Fate.NOT_WRITTEN]:,} `not_written` stored, {over}")
