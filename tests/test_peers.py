"""The study's peers in Rust and Go, as `nox -s peers` built them, held to what each of them has to do."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from bench.brokers import Target, open_mock, read
from bench.cases import Case
from bench.check import check
from bench.study.told import by_file
from bench.systems import RUST_PEERS, SYSTEMS, NotStarted, Server, serving
from tests.client import Client, request

pytestmark = pytest.mark.peers

CORES = frozenset(os.sched_getaffinity(0))
PLACES = {"go-franz": 50_000}
"""Records that its client holds by default, where that is not librdkafka's 100,000."""

WITHOUT_IO_URING = """
import ctypes, os, struct, sys
allow, refuse = 0x7FFF0000, 0x00050001  # SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with EPERM
call = 425  # io_uring_setup
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, refuse), (0x06, 0, 0, allow)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
filter = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert prctl(22, 2, filter) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass
class Peer:
    """One of them, with an empty topic."""

    name: str
    target: Target
    folder: Path

    @contextmanager
    def serving(self, promise: str, *options: str) -> Iterator[Server]:
        system = SYSTEMS[self.name]
        own = replace(system, command=lambda *given: [*system.command(*given), *options])
        with serving(own, Case(promise), self.target, CORES, self.folder) as server:
            yield server

    @property
    def counts(self) -> Any:
        """What it printed at its end."""
        return json.loads((self.folder / "output").read_text().splitlines()[-1])

    @contextmanager
    def frozen_broker(self) -> Iterator[Callable[[], None]]:
        """The broker does nothing until it is told to go on."""

        def thaw() -> None:
            os.kill(self.target.pid, signal.SIGCONT)

        os.kill(self.target.pid, signal.SIGSTOP)
        try:
            yield thaw
        finally:
            thaw()


@pytest.fixture(params=["tokio-hyper", "tokio-tcp", "uring-tcp", "glommio-tcp", "go-franz"])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    try:
        SYSTEMS[request.param].command(Case(), Target("127.0.0.1:9", "t", 1), 1, tmp_path)
    except NotStarted as error:
        pytest.skip(f"{request.param}: {error}")
    with open_mock(CORES) as broker, broker() as target:
        yield Peer(request.param, target, tmp_path)


@pytest.mark.parametrize("peer", ["uring-tcp", "glommio-tcp"], indirect=True)
def test_a_kernel_that_refuses_io_uring_is_the_reason_to_be_left_out(peer: Peer) -> None:
    system = SYSTEMS[peer.name]
    refused = [sys.executable, "-c", WITHOUT_IO_URING]
    own = replace(system, command=lambda *given: [*refused, *system.command(*given)])
    with (
        pytest.raises(NotStarted, match="io_uring: Operation not permitted"),
        serving(own, Case(), peer.target, CORES, peer.folder),
    ):
        pass


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        with trio.fail_after(30):
            yield Client(stream)


async def test_requests_in_any_pieces_are_answered_in_order(peer: Peer) -> None:
    values = [b"first", b"\r\n\r\nPOST / HTTP/1.1\r\n\r\n", b"", b"x" * 900_000, b"last"]
    requests = [request("POST /", content=value) for value in values]
    with peer.serving("delivered") as server:
        async with connected(server) as client:
            await client.send(b"".join(requests))
            answers = [await client.answer() for _ in values]
            for piece in b"".join(requests[:3]):
                await client.send(bytes([piece]))
            answers += [await client.answer() for _ in values[:3]]
        assert {answer.status for answer in answers} == {200}
        found = read(peer.target, len(answers) + 1)  # and the one that it was started with
    named = [found[answer.json["partition"], answer.json["offset"]] for answer in answers]
    assert named == values + values[:3]
    assert answers[0].json["topic"] == peer.target.topic
    assert len(found) == len(answers) + 1


async def test_two_threads_and_other_settings_keep_the_promise(peer: Peer) -> None:
    with peer.serving("delivered", "--threads=2", "--profile=tuned") as server:
        sent = await trio.to_thread.run_sync(check, server, Case(), peer.target)
    assert peer.counts["answered"] == {"200": sent + 1}


@pytest.mark.parametrize("peer", RUST_PEERS, indirect=True)
async def test_old_batches_and_half_a_millisecond_keep_the_promise_and_statistics_are_told(
    peer: Peer, tmp_path: Path
) -> None:
    told = tmp_path / "statistics"
    options = ("--profile=old", "--linger-ms=0.5", f"--statistics={told}")
    with peer.serving("delivered", *options) as server:
        await trio.to_thread.run_sync(check, server, Case(), peer.target)
        with trio.fail_after(10):
            async with connected(server) as client:
                while (found := by_file(told)) is None or not found.round_trip_us:
                    assert (await client.ask(request("POST /", content=b"1"))).status == 200
    assert found.queue_records <= 1


@pytest.mark.parametrize("peer", ["tokio-tcp", "uring-tcp", "glommio-tcp"], indirect=True)
async def test_a_loop_that_polls_the_producer_keeps_the_promise(peer: Peer) -> None:
    with peer.serving("queued", "--poll-ms=1") as server:
        sent = await trio.to_thread.run_sync(check, server, Case("queued"), peer.target)
    assert peer.counts["delivered"] == sent + 1


@pytest.mark.parametrize(
    "wrong",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\n1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
    ],
    ids=["no request", "no field", "no number", "two lengths"],
)
async def test_a_bad_request_is_answered_with_400_and_closes(peer: Peer, wrong: bytes) -> None:
    with peer.serving("queued") as server:
        async with connected(server) as client:
            await client.send(request("POST /", content=b"good") + wrong)
            assert (await client.answer()).status == 202
            assert (await client.answer()).status == 400
            assert await client.rest() == b""
        async with connected(server) as client:
            assert (await client.ask(request("POST /", content=b"next"))).status == 202
    assert peer.counts["delivered"] == 3


async def test_what_is_no_record_is_refused(peer: Peer) -> None:
    with peer.serving("delivered") as server:
        async with connected(server) as client:
            answer = await client.ask(request("GET /"))
            assert answer.status == 405
            assert answer.fields["allow"] == "POST"
        async with connected(server) as client:
            answer = await client.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n\r\n")
            assert answer.status == 413
    assert peer.counts["answered"] == {"200": 1, "405": 1, "413": 1}


@pytest.mark.parametrize("head", [("1.1", "Connection: close"), ("1.0",)], ids=["asked to", "HTTP/1.0"])
async def test_a_connection_closes_where_it_should(peer: Peer, head: tuple[str, ...]) -> None:
    version, *fields = head
    with peer.serving("delivered") as server:
        async with connected(server) as client:
            await client.send(request("POST /", *fields, content=b"only", version=version))
            # Hyper answers an HTTP/1.0 request with that version, which `Client.answer` does not take.
            assert (await client.rest()).split(b" ")[1] == b"200"


async def test_a_full_queue_is_waited_for_and_nothing_is_dropped(peer: Peer) -> None:
    places = PLACES.get(peer.name, 100_000)
    connections, more = 16, 16 * 50
    each = (places + more) // connections
    answered, full = 0, trio.Event()
    marks = b"HTTP/1.1 202 "

    async def converse(server: Server) -> None:
        nonlocal answered
        rest, own = b"", 0
        async with connected(server) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.send, request("POST /", content=b"x") * each)
            while own < each:
                data = rest + await client.stream.receive_some(65_536)
                assert len(data) > len(rest), "the server closed"
                own += data.count(marks)
                answered += data.count(marks)
                rest = data[-len(marks) + 1 :]
                if answered >= places - connections:
                    full.set()

    with peer.serving("queued") as server, peer.frozen_broker() as thaw:
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(converse, server)
            await full.wait()
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert answered <= places
            thaw()
        assert answered == each * connections
    assert peer.counts["answered"] == {"202": answered + 1}
    assert (peer.counts["delivered"], peer.counts["failed"]) == (answered + 1, 0)


async def test_a_record_whose_client_has_gone_is_counted_too(peer: Peer) -> None:
    with peer.serving("delivered") as server, peer.frozen_broker() as thaw:
        async with connected(server) as gone:
            await gone.send(request("POST /", content=b"gone"))
        async with connected(server) as client:
            await client.send(request("POST /", content=b"here"))
            thaw()
            assert (await client.answer()).status == 200
    assert peer.counts["delivered"] == 3
    assert peer.counts["accepted"] == 3


async def test_more_connections_than_descriptors_are_accepted_once_others_have_gone(peer: Peer) -> None:
    with peer.serving("delivered") as server:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (64, 64))
        async with AsyncExitStack() as storm:
            clients = [await storm.enter_async_context(connected(server)) for _ in range(100)]
            assert (await clients[0].ask(request("POST /", content=b"within"))).status == 200
        async with connected(server) as client:
            assert (await client.ask(request("POST /", content=b"after"))).status == 200
    assert peer.counts["delivered"] == 3
    assert peer.counts.get("accept_errors") != 0  # Go's accept loop keeps its own to itself


@pytest.mark.parametrize("option", ["--promise=both", "--profile=fast", "--threads=0", "--port=x", "--no=1"])
def test_wrong_arguments_are_named(peer: Peer, option: str) -> None:
    command = [*SYSTEMS[peer.name].command(Case(), peer.target, 1, peer.folder), option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert option.partition("=")[0].lstrip("-") in done.stderr
