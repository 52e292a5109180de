from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from ingest.budget import Budget, Hold
from ingest.errors import Overloaded, TooLarge


async def test_what_is_held_is_given_back_once() -> None:
    budget = Budget(100)
    hold = await budget.acquire(60)
    assert budget.held_bytes == 60
    hold.release()
    hold.release()
    assert budget.held_bytes == 0


async def test_a_full_budget_refuses_at_once() -> None:
    budget = Budget(100)
    await budget.acquire(60)
    with (
        trio.testing.assert_no_checkpoints(),
        pytest.raises(Overloaded, match=r"60 of limits.held_bytes = 100"),
    ):
        await budget.acquire(41)
    await budget.acquire(40)
    assert budget.held_bytes == 100


@pytest.mark.parametrize("wait_seconds", [0, 5, math.inf])
async def test_what_never_fits_is_too_large_and_not_worth_a_retry(wait_seconds: float) -> None:
    budget = Budget(100)
    with pytest.raises(TooLarge, match=r"101 bytes at once are more than limits.held_bytes = 100") as caught:
        await budget.acquire(101, wait_seconds)
    assert not caught.value.retriable
    assert budget.held_bytes == 0


async def test_a_waiter_gets_its_room_as_soon_as_it_is_there(autojump_clock: trio.testing.MockClock) -> None:
    budget = Budget(100)
    first = await budget.acquire(60)
    async with trio.open_nursery() as nursery:

        async def give_later() -> None:
            await trio.sleep(3)
            first.release()

        nursery.start_soon(give_later)
        await budget.acquire(50, 5)
    assert trio.current_time() == pytest.approx(3, abs=0.01)
    assert budget.held_bytes == 50


async def test_waiting_ends_with_a_refusal(autojump_clock: trio.testing.MockClock) -> None:
    budget = Budget(100)
    first = await budget.acquire(60, peer="a")
    with pytest.raises(Overloaded):
        await budget.acquire(50, 5)
    assert trio.current_time() == pytest.approx(5, abs=0.01)
    first.release()
    await budget.acquire(100)  # nothing of the refused one is left


async def test_room_goes_to_those_who_wait_in_the_order_they_came(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = Budget(100)
    first = await budget.acquire(100)
    order: list[str] = []

    async def take(name: str, size: int) -> None:
        await budget.acquire(size, 60)
        order.append(name)

    async with trio.open_nursery() as nursery:
        for name, size in (("large", 90), ("small", 10), ("later", 10)):
            nursery.start_soon(take, name, size)
            await trio.testing.wait_all_tasks_blocked()
        first.shrink(85)
        await trio.testing.wait_all_tasks_blocked()
        assert order == []  # the small ones do not pass the large one
        with pytest.raises(Overloaded):
            await budget.acquire(1)  # nor does one that does not wait
        with pytest.raises(Overloaded):
            first.grow(1)  # nor one that grows
        first.release()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(order) == ["large", "small"]
        nursery.cancel_scope.cancel()
    assert budget.held_bytes == 100


async def test_a_cancelled_waiter_takes_nothing_and_lets_the_next_one_pass() -> None:
    budget = Budget(100)
    await budget.acquire(60)
    large = trio.CancelScope()
    small_is_in = trio.Event()

    async def take_large() -> None:
        with large:
            await budget.acquire(90, math.inf, peer="a")

    async def take_small() -> None:
        await budget.acquire(20, math.inf, peer="b")
        small_is_in.set()

    async with trio.open_nursery() as nursery:
        for take in (take_large, take_small):
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
        assert not small_is_in.is_set()
        large.cancel()
        with trio.fail_after(1):
            await small_is_in.wait()
    assert large.cancelled_caught
    assert budget.held_bytes == 80


async def test_growing_is_now_or_never() -> None:
    budget = Budget(100)
    hold = await budget.acquire(60)
    hold.grow(40)
    with pytest.raises(Overloaded):
        hold.grow(1)
    assert (hold.size, budget.held_bytes) == (100, 100)
    hold.shrink(30)
    hold.shrink(50)  # never grows
    assert (hold.size, budget.held_bytes) == (30, 30)


async def test_one_peer_holds_at_most_a_quarter_in_unfinished_content() -> None:
    budget = Budget(100)
    hold = await budget.acquire(20, peer="a")
    with pytest.raises(Overloaded, match="unfinished requests of this client"):
        await budget.acquire(6, peer="a")
    second = await budget.acquire(5, peer="a")
    with pytest.raises(Overloaded):
        hold.grow(1)
    await budget.acquire(25, peer="b")
    hold.finish()
    second.finish()
    await budget.acquire(25, peer="a")
    assert budget.held_bytes == 75


async def test_a_single_request_above_a_peers_quarter_is_let_in() -> None:
    budget = Budget(100)
    hold = await budget.acquire(80, peer="a")
    with pytest.raises(Overloaded):
        await budget.acquire(1, peer="a")
    hold.release()
    assert budget.held_bytes == 0


async def test_the_windows_of_streams_leave_half_to_what_they_have_read() -> None:
    budget = Budget(100)
    window = await budget.acquire(50, peer="a", window=True)
    with pytest.raises(Overloaded, match="open streams"):
        await budget.acquire(1, peer="b", window=True)
    with pytest.raises(Overloaded, match="open streams"):
        window.grow(1)
    await budget.acquire(50)
    window.finish()
    window.release()
    await budget.acquire(50, peer="b", window=True)


async def test_nothing_can_be_held_too() -> None:
    budget = Budget(100)
    first, second = await budget.acquire(0, peer="a"), await budget.acquire(10, peer="a")
    second.shrink(0)
    for hold in (first, second):
        hold.finish()
        hold.release()
    assert budget.held_bytes == 0


def now(budget: Budget, size: int, peer: str | None, window: bool) -> Hold | None:
    """What `acquire` gives without waiting; it needs no event loop for that."""
    taking = budget.acquire(size, peer=peer, window=window)
    try:
        taking.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    except (Overloaded, TooLarge):
        return None
    raise AssertionError("acquire waited")


class Holds(RuleBasedStateMachine):
    """Whatever is done to holds, the budget is the sum of their sizes and within its limit."""

    holds = Bundle("holds")
    LIMIT = 1000

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(self.LIMIT)
        self.open: list[Hold] = []

    @rule(
        target=holds,
        size=st.integers(0, 1100),
        peer=st.sampled_from([None, "a", "b"]),
        window=st.booleans(),
    )
    def acquire(self, size: int, peer: str | None, window: bool) -> Hold | None:
        hold = now(self.budget, size, peer, window)
        if hold is not None:
            self.open.append(hold)
        return hold

    @rule(hold=holds, size=st.integers(0, 300))
    def grow(self, hold: Hold | None, size: int) -> None:
        if hold in self.open:
            before = hold.size
            try:
                hold.grow(size)
            except Overloaded:
                assert hold.size == before

    @rule(hold=holds, size=st.integers(0, 1000))
    def shrink(self, hold: Hold | None, size: int) -> None:
        if hold in self.open:
            hold.shrink(size)

    @rule(hold=holds)
    def finish(self, hold: Hold | None) -> None:
        if hold in self.open:
            hold.finish()

    @rule(hold=consumes(holds))
    def release(self, hold: Hold | None) -> None:
        if hold in self.open:
            self.open.remove(hold)
            hold.release()
            hold.release()

    @invariant()
    def held_is_the_sum(self) -> None:
        assert self.budget.held_bytes == sum(hold.size for hold in self.open) <= self.LIMIT

    def teardown(self) -> None:
        for hold in self.open:
            hold.finish()
            hold.release()
        assert self.budget.held_bytes == 0
        # No share of a peer or of the windows is left behind.
        assert now(self.budget, self.LIMIT // 2, "a", True) is not None
        assert now(self.budget, self.LIMIT // 2, "b", False) is not None


TestHolds = Holds.TestCase


async def test_the_only_request_of_a_peer_may_grow_beyond_the_quarter() -> None:
    budget = Budget(1000)
    hold = await budget.acquire(100, peer="a")
    hold.grow(500)
    with pytest.raises(Overloaded, match="quarter"):
        await budget.acquire(1, peer="a")
    hold.finish()
    other = await budget.acquire(100, peer="a")
    await budget.acquire(100, peer="a")
    with pytest.raises(Overloaded, match="quarter"):
        other.grow(100)
