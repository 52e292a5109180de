"""Several processes on one port, as a user and an operator meet them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingest.management.sums import Family, Sums
from ingest.workers import usable_cores
from tests.commands import AUTO_CREATE, SECONDS, Ingest, Running, Start, children, line_with, listening, post

WORKERS = ("serve", "--port", "0", "--workers", "2", "--grace-seconds", "4")


class Serving(NamedTuple):
    process: Running
    url: str
    seen_at: str

    def ask(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.seen_at + path, timeout=SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    def metrics(self) -> dict[str, float]:
        text = self.ask("/metrics")[1]
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if set(sample.labels) <= {"route", "topic"} or sample.labels.get("result") == "delivered"
        }

    def until(self, is_so: Callable[[], bool]) -> None:
        """Ask again and again, since what is waited for comes from another process."""
        deadline = time.monotonic() + SECONDS
        while not is_so():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.02)


@pytest.fixture
def serving(start: Start) -> Iterator[Serving]:
    with open_serving(start) as service:
        yield service


@contextmanager
def open_serving(start: Start, *more: str) -> Iterator[Serving]:
    with start(*WORKERS, *more) as process:
        seen_at = re.search(r"url=(\S+)", line_with(process, "info management"))
        url = re.search(r"listening url=(\S+)", line_with(process, "workers=2"))
        assert seen_at is not None
        assert url is not None
        service = Serving(process, url[1], seen_at[1])
        service.until(lambda: service.metrics()["ingest_workers_ready"] == 2)
        yield service


@contextmanager
def open_stalled(start: Start) -> Iterator[Serving]:
    """With one record that Kafka has, and ten that were answered 202 and that it does not take."""
    with start("serve", "--port", "0") as kafka:
        brokers = listening(kafka).brokers
        with open_serving(start, "--bootstrap-servers", brokers, "--kafka", AUTO_CREATE) as service:
            assert post(service.url, b"1") == 200
            kafka.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, kafka.pid, os.WSTOPPED | os.WNOWAIT)  # until then its threads go on
            for _ in range(10):
                assert post(service.url, b"2", Prefer="respond-async") == 202
            yield service


def test_a_signal_drains_all_and_their_last_lines_add_up(serving: Serving) -> None:
    for number in range(40):  # over as many connections, which the kernel shares out
        assert post(serving.url, str(number).encode()) == 200
    serving.process.send_signal(signal.SIGTERM)
    sums = []
    for _ in range(2):
        line = line_with(serving.process, "info drained")
        sums.append(int(re.search(r"accepted=(\d+)", line)[1]))  # type: ignore[index]  # there, or it fails
        assert re.search(r"worker=[12]\n", line), line
    assert min(sums) > 0
    assert sum(sums) == 40
    last = line_with(serving.process, "info drained")
    assert "workers=2 accepted=40 delivered=40 failed=0 unknown=0 left_unknown=0 seconds=" in last
    assert serving.process.wait(SECONDS) == 0


def test_a_process_that_is_killed_is_begun_again_and_nobody_is_refused(
    serving: Serving, start: Start
) -> None:
    victim, survivor = children(serving.process.pid)
    answered: list[int] = []
    stopping = threading.Event()

    def send() -> None:
        while not stopping.is_set():
            number = len(answered)
            try:
                if post(serving.url, str(number).encode()) == 200:
                    answered.append(number)
            except (OSError, urllib.error.URLError):  # it was in the process that was killed
                answered.append(-1)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        serving.until(lambda: len(answered) >= 20)
        os.kill(victim, signal.SIGKILL)
        line = line_with(serving.process, "error worker ended")
        assert re.search(rf"worker=[12] pid={victim} status=-9\n", line), line
        line_with(serving.process, "info listening")
        at_least = len(answered) + 20
        serving.until(lambda: len(answered) >= at_least)
    finally:
        stopping.set()
        sender.join(SECONDS)
    assert survivor in children(serving.process.pid)
    assert len(children(serving.process.pid)) == 2
    assert answered.count(-1) <= 1
    missing = set(answered) - {-1}
    with start("tail", "events", "--from-beginning") as tail:
        assert tail.stdout is not None
        while missing:  # for ever where one is lost, which has its time-out
            missing.discard(int(json.loads(tail.stdout.readline())["value"]))
    serving.process.send_signal(signal.SIGTERM)
    assert "left_unknown=0 ended=1 seconds=" in line_with(serving.process, "drained workers=2 accepted=")
    assert serving.process.wait(SECONDS) == 1  # what it had answered with 202 would be lost


def test_metrics_are_those_of_all_and_do_not_shrink_when_one_is_killed(serving: Serving) -> None:
    for number in range(40):
        assert post(serving.url, str(number).encode()) == 200
    serving.until(lambda: serving.metrics()["ingest_records_total"] == 40)
    before = serving.metrics()
    assert before["ingest_http_request_duration_seconds_count"] == 40
    assert before["ingest_held_bytes_limit"] == 256 << 20
    assert (before["ingest_workers"], before["ingest_workers_limit"]) == (2, 2)
    assert before["ingest_ready"] == 1
    os.kill(children(serving.process.pid)[0], signal.SIGKILL)
    serving.until(lambda: serving.metrics()["ingest_workers_ended_total"] == 1)
    after = serving.metrics()
    assert after["ingest_records_total"] == 40
    assert after["ingest_http_request_duration_seconds_count"] == 40
    serving.until(lambda: serving.metrics()["ingest_workers"] == 2)
    assert serving.metrics()["ingest_records_total"] == 40


def test_a_process_that_ends_again_and_again_is_given_up_with_exit_code_1(serving: Serving) -> None:
    killed: set[int] = set()
    (victim, _) = children(serving.process.pid)
    while serving.process.poll() is None and len(killed) < 5:
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
        words = "worker ended" if len(killed) < 5 else "giving up"
        line_with(serving.process, words)
        if len(killed) < 5:
            line_with(serving.process, "info listening")
            victim = max(set(children(serving.process.pid)) - killed)
    line_with(serving.process, "drained workers=2 accepted=0")
    assert serving.process.wait(SECONDS) == 1


def test_a_second_signal_abandons_all_with_exit_code_1(start: Start) -> None:
    with open_stalled(start) as service:
        service.process.send_signal(signal.SIGTERM)
        line_with(service.process, "info draining workers=2")
        service.process.send_signal(signal.SIGTERM)
        assert "workers=2" in line_with(service.process, "warning abandoned workers=2")
        assert service.process.wait(SECONDS) == 1


def test_a_stop_while_one_is_not_there_serves_who_has_connected_to_it(serving: Serving) -> None:
    """The kernel has accepted them: closing the socket of the one that died would reset them."""
    host, port = serving.url.removeprefix("http://").split(":")
    clients: list[socket.socket] = []
    try:
        os.kill(children(serving.process.pid)[0], signal.SIGKILL)
        line_with(serving.process, "error worker ended")
        for _ in range(12):
            client = socket.create_connection((host, int(port)), SECONDS)
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1")
            clients.append(client)
        serving.process.send_signal(signal.SIGTERM)
        assert [client.recv(12) for client in clients] == [b"HTTP/1.1 200"] * 12
    finally:
        for client in clients:
            client.close()
    line_with(serving.process, "info drained workers=2 accepted=12 delivered=12")
    assert serving.process.wait(SECONDS) == 1


def test_records_of_one_that_is_killed_are_counted_as_unknown(start: Start) -> None:
    with open_stalled(start) as service:
        service.until(lambda: service.metrics()["ingest_records_accepted_total"] == 11)
        workers = children(service.process.pid)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        service.until(lambda: service.metrics()["ingest_workers_ended_total"] == 2)
        records = "ingest_records_total{"
        lines = [line for line in service.ask("/metrics")[1].splitlines() if line.startswith(records)]
        assert records + 'result="unknown",topic="(other)"} 10.0' in lines
        service.process.send_signal(signal.SIGTERM)
        line = line_with(service.process, "drained workers=2")
        assert "accepted=11 delivered=1 failed=0 unknown=10" in line
        assert service.process.wait(SECONDS) == 1


def test_a_stop_before_all_are_there_drains_those_that_are(start: Start) -> None:
    with start(*WORKERS) as process:
        line_with(process, "info listening")  # the first of the two
        process.send_signal(signal.SIGTERM)
        line_with(process, "info drained workers=2")
        assert process.wait(SECONDS) == 0


def test_a_worker_that_cannot_be_begun_does_not_end_the_others(
    environ: dict[str, str], tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    command = [str(python), "-m", "ingest", *WORKERS]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as process:
        try:
            url = re.search(r"listening url=(\S+)", line_with(process, "workers=2"))
            assert url is not None
            python.unlink()
            os.kill(children(process.pid)[0], signal.SIGKILL)
            assert "No such file" in line_with(process, "error worker not begun")
            python.symlink_to(sys.executable)
            line_with(process, "info listening")
            assert post(url[1], b"1") == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 1
        finally:
            process.kill()


def test_one_that_is_killed_leaves_the_others_ready(serving: Serving) -> None:
    os.kill(children(serving.process.pid)[0], signal.SIGKILL)
    serving.until(lambda: serving.metrics()["ingest_workers_ended_total"] == 1)
    while len(children(serving.process.pid)) < 2 or serving.metrics()["ingest_workers"] < 2:
        assert serving.ask("/readyz")[0] == 200


def test_one_that_hangs_is_seen_and_does_not_hold_up_the_end(serving: Serving) -> None:
    os.kill(children(serving.process.pid)[0], signal.SIGSTOP)
    serving.until(lambda: serving.ask("/readyz")[0] == 503)
    assert "has said nothing for 3 seconds" in serving.ask("/readyz")[1]
    serving.process.send_signal(signal.SIGTERM)
    assert re.search(r"worker=[12] pid=", line_with(serving.process, "error worker did not end in time"))
    line_with(serving.process, "warning abandoned workers=2")
    assert serving.process.wait(SECONDS) == 1


def test_processes_whose_starter_is_killed_drain_and_end(serving: Serving) -> None:
    workers = children(serving.process.pid)
    serving.process.kill()
    for _ in range(2):
        assert "worker=" in line_with(serving.process, "info drained")
    deadline = time.monotonic() + SECONDS
    while any(Path(f"/proc/{each}").exists() for each in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_signals_that_are_sent_to_all_count_once(serving: Serving) -> None:
    """As systemd does with KillMode=control-group."""
    assert post(serving.url, b"1") == 200
    for pid in [*children(serving.process.pid), serving.process.pid]:
        os.kill(pid, signal.SIGTERM)
    assert "accepted=1 delivered=1" in line_with(serving.process, "info drained workers=2")
    assert serving.process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--workers", "0"), '--workers = "0": must be a whole number from 1 to 256 or "auto"'),
        (("--workers", "many"), '--workers = "many": must be a whole number from 1 to 256 or "auto"'),
        (("--workers", "200"), "tuning.workers = 200: the share of each: limits.held_bytes = 1342177 has no"),
    ],
)
def test_wrong_numbers_of_processes_are_told(ingest: Ingest, flags: tuple[str, ...], message: str) -> None:
    ended = ingest("serve", "--port", "0", *flags)
    assert ended.returncode == 2
    assert f"config: {message}" in ended.stderr


def test_check_holds_the_shares_of_processes_against_their_least(ingest: Ingest) -> None:
    ended = ingest("check", INGEST_TUNING__WORKERS="200")
    assert ended.returncode == 2
    assert "config: tuning.workers = 200: the share of each: limits.held_bytes = 1342177" in ended.stderr


def test_a_port_that_other_processes_share_is_in_use(serving: Serving, ingest: Ingest) -> None:
    port = serving.url.rpartition(":")[2]
    ended = ingest("serve", "--port", port, "--workers", "2")
    assert ended.returncode == 2
    assert re.search(rf"^config: .*{port}.*in use", ended.stderr, re.MULTILINE)


def test_automatic_is_one_for_each_usable_core(start: Start) -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    with start("serve", "--port", "0", "--workers", "auto") as service:
        words = "info listening url" if usable_cores() == 1 else f"workers={usable_cores()}"
        line_with(service, words)
        service.send_signal(signal.SIGTERM)
        assert service.wait(SECONDS) == 0


# Sums ---------------------------------------------------------------------------------------------


def samples(sums: Sums) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for metric in sums.collect()
        for sample in metric.samples
    }


def test_sums_add_by_labels_and_keep_what_grew_of_those_that_are_gone() -> None:
    def families(count: float, held: float) -> list[Family]:
        return [
            Family("requests", "counter", "…", [("requests_total", {"code": "200"}, count)]),
            Family("held", "gauge", "…", [("held", {}, held)]),
            Family("ingest_kafka_broker_connected", "gauge", "…", [("up", {"broker": "a"}, held > 1)]),
        ]

    sums = Sums()
    sums.put(1, families(5, 1))
    sums.put(2, families(7, 2))
    assert samples(sums) == {("requests_total", "200"): 12, ("held", ""): 3, ("up", "a"): True}
    sums.end(2)
    assert samples(sums) == {("requests_total", "200"): 12, ("held", ""): 1, ("up", "a"): False}
    sums.put(2, families(1, 4))
    sums.end(2)
    assert samples(sums)["requests_total", "200"] == 13
