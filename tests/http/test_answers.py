"""The table in tests/conformance at the level of answers: one for each request that was read, and no more."""

from __future__ import annotations

import pytest

from tests.conformance.answering import check_answers
from tests.conformance.case import CANARY, Case
from tests.conformance.cases import CASES, CUT_SHORT
from tests.conformance.reading import MakeProtocol


def named(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.parametrize("case", named(CASES))
async def test_each_request_has_its_answer_and_nobody_else_has_one(
    make_protocol: MakeProtocol, case: Case, autojump_clock: object
) -> None:
    await check_answers(make_protocol, case.raw + CANARY, case.expected, case.refused)


@pytest.mark.parametrize("case", named(CUT_SHORT))
async def test_what_ends_in_a_message_is_answered_once(
    make_protocol: MakeProtocol, case: Case, autojump_clock: object
) -> None:
    await check_answers(make_protocol, case.raw, list(case.requests), case.refused)
