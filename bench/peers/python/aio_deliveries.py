"""What the two peers with aiokafka share: a producer for the application's life, and one record's answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from bench.peers.python.answers import FAILED, FULL, QUEUED, receipt
from bench.peers.python.settings import Settings


class AioDeliveries:
    """Made by `open_aio_deliveries`."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic
        self._queued = settings.promise == "queued"
        self.producer = AIOKafkaProducer(**settings.aiokafka)

    async def answer(self, value: bytes) -> tuple[int, bytes]:
        """Status and content; waits for room, and where that is the promise for the report."""
        try:
            if self._queued:
                report: asyncio.Future[Any] = await self.producer.send(self._topic, value)
                report.add_done_callback(_look)
                return 202, QUEUED
            metadata = await self.producer.send_and_wait(self._topic, value)
        except KafkaTimeoutError:
            return 503, FULL
        except KafkaError:
            return 504, FAILED
        return 200, receipt(self._topic, metadata.partition, metadata.offset)


def _look(report: asyncio.Future[Any]) -> None:
    if not report.cancelled():
        report.exception()  # else asyncio complains that nobody did


@contextlib.asynccontextmanager
async def open_aio_deliveries(settings: Settings) -> AsyncIterator[AioDeliveries]:
    """A producer that is connected; at the end everything in its queue is delivered."""
    deliveries = AioDeliveries(settings)
    await deliveries.producer.start()
    try:
        yield deliveries
    finally:
        await deliveries.producer.stop()
