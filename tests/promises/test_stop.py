"""Row 2: a stop answers every request that was sent, within the grace."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.broker.kafka_server import RealKafka
from tests.faults.load import Kind, Load
from tests.faults.stops import CONNECTING, IDLE, STATES, State, stop_under_load

BUSY = Load(connections=20, kinds=(Kind.SINGLE,), pause_seconds=0)
GRACE_SECONDS = 4.0
STOPS = 5


@pytest.mark.parametrize("state", STATES)
async def test_every_request_is_answered_at_a_sigterm_and_the_process_ends_within_its_grace(
    kafka: RealKafka, new_topic: Callable[..., str], reached: Callable[[int, str], None], state: State
) -> None:
    requests = crossed = 0
    seconds = []
    for seed in range(STOPS):
        stop = await stop_under_load(BUSY, kafka, new_topic(), state, grace_seconds=GRACE_SECONDS, seed=seed)
        stop.check()
        requests += len(stop.journal.requests)
        crossed += stop.journal.crossed
        seconds.append(stop.seconds)
    assert max(seconds) <= GRACE_SECONDS + 1
    reached(
        2,
        f"broker {state}: 0 of {requests:,} requests sent and never answered ({crossed} more met the close "
        f"on their way), over {STOPS} SIGTERMs under "
        f"{BUSY.connections} busy keep-alive connections, {IDLE} idle ones that send once more, and "
        f"{CONNECTING} clients that connect anew each time; exit after {max(seconds):.1f} s at most, "
        f"of {GRACE_SECONDS:g} s grace",
    )
