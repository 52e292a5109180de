"""Row 10: every wait of a connection has a deadline, and others are not held up meanwhile."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import NamedTuple

import pytest
import trio

from tests.broker.ingest_process import open_ingest
from tests.http.test_listeners import CERTIFICATE
from tests.mock_kafka import MockKafka
from tests.promises.crowd import open_crowd, read_to_end
from tests.promises.others import open_others

SLOW_ONES = 200
CLOSED_WITHIN_SECONDS = 12.0
OTHERS_WAIT_SECONDS = 0.25
GROWTH_BYTES = 20_000_000

Reached = Callable[[int, str], None]


class Slow(NamedTuple):
    """A kind of slow client: what it sends at once, and then each second."""

    opening: bytes
    drip: bytes
    status: bytes
    """Of the answer; b"" where none is possible."""


KINDS = {
    "slow heads": Slow(b"POST / HTTP/1.1\r\nHost: a\r\nX-A: ", b"a", b"408"),
    "slow heads, line by line": Slow(b"POST / HTTP/1.1\r\nHost: a\r\n", b"X: a\r\n", b"408"),
    "slow bodies": Slow(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n", b"a", b"408"),
    "slow chunks": Slow(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"408"
    ),
    "slow NDJSON": Slow(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"2\r\n1\n\r\n",
        b"408",
    ),
    "sockets that say nothing": Slow(b"", b"", b""),
    "TLS handshakes that stall": Slow(b"\x16\x03\x01\x02\x00\x01", b"", b""),
}


@pytest.mark.parametrize("kind", list(KINDS))
async def test_slow_clients_are_told_and_closed_and_others_do_not_notice(
    engine: str, cluster: MockKafka, kind: str, reached: Reached
) -> None:
    slow = KINDS[kind]
    environ, trusted = {}, None
    if "TLS" in kind:
        trusted = ssl.create_default_context(cafile=CERTIFICATE)
        environ = {f"INGEST_HTTP__TLS_{name}_FILE": str(CERTIFICATE) for name in ("CERTIFICATE", "KEY")}
    answers: list[bytes] = []
    slowest = 0.0
    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    async with open_ingest(*arguments, environ=environ) as server, open_others(server, trusted) as others:
        idle_bytes = server.resident_bytes()
        server.forget_most_resident()

        async def go_slowly(stream: trio.SocketStream) -> None:
            nonlocal slowest
            began = trio.current_time()
            await stream.send_all(slow.opening)
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    while slow.drip:
                        await trio.sleep(1)
                        try:
                            await stream.send_all(slow.drip)
                        except trio.BrokenResourceError:
                            return

                nursery.start_soon(drip)
                answers.append(await read_to_end(stream))
                slowest = max(slowest, trio.current_time() - began)
                nursery.cancel_scope.cancel()

        with trio.fail_after(4 * CLOSED_WITHIN_SECONDS):
            async with open_crowd(server, SLOW_ONES) as crowd, trio.open_nursery() as nursery:
                for stream in crowd:
                    nursery.start_soon(go_slowly, stream)
        grown = server.most_resident_bytes() - idle_bytes

    told = sum(answer[9:12] == slow.status for answer in answers)
    reached(
        10,
        f"{engine}: {SLOW_ONES} {kind}: all closed within {slowest:.1f} s"
        + (f", {told} answered {slow.status.decode()}" if slow.status else "")
        + f"; others waited at most {others.slowest_seconds * 1000:.0f} ms; "
        f"memory + {grown / 1e6:.1f} MB",
    )
    assert len(answers) == SLOW_ONES
    assert told == SLOW_ONES if slow.status else not any(answers)
    assert slowest <= CLOSED_WITHIN_SECONDS
    assert others.were_served, others.answers
    assert others.slowest_seconds <= OTHERS_WAIT_SECONDS
    assert grown <= GROWTH_BYTES
