"""Row 9: one strict reading of RFC 9112, however the stream is cut and whichever engine reads it."""

from __future__ import annotations

from collections.abc import Callable

from ingest.http.engines import ENGINES
from tests.conformance.answering import check_answers, send_bytewise, send_whole
from tests.conformance.case import CANARY
from tests.conformance.cases import AT_ONCE, CASES, CUT_SHORT
from tests.conformance.mutants import load, mechanical_mutants, mutated, noticed
from tests.conformance.positions import POSITIONS, other_lengths
from tests.conformance.reading import bytewise, feed
from tests.conformance.rules import FRAMING, HEADS, RULES, UNSEEN

Reached = Callable[[int, str], None]

SPLIT_EVERYWHERE_BELOW = 600
BYTEWISE_ANSWERS_BELOW = 600


def test_every_case_is_read_alike_however_it_is_cut(reached: Reached) -> None:
    tables = [(CASES, CANARY, []), (AT_ONCE, b"", []), (CUT_SHORT, b"", [b""])]
    made = [case for position in POSITIONS for case in position.cases()] + list(other_lengths())
    readings = 0
    for engine in ENGINES.values():
        for cases, behind, end in [*tables, (made, CANARY, [])]:
            for case in cases:
                raw = case.raw + behind
                places = range(1, len(raw)) if len(raw) < SPLIT_EVERYWHERE_BELOW and cases is not made else ()
                expected = case.expected if behind else list(case.requests)
                cuts = [[raw] if raw else [], bytewise(raw)]
                for pieces in [*cuts, *([raw[:place], raw[place:]] for place in places)]:
                    outcome = feed(engine(), [*pieces, *end])
                    assert (outcome.requests, outcome.refused) == (expected, case.refused), (case, pieces)
                    readings += 1
    written = len(CASES) + len(AT_ONCE) + len(CUT_SHORT)
    assert written >= 700
    reached(
        9,
        f"{written} cases by hand and {len(made):,} by position, on {len(ENGINES)} engines and split at "
        f"every byte: {readings:,} readings, 0 wrong",
    )


async def test_every_request_has_its_answer_and_nobody_else_has_one(
    reached: Reached, autojump_clock: object
) -> None:
    connections = 0
    for engine in ENGINES.values():
        for case in CASES:
            sends = [send_whole]
            if len(case.raw) < BYTEWISE_ANSWERS_BELOW:
                sends.append(send_bytewise)
            for send in sends:
                await check_answers(engine, case.raw + CANARY, case.expected, case.refused, send)
                connections += 1
    reached(
        9, f"0 answers too many or too few, 0 smuggled and 0 unforeseen 5xx on {connections:,} connections"
    )


def test_every_rule_that_is_taken_out_is_noticed(reached: Reached) -> None:
    unnoticed = {rule.name for rule in RULES if noticed(load(rule.module, mutated(rule))) is None}
    mechanical = [
        (module, name, text) for module in (HEADS, FRAMING) for name, text in mechanical_mutants(module)
    ]
    unnoticed |= {name for module, name, text in mechanical if noticed(load(module, text)) is None}
    assert unnoticed <= UNSEEN.keys()
    seen = len(RULES) + len(mechanical) - len(unnoticed)
    reached(
        9,
        f"{seen} changes to the rules, all noticed; {len(unnoticed)} more change no reading, each explained",
    )
