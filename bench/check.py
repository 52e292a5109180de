"""What a system has to show before it is measured: every 2xx is in the topic, at the offset it named."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Mapping, Sequence

import trio

from bench.brokers import Place, Target, read
from bench.cases import RECORD, Case
from bench.load import LINE_TYPE, record
from bench.systems import Server, request_target
from tests.client import Answer, Client, request

RECORDS = 2_000
CONNECTIONS = 16
SECONDS = 60.0

Answered = tuple[list[bytes], Answer]
"""The values of one request, and its answer."""


class CheckFailed(Exception):
    """A system that does not keep its promise; its figures would say nothing."""


def check(server: Server, case: Case, target: Target) -> int:
    """Send distinct values, and look for each one in the topic; how many there were.

    Raises `CheckFailed` as `hold` does, and where answers do not come.
    """
    try:
        answers = trio.run(_send, server.port, case, target.topic)
    except (trio.TooSlowError, ExceptionGroup) as error:
        raise CheckFailed(f"answers did not come: {error!r}") from error
    hold(case, target.topic, answers, read(target, RECORDS))
    return sum(len(values) for values, _ in answers)


def hold(case: Case, topic: str, answers: Sequence[Answered], found: Mapping[Place, bytes]) -> None:
    """Hold the answers against what the topic has.

    Raises `CheckFailed` where an answer is not the promise's, a value is not there exactly once, or not
    at the partition and offset that its answer named.
    """
    wrong = collections.Counter(answer.status for _, answer in answers if answer.status != _status(case))
    if wrong:
        raise CheckFailed(f"answers that are not {_status(case)}: {dict(wrong)}")
    times = collections.Counter(found.values())
    for values, answer in answers:
        for value in values:
            if times[value] != 1:
                raise CheckFailed(f"{value[:20]!r} is in the topic {times[value]} times")
        if case.content != RECORD:
            if answer.json != {"accepted": len(values), "failed": 0}:
                raise CheckFailed(f"{len(values)} lines were answered with {answer.json}")
        elif case.promise == "delivered":
            named = (answer.json["partition"], answer.json["offset"])
            if found.get(named) != values[0] or answer.json["topic"] != topic:
                raise CheckFailed(f"{values[0][:20]!r} is not at {named}, as its answer has it")


def _status(case: Case) -> int:
    return 202 if case.promise == "queued" else 200


async def _send(port: int, case: Case, topic: str) -> list[Answered]:
    """Requests over some connections at once; what each one had, and its answer."""
    fields = [] if case.content == RECORD else [f"Content-Type: {LINE_TYPE}"]
    numbers = iter(range(RECORDS))
    answers: list[Answered] = []

    async def converse() -> None:
        client = Client(await trio.open_tcp_stream("127.0.0.1", port))
        while values := [record(n, case.size_bytes) for n in itertools.islice(numbers, case.lines)]:
            content = values[0] if case.content == RECORD else b"\n".join(values)
            line = f"POST {request_target(case, topic)}"
            answers.append((values, await client.ask(request(line, *fields, content=content))))
        await client.close()

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(converse)
    return answers


def checked_as(case: Case) -> tuple[str, str, str]:
    """Cases with the same of these are one check: broker, promise, and what a request is."""
    return case.broker, case.promise, case.content
