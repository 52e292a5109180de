"""What a process among several and the one that started it say to each other.

They have a socket between them, and write lines: down go `Begin` and the words STOP and ABANDON, up goes
`Seen`.  A process that reads the end drains: whoever started it is gone.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from types import MappingProxyType
from typing import Any

import msgspec
import trio
from msgspec import Struct

from ingest.config import Config
from ingest.management.sums import Family

STOP, ABANDON = b"stop\n", b"abandon\n"


class Begin(Struct, frozen=True):
    """The first line to a process."""

    number: int
    config: dict[str, Any]
    broker: str | None
    """The broker inside the one that starts it."""
    descriptors: list[int]
    """Of the listening sockets."""


class Seen(Struct, frozen=True):
    """What a process says each second, and at last when it has drained."""

    accepted: int
    delivered: int
    failed: int
    unknown: int
    reasons: list[str]
    """Why it is not ready."""
    families: list[Family]
    ended_well: bool | None = None
    """None before the end."""
    left_unknown: int = 0


def begin_line(number: int, config: Config, broker: str | None, sockets: list[socket.socket]) -> bytes:
    """`Begin`, for one of several."""
    values = {name: getattr(config, name) for name in config.__struct_fields__}
    builtins = msgspec.to_builtins(values, enc_hook=_plain)
    begin = Begin(number, builtins, broker, [each.fileno() for each in sockets])
    return msgspec.json.encode(begin) + b"\n"


def _plain(value: object) -> object:
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise NotImplementedError(type(value))


async def read_lines(stream: trio.SocketStream) -> AsyncIterator[bytes]:
    """The lines that come, without their ends, until there are no more."""
    buffer = bytearray()
    async for data in stream:
        buffer += data
        *lines, rest = buffer.split(b"\n")
        buffer = bytearray(rest)
        for line in lines:
            yield bytes(line)
