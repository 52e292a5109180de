"""librdkafka's mock cluster as a process: prints its address, and runs until SIGTERM.

python -m bench.mock_broker TOPIC PARTITIONS
"""

from __future__ import annotations

import signal
import sys

from tests.mock_kafka import open_mock_kafka


def main() -> None:
    """Serve until SIGTERM."""
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads, which would take them
    topic, partitions = sys.argv[1:]
    with open_mock_kafka() as kafka:
        kafka.create(topic, int(partitions))
        print(kafka.address, flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
