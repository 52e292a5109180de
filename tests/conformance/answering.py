"""A raw stream at the level of answers: a whole connection reads it, and its answers are counted.

A request that is smuggled shows as an answer too many or as a record that nobody wrote; one that is
swallowed as an answer too few.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import trio
import trio.testing

from ingest.config import Config
from ingest.route import Route
from ingest.testing import MemoryProducer
from tests.client import Answer, Client
from tests.conformance.case import Read
from tests.conformance.reading import MakeProtocol, bytewise
from tests.exchange import open_exchanges

CONFIG = Config(routes=[Route("/t", topic="t")])

Send = Callable[[Client, bytes], Awaitable[None]]


async def send_whole(client: Client, raw: bytes) -> None:
    """All at once."""
    await client.send(raw)


async def send_bytewise(client: Client, raw: bytes) -> None:
    """One byte at a time."""
    for piece in bytewise(raw):
        await client.send(piece)


def is_written(read: Read) -> bool:
    return read.method == "POST" and read.target == b"/t"


async def final_answer(client: Client, read: Read) -> Answer:
    while (answer := await client.answer(to_head=read.method == "HEAD")).status == 100:
        pass
    return answer


async def check_answers(
    make_protocol: MakeProtocol, raw: bytes, reads: list[Read], refused: int | None, send: Send = send_whole
) -> None:
    """Send `raw` over memory streams, and find an answer for each of `reads`, the refusal, and no more."""
    producer = MemoryProducer()
    async with open_exchanges(producer, CONFIG) as exchanges:
        ours, theirs = trio.testing.memory_stream_pair()
        client = exchanges.connect(pair=lambda: (ours, theirs), make_protocol=make_protocol)
        with contextlib.suppress(trio.BrokenResourceError):  # refused, and closed, before all was sent
            await send(client, raw)
        await ours.send_eof()
        for read in reads:
            answer = await final_answer(client, read)
            # The root can be looked up, and says with which methods.
            others = (200, 204, 400, 404, 405)
            assert answer.status == 200 if is_written(read) else answer.status in others, read
            if answer.closes and not is_written(read):
                # Answered before its content was read: of unknown length, or held back until 100 (Continue).
                assert b"chunked" in raw or b"100-continue" in raw or read is reads[-1]
                reads = reads[: reads.index(read) + 1]
                break
        if refused is not None:
            answer = await final_answer(client, Read("", b"", b""))
            assert (answer.status, answer.closes) == (refused, True)
            assert answer.json["outcome"] == "not_written"
        assert await client.rest() == b"", "an answer too many"
    assert [record.value for record in producer.records] == [
        read.content for read in reads if is_written(read)
    ]
