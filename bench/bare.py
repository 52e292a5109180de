"""The bare loops: what confluent-kafka does in one thread, without HTTP, as the measure of what is possible.

`produce` hands records over without a pause, with a callback for each, and counts the reports.  `poll`
produces one record and polls until its report is there, again and again: the best that one connection
could have.

python -m bench.bare produce|poll --brokers … --topic … --linger-ms 1 --batch-bytes 1000000 --size-bytes 200
    --seconds 5
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from bench.load import record

RECORDS_A_POLL = 1000


class Reports:
    """Counts reports; a record that was not written ends the program."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        """One report."""
        assert error is None, error
        self.count += 1


def produce(producer: Producer, topic: str, value: bytes, seconds: float) -> dict[str, float]:
    """As many as there can be; what counts is the time until the last report."""
    reports = Reports()
    begun = time.perf_counter()
    while time.perf_counter() < begun + seconds:
        for _ in range(RECORDS_A_POLL):
            while True:
                try:
                    producer.produce(topic, value, on_delivery=reports)
                except BufferError:
                    producer.poll(0.01)
                else:
                    break
        producer.poll(0)
    assert producer.flush(30) == 0, "records are left without a report"
    return {"requests": reports.count, "seconds": time.perf_counter() - begun}


def poll(producer: Producer, topic: str, value: bytes, seconds: float) -> dict[str, float]:
    """One at a time."""
    reports = Reports()
    times: list[float] = []
    begun = time.perf_counter()
    while (before := time.perf_counter()) < begun + seconds:
        producer.produce(topic, value, on_delivery=reports)
        while reports.count == len(times):
            producer.poll(1)
        times.append(time.perf_counter() - before)
    took = time.perf_counter() - begun
    times.sort()
    percentiles = {
        name: times[min(len(times) - 1, int(len(times) * share))] * 1e6
        for name, share in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999))
    }
    return {"requests": len(times), "seconds": took, **percentiles}


def main() -> None:
    """Run one loop, and print what it counted as a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=("produce", "poll"))
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--linger-ms", type=int, required=True)
    parser.add_argument("--batch-bytes", type=int, required=True)
    parser.add_argument("--size-bytes", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    settings: dict[str, Any] = {
        "bootstrap.servers": arguments.brokers,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": arguments.linger_ms,
        "batch.size": arguments.batch_bytes,
    }
    producer = Producer(settings)
    value = record(0, arguments.size_bytes)
    loop = produce if arguments.loop == "produce" else poll
    loop(producer, arguments.topic, value, 1)  # connected, and with its producer id
    before = resource.getrusage(resource.RUSAGE_SELF)
    counted = loop(producer, arguments.topic, value, arguments.seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    counted["user_seconds"] = after.ru_utime - before.ru_utime
    counted["system_seconds"] = after.ru_stime - before.ru_stime
    counted["resident_bytes"] = after.ru_maxrss * 1024
    print(json.dumps(counted))


if __name__ == "__main__":
    main()
