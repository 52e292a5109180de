"""What every peer takes on its command line, and the settings of the Kafka clients made of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ANSWER_SECONDS = 10.0
"""How long a request may wait for its report, or for room in a full queue."""


@dataclass(frozen=True)
class Settings:
    """One peer's arguments; `promise` is "delivered" or "queued"."""

    port: int
    brokers: str
    topic: str
    promise: str
    linger_ms: int
    batch_bytes: int
    http: str

    @property
    def librdkafka(self) -> dict[str, Any]:
        """For confluent-kafka: what `ingest` sets, so that both ask the same of Kafka."""
        return {
            "bootstrap.servers": self.brokers,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "message.timeout.ms": 8000,
            "linger.ms": self.linger_ms,
            "batch.size": self.batch_bytes,
        }

    @property
    def aiokafka(self) -> dict[str, Any]:
        """The same for aiokafka, in its own names."""
        return {
            "bootstrap_servers": self.brokers,
            "acks": "all",
            "enable_idempotence": True,
            "request_timeout_ms": 8000,
            "linger_ms": self.linger_ms,
            "max_batch_size": self.batch_bytes,
        }


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """The command line as `Settings`; a wrong one ends the program with exit code 2."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--promise", choices=("delivered", "queued"), required=True)
    parser.add_argument("--linger-ms", type=int, required=True)
    parser.add_argument("--batch-bytes", type=int, default=1_000_000)
    parser.add_argument("--http", choices=("h11", "httptools"), default="httptools")
    return Settings(**vars(parser.parse_args(arguments)))
