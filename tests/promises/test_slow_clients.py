"""Row 10: every wait of a connection has a deadline, and others are not held up meanwhile."""

from __future__ import annotations

import ssl
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
import trio

from tests.broker.ingest_process import open_ingest
from tests.client import request
from tests.http.test_listeners import CERTIFICATE
from tests.mock_kafka import MockKafka
from tests.promises.crowd import has_failed, open_crowd, read_to_end, until
from tests.promises.others import open_others

UNREAD_BYTES = 4096
"""What the kernel takes of the answers of those that never read."""
CLOSED_WITHIN_SECONDS = 12.0
OTHERS_WAIT_SECONDS = 0.25
GROWTH_BYTES = 25_000_000
TLS_BYTES = 100_000
"""For each connection with TLS: most of it is OpenSSL's."""

Reached = Callable[[int, str], None]


class Slow(NamedTuple):
    """A kind of slow client: what it sends at once, and then each second."""

    opening: bytes
    drip: bytes = b""
    status: bytes = b"408"
    """Of the answer; b"" where none is possible."""
    reads: bool = True
    sockets: int = 200


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
KINDS = {
    "slow heads": Slow(POST + b"X-A: ", b"a"),
    "slow field lines": Slow(POST, b"X: a\r\n"),
    "half heads": Slow(POST),
    "slow bodies": Slow(POST + b"Content-Length: 300000\r\n\r\n", b"a"),
    "slow chunks": Slow(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "slow NDJSON": Slow(
        POST + b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\n1\n\r\n"
    ),
    "silent ones": Slow(b"", status=b""),
    "ones that never read": Slow(
        # Half a megabyte of answer: a result for each line.
        request("POST /?offsets=true", "Content-Type: application/x-ndjson", content=b"x\n" * 4000),
        status=b"",
        reads=False,
        sockets=20,
    ),
}
TLS_KINDS = {
    "stalled TLS handshakes": Slow(b"\x16\x03\x01\x02\x00\x01", status=b""),
    "silent ones before TLS": Slow(b"", status=b""),
}


@pytest.mark.parametrize("kinds", [KINDS, TLS_KINDS], ids=["plain", "TLS"])
async def test_slow_clients_are_told_and_closed_and_others_do_not_notice(
    engine: str, cluster: MockKafka, kinds: Mapping[str, Slow], reached: Reached
) -> None:
    environ, trusted = {}, None
    if kinds is TLS_KINDS:
        trusted = ssl.create_default_context(cafile=CERTIFICATE)
        environ = {f"INGEST_HTTP__TLS_{name}_FILE": str(CERTIFICATE) for name in ("CERTIFICATE", "KEY")}
    answers: dict[str, list[bytes]] = defaultdict(list)
    slowest = 0.0

    async def go_slowly(kind: str, stream: trio.SocketStream) -> None:
        nonlocal slowest
        slow, began = kinds[kind], trio.current_time()
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
            if slow.reads:
                answers[kind].append(await read_to_end(stream))
            else:
                await until(lambda: has_failed(stream), 2 * CLOSED_WITHIN_SECONDS)
                answers[kind].append(b"")
            slowest = max(slowest, trio.current_time() - began)
            nursery.cancel_scope.cancel()

    async def attack(kind: str, address: str) -> None:
        received = None if kinds[kind].reads else UNREAD_BYTES
        async with (
            open_crowd(server, kinds[kind].sockets, address, receive_bytes=received) as crowd,
            trio.open_nursery() as nursery,
        ):
            for stream in crowd:
                nursery.start_soon(go_slowly, kind, stream)

    arguments = ("--http", engine, "--bootstrap-servers", cluster.address)
    async with open_ingest(*arguments, environ=environ) as server, open_others(server, trusted) as others:
        idle_bytes = server.resident_bytes()
        server.forget_most_resident()
        with trio.fail_after(4 * CLOSED_WITHIN_SECONDS):
            async with trio.open_nursery() as nursery:
                for number, kind in enumerate(kinds, 2):
                    nursery.start_soon(attack, kind, f"127.0.0.{number}")
        grown = server.most_resident_bytes() - idle_bytes

    told = {
        kind: sum(answer[9:12] == slow.status for answer in answers[kind]) for kind, slow in kinds.items()
    }
    clients = sum(slow.sockets for slow in kinds.values())
    crowd = ", ".join(f"{slow.sockets} {kind}" for kind, slow in kinds.items())
    reached(
        10,
        f"{engine}: {crowd} at once: all closed within {slowest:.1f} s, "
        f"{sum(told[kind] for kind in kinds if kinds[kind].status)} answered 408; "
        f"others waited at most {others.slowest_seconds * 1000:.0f} ms; memory + {grown / 1e6:.1f} MB",
    )
    for kind, slow in kinds.items():
        assert len(answers[kind]) == slow.sockets
        assert told[kind] == slow.sockets if slow.status else not any(answers[kind]), (
            kind,
            set(answers[kind]),
        )
    assert slowest <= CLOSED_WITHIN_SECONDS
    assert others.were_served, others.answers
    assert others.slowest_seconds <= OTHERS_WAIT_SECONDS
    assert grown <= (TLS_BYTES * clients if kinds is TLS_KINDS else GROWTH_BYTES)
