"""Errors of every kind in seeded random sequences on the mock cluster: each request gets a right answer.

What is right is written down here by hand from the table of errors, not read from the code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

import pytest
import trio

from ingest.budget import Budget
from ingest.config import Config
from ingest.sections import Timeouts
from tests.client import Answer, Client, request
from tests.exchange import open_exchanges
from tests.mock_kafka import INIT_PRODUCER_ID, METADATA, PRODUCE, MockKafka, code, open_mock_kafka

ANSWER_SECONDS = 2.0
GIVEN_UP_SECONDS = ANSWER_SECONDS + 8
"""Far beyond the deadline: a request without an answer by then has none."""
RECOVERY_SECONDS = 15.0
BROKERS = 3
PARTITIONS = 3
CONNECTIONS = 6
STEPS = 8

Right = tuple[int, int | None, str | None]
"""Status, error_code, outcome."""

ALWAYS: set[Right] = {
    (200, None, None),
    (503, 50301, "not_written"),  # no room, draining, nothing known yet, withdrawn at the deadline
    (503, 50302, "not_written"),  # known to be down
    (504, 50003, "unknown"),
}
REFUSED: Right = (400, 40002, "not_written")
TOO_LARGE: Right = (413, 413, "not_written")
UNKNOWN_TOPIC: Right = (404, 40401, "not_written")

PRODUCE_ERRORS: dict[str, set[Right]] = {
    "_TRANSPORT": set(),
    "REQUEST_TIMED_OUT": set(),
    "NETWORK_EXCEPTION": set(),
    "LEADER_NOT_AVAILABLE": set(),
    "NOT_LEADER_FOR_PARTITION": set(),
    "NOT_ENOUGH_REPLICAS": set(),
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND": set(),
    "OUT_OF_ORDER_SEQUENCE_NUMBER": set(),
    "UNKNOWN_PRODUCER_ID": set(),
    "INVALID_PRODUCER_EPOCH": set(),
    "TOPIC_AUTHORIZATION_FAILED": set(),
    "CLUSTER_AUTHORIZATION_FAILED": set(),
    "INVALID_RECORD": {REFUSED},
    "INVALID_TIMESTAMP": {REFUSED},
    "POLICY_VIOLATION": {REFUSED},
    "MSG_SIZE_TOO_LARGE": {TOO_LARGE},
    "RECORD_LIST_TOO_LARGE": {TOO_LARGE},
    "UNKNOWN_TOPIC_OR_PART": {UNKNOWN_TOPIC},
    "TOPIC_EXCEPTION": {(400, 400, "not_written")},
}
TOPIC_ERRORS: dict[str, set[Right]] = {
    "UNKNOWN_TOPIC_OR_PART": {UNKNOWN_TOPIC},
    "LEADER_NOT_AVAILABLE": set(),
    "TOPIC_AUTHORIZATION_FAILED": {UNKNOWN_TOPIC},  # Kafka hides a topic that may not be described
}
SESSION_ERRORS = ("_TRANSPORT", "REQUEST_TIMED_OUT", "NETWORK_EXCEPTION")
"""For the requests beside produce: they only hold things up."""


class Trouble:
    """Breaks the cluster at random, and knows which answers that excuses."""

    def __init__(self, kafka: MockKafka, random: Random) -> None:
        self.right = set(ALWAYS)
        self.done: list[str] = []
        self._kafka = kafka
        self._random = random
        self._ways: list[Callable[[], str]] = [
            self._fail_produce,
            self._fail_produce,
            self._fail_others,
            self._slow,
            self._take_down,
            self._bring_up,
            self._move,
            self._break_topic,
        ]

    def make(self) -> None:
        """One more thing goes wrong, or less."""
        self.done.append(self._random.choice(self._ways)())

    def end(self) -> None:
        """Everything is well again."""
        for api_key in (PRODUCE, METADATA, INIT_PRODUCER_ID):
            self._kafka.stop_failing(api_key)
        self._kafka.set_topic_error("t", 0)
        self._kafka.set_latency(0)
        self._kafka.up()

    def _fail_produce(self) -> str:
        name = self._random.choice(list(PRODUCE_ERRORS))
        self.right |= PRODUCE_ERRORS[name]
        self._kafka.fail(PRODUCE, *[name] * self._random.randint(1, 5))
        return f"produce {name}"

    def _fail_others(self) -> str:
        name = self._random.choice(SESSION_ERRORS)
        self._kafka.fail(self._random.choice((METADATA, INIT_PRODUCER_ID)), name)
        return f"others {name}"

    def _slow(self) -> str:
        seconds = self._random.choice((0, 0.05, 0.4))
        self._kafka.set_latency(seconds)
        return f"latency {seconds}"

    def _take_down(self) -> str:
        broker = self._random.choice((1, 2, 3, -1))
        self._kafka.down(broker)
        return f"down {broker}"

    def _bring_up(self) -> str:
        self._kafka.up()
        return "up"

    def _move(self) -> str:
        partition, broker = self._random.randrange(PARTITIONS), self._random.randint(1, BROKERS)
        self._kafka.lead("t", partition, broker)
        return f"leader of {partition} is {broker}"

    def _break_topic(self) -> str:
        name = self._random.choice(list(TOPIC_ERRORS))
        self.right |= TOPIC_ERRORS[name]
        self._kafka.set_topic_error("t", code(name))
        return f"topic {name}"


def rights(answer: Answer) -> list[Right]:
    """What an answer says, of the whole and of each line."""
    if answer.status in (200, 207):
        lines = answer.json.get("results", [])
        return [
            (200, None, None),
            *((status_of(each), each["error_code"], each["outcome"]) for each in lines),
        ]
    body = answer.json
    whole = (answer.status, body["error_code"], body["outcome"])
    return [
        whole,
        *((status_of(each), each["error_code"], each["outcome"]) for each in body.get("results", [])),
    ]


def status_of(result: dict[str, int]) -> int:
    """The status that a line's error would have as a whole answer: its code begins with it, but for these."""
    return {50301: 503, 50302: 503, 50003: 504, 40002: 400, 40401: 404}.get(
        result["error_code"], result["error_code"]
    )


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(4, 60))]
)
async def test_every_request_gets_a_right_answer_whatever_the_cluster_does(seed: int) -> None:
    random = Random(seed)
    budget = Budget(64 << 20)
    config = Config(kafka={"message.timeout.ms": 700}, timeouts=Timeouts(answer_seconds=ANSWER_SECONDS))
    with open_mock_kafka(BROKERS) as kafka:
        kafka.create("t", PARTITIONS, BROKERS)
        trouble = Trouble(kafka, random)
        async with (
            kafka.open_producer(
                budget=budget, answer_seconds=ANSWER_SECONDS, message_timeout_ms=700
            ) as producer,
            open_exchanges(producer, config, budget=budget) as exchanges,
        ):
            statuses: list[int] = []
            over = trio.Event()

            async def send(client: Client) -> None:
                while not over.is_set():
                    with trio.fail_after(GIVEN_UP_SECONDS):
                        answer = await client.ask(some_request(random))
                    wrong = set(rights(answer)) - trouble.right
                    assert not wrong, f"seed {seed}: {wrong} after {trouble.done}"
                    statuses.append(answer.status)
                    await trio.sleep(0.01)

            async with trio.open_nursery() as nursery:
                for _ in range(CONNECTIONS):
                    nursery.start_soon(send, exchanges.connect())
                for _ in range(STEPS):
                    await trio.sleep(random.uniform(0.05, 0.3))
                    await trio.to_thread.run_sync(trouble.make)
                await trio.to_thread.run_sync(trouble.end)
                with trio.fail_after(RECOVERY_SECONDS):
                    while statuses[-3 * CONNECTIONS :] != [200] * 3 * CONNECTIONS:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                over.set()
            with trio.fail_after(RECOVERY_SECONDS):  # of those that were answered at their deadline, too
                while producer.ledger.pending:  # noqa: ASYNC110
                    await trio.sleep(0.05)
        assert not producer.ledger.pending


def some_request(random: Random) -> bytes:
    """One record, or NDJSON, now and then with a key."""
    key = random.choice(("", "?key=a", "?key=b"))
    if random.random() < 0.5:
        return request(f"POST /topics/t/records{key}", content=b"value")
    lines = b"\n".join(json.dumps({"n": number}).encode() for number in range(20))
    return request(f"POST /topics/t/records{key}", "Content-Type: application/x-ndjson", content=lines)
