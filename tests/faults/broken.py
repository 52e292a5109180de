"""`ingest` with a promise broken on purpose, to show that the kit finds it: `broken.py HOW serve …`.

Everything else is the real program: its command line, its HTTP, its librdkafka.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import trio
from confluent_kafka import KafkaError

from ingest import cli
from ingest.delivery import Delivery
from ingest.errors import IngestError, Overloaded
from ingest.kafka import client, reports
from ingest.kafka.client import KafkaClient
from ingest.parking import own_task
from ingest.records import DeliveryReport, Receipt
from tests.mock_kafka import code


def answer_early() -> None:
    """Answer once librdkafka has the record, without its report."""

    def answers(delivery: Delivery) -> list[DeliveryReport]:
        # An offset that no record has would be found; this one is only found by what is missing.
        return [Receipt(record.topic, 0, 0, None) for record in delivery.records]

    async def wait(delivery: Delivery) -> list[DeliveryReport]:
        await own_task()
        await trio.lowlevel.checkpoint()
        return delivery.answers()

    set_on(Delivery, "answers", answers)
    set_on(Delivery, "wait", wait)
    set_on(Delivery, "then", lambda _, __: False)  # what the short way asks: it is there already


def drop_when_full() -> None:
    """Call what librdkafka's full queue did not take delivered."""
    hand_over = KafkaClient.hand_over

    def drop(
        self: KafkaClient, batch: list[Delivery], places: list[tuple[Delivery, int, Any]], most: int
    ) -> bool:
        hand_over(self, batch, places, most)
        for delivery in batch:
            left = range(delivery.handed, len(delivery.records))
            places += [
                (delivery, index, Receipt(delivery.records[index].topic, 0, 0, None)) for index in left
            ]
            delivery.handed = len(delivery.records)
        return True

    set_on(KafkaClient, "hand_over", drop)


def deny_timeouts() -> None:
    """Call a record that timed out not written."""
    known = reports.delivery_error

    def denied(error: KafkaError) -> IngestError:
        return Overloaded("timed out") if error.code() == code("_MSG_TIMED_OUT") else known(error)

    set_on(client, "delivery_error", denied)


def set_on(owner: object, name: str, value: object) -> None:
    assert hasattr(owner, name)
    setattr(owner, name, value)


WAYS: dict[str, Callable[[], None]] = {
    "answers-early": answer_early,
    "drops-when-full": drop_when_full,
    "denies-timeouts": deny_timeouts,
    "is-whole": lambda: None,
}


if __name__ == "__main__":
    WAYS[sys.argv.pop(1)]()
    cli.main()
