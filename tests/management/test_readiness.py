"""When a service is ready, on a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.management.readiness import (
    FULL_SECONDS,
    FULL_SHARE,
    LOOK_SECONDS,
    ROOM_SHARE,
    STEADY_SECONDS,
    TROUBLE_SECONDS,
    Readiness,
)

DOWN = "Kafka is down"


class Watched:
    """A readiness that is looked at again and again."""

    def __init__(self) -> None:
        self.readiness = Readiness()
        self.now = 0.0
        self.turns: list[tuple[float, bool]] = []

    def look(self, seconds: float, trouble: str | None = None, held_share: float = 0.0) -> bool:
        """Find the same for so long; whether it is ready then."""
        for _ in range(round(seconds / LOOK_SECONDS)):
            before = self.readiness.ready
            self.readiness.look(self.now, trouble=trouble, held_share=held_share)
            if self.readiness.ready is not before:
                self.turns.append((self.now, self.readiness.ready))
            self.now += LOOK_SECONDS
        return self.readiness.ready


def test_it_is_not_ready_before_it_was_looked_at_and_ready_at_the_first_good_look() -> None:
    watched = Watched()
    assert watched.readiness.reasons == ("starting",)
    assert not watched.look(5, DOWN)
    assert watched.readiness.reasons == (DOWN,)
    assert watched.look(LOOK_SECONDS)


def test_a_trouble_that_lasts_makes_it_unready_and_its_absence_ready_again() -> None:
    watched = Watched()
    assert watched.look(1)
    gone = watched.now
    assert not watched.look(TROUBLE_SECONDS + LOOK_SECONDS, DOWN)
    assert watched.readiness.reasons == (DOWN,)
    back = watched.now
    assert watched.look(5)
    (_, (lost, _), (again, _)) = watched.turns
    assert lost - gone == TROUBLE_SECONDS
    assert again - back == STEADY_SECONDS


def test_one_bad_look_is_not_a_trouble() -> None:
    watched = Watched()
    watched.look(1)
    for _ in range(10):
        assert watched.look(LOOK_SECONDS, DOWN)
        assert watched.look(LOOK_SECONDS)


def test_one_good_look_does_not_end_a_trouble() -> None:
    watched = Watched()
    watched.look(1)
    watched.look(2, DOWN)
    for _ in range(10):
        assert not watched.look(STEADY_SECONDS, None)
        assert not watched.look(LOOK_SECONDS, DOWN)


def test_a_full_budget_makes_it_unready_until_there_is_real_room() -> None:
    watched = Watched()
    watched.look(1)
    assert watched.look(FULL_SECONDS, held_share=FULL_SHARE)
    assert not watched.look(TROUBLE_SECONDS + LOOK_SECONDS, held_share=1.0)
    assert watched.readiness.reasons == ("100% of limits.held_bytes is held",)
    assert not watched.look(60, held_share=ROOM_SHARE + 0.01)
    assert watched.look(5, held_share=ROOM_SHARE)


def test_a_budget_that_is_full_for_a_moment_is_no_trouble() -> None:
    watched = Watched()
    watched.look(1)
    for _ in range(10):
        assert watched.look(FULL_SECONDS, held_share=1.0)
        assert watched.look(LOOK_SECONDS, held_share=FULL_SHARE - 0.01)


@given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from([None, DOWN]), st.floats(0, 1))))
def test_it_never_flaps_whatever_is_found(found: list[tuple[int, str | None, float]]) -> None:
    watched = Watched()
    watched.look(LOOK_SECONDS)
    for looks, trouble, share in found:
        watched.look(looks * LOOK_SECONDS, trouble, share)
    for (before, was), (after, is_) in zip(watched.turns, watched.turns[1:], strict=False):
        assert was is not is_
        assert after - before >= (TROUBLE_SECONDS if was else STEADY_SECONDS)
    assert watched.look(5)
