"""What of librdkafka's statistics is shown (STATISTICS.md in its sources)."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class Window(Struct, frozen=True):
    """Values of the last interval, in microseconds."""

    cnt: int = 0
    """How many there were."""
    p50: int = 0
    p99: int = 0


class BrokerStatistics(Struct, frozen=True):
    """One connection of librdkafka's."""

    nodeid: int
    """-1 for an address that was configured and has not told yet which broker it is."""
    nodename: str
    """`host:port`."""
    state: str
    source: str
    """`learned`, `configured`, or `logical`, which is no broker of its own."""
    rtt: Window = Window()


class Statistics(Struct, frozen=True):
    """A look at librdkafka's queues and connections."""

    msg_cnt: int
    msg_max: int
    msg_size: int
    msg_size_max: int
    brokers: dict[str, BrokerStatistics] = {}


read_statistics = msgspec.json.Decoder(Statistics).decode
"""Makes `Statistics` of what librdkafka writes."""
