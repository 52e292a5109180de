"""Every byte at every kind of position is read, or refused, as the grammar says."""

from __future__ import annotations

import pytest

from tests.conformance.case import CANARY, Case
from tests.conformance.positions import POSITIONS, Position, other_lengths
from tests.conformance.reading import MakeProtocol, bytewise, feed


def check(make_protocol: MakeProtocol, case: Case) -> None:
    """Whole, and cut around the byte in question: the canary stands behind it either way."""
    for pieces in ([case.raw + CANARY], bytewise(case.raw + CANARY)):
        outcome = feed(make_protocol(), pieces)
        assert (outcome.requests, outcome.refused) == (case.expected, case.refused), case


@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: position.name)
def test_every_byte_at_a_position_is_read_as_the_grammar_says(
    make_protocol: MakeProtocol, position: Position
) -> None:
    for case in position.cases():
        check(make_protocol, case)


def test_every_digit_makes_its_length(make_protocol: MakeProtocol) -> None:
    for case in other_lengths():
        check(make_protocol, case)
