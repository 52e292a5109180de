"""Each rule of the strict reading is needed: taken out, some case of tests/conformance is read wrongly."""

from __future__ import annotations

import pytest

from tests.conformance.mutants import held_to, load, mechanical_mutants, mutated, noticed, source
from tests.conformance.rules import FRAMING, HEADS, RULES, UNSEEN, Mutant

MODULES = [HEADS, FRAMING]
MECHANICAL = [(module, *change) for module in MODULES for change in mechanical_mutants(module)]


def test_the_reading_as_it_is_passes_every_case() -> None:
    assert noticed(load(HEADS, source(HEADS))) is None


@pytest.mark.parametrize("mutant", RULES, ids=lambda mutant: mutant.name)
def test_a_rule_that_is_changed_is_noticed(mutant: Mutant) -> None:
    assert noticed(load(mutant.module, mutated(mutant))) is not None


@pytest.mark.parametrize(("module", "name", "text"), [pytest.param(*each, id=each[1]) for each in MECHANICAL])
def test_a_refusal_or_condition_that_is_left_out_is_noticed(module: str, name: str, text: str) -> None:
    assert (noticed(load(module, text)) is None) == (name in UNSEEN)


def test_what_is_said_to_go_unseen_is_there() -> None:
    names = {name for _, name, _ in MECHANICAL} | {name for module in MODULES for name, _ in held_to(module)}
    assert UNSEEN.keys() <= names


@pytest.mark.parametrize("module", MODULES)
def test_every_number_and_expression_is_changed_by_a_mutant(module: str) -> None:
    for name, text in held_to(module):
        assert name in UNSEEN or any(rule.old in text for rule in RULES if rule.module == module), name
