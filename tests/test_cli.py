"""The command line as a user meets it: processes, signals, streams and exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import AUTO_CREATE, SECONDS, Ingest, Start, line_with, listening, post
from tests.mock_kafka import open_mock_kafka

# Arguments and configuration ----------------------------------------------------------------------


def test_the_version_is_printed(ingest: Ingest) -> None:
    ended = ingest("--version")
    assert ended.returncode == 0
    assert re.fullmatch(r"ingest \d+\.\d+\.\d+\n", ended.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "--kafka", "foo=bar"), '[kafka] No such configuration property: "foo"'),
        (("serve", "--kafka", "batch.size=many"), 'Invalid value for configuration property "batch.size"'),
        (("serve", "--port", "http"), '--port = "http": must be a whole number from 0 to 65535'),
        (("serve", "--host", "192.0.2.1", "--port", "0"), "http.port: cannot listen on 192.0.2.1 port 0: "),
        (("serve", "--config", "none.toml"), "none.toml: cannot be read: No such file or directory"),
        (("serve", "--grace-seconds", "1"), "shutdown.grace_seconds = 1"),
        (("serve", "--bootstrap-servers", ""), 'bootstrap.servers = "": must be HOST:PORT'),
        (
            ("serve", "--bootstrap-servers", "a:9092,b:x"),
            'bootstrap.servers = "a:9092,b:x": must be HOST:PORT',
        ),
        (("serve", "--port", "8081", "--management-port", "8081"), "management.port = 8081 is http.port too"),
        (("check", "none.toml"), "none.toml: cannot be read: No such file or directory"),
        (("tail", "events"), "no brokers: name them with --bootstrap-servers"),
    ],
)
def test_wrong_configuration_is_one_line_and_exit_code_2(
    ingest: Ingest, arguments: tuple[str, ...], message: str
) -> None:
    ended = ingest(*arguments)
    assert ended.returncode == 2
    *before, last = ended.stderr.splitlines()
    assert last.startswith("config: ")
    assert message in last
    assert ended.stdout == ""
    assert not any("Traceback" in line or line.startswith("config: ") for line in before)


def test_an_unknown_flag_is_exit_code_2(ingest: Ingest) -> None:
    ended = ingest("serve", "--prot", "80")
    assert ended.returncode == 2
    assert "No such option: --prot" in ended.stderr


def test_check_prints_the_configuration_in_force_with_secrets_masked(ingest: Ingest, tmp_path: Path) -> None:
    file = tmp_path / "ingest.toml"
    file.write_text('[http]\nport = 1\n[kafka]\nsasl.username = "me"\nsasl.password = "hunter2"\n')
    ended = ingest("check", str(file), INGEST_HTTP__HOST="0.0.0.0")
    assert ended.returncode == 0, ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
    assert ended.stderr.startswith("warning: http.host = 0.0.0.0")
    assert "warning: no Kafka is named" in ended.stderr
    file.write_text(ended.stdout)
    again = ingest("check", str(file))
    assert (again.returncode, again.stdout) == (0, ended.stdout)


def test_check_prints_what_follows_from_the_rest_and_leaves_it_to_follow(
    ingest: Ingest, tmp_path: Path
) -> None:
    file = tmp_path / "ingest.toml"
    file.write_text(
        "[http]\nnative = false\n[limits]\nheld_bytes = 67108864\n"
        '[tuning]\nworkers = 2\nprofile = "throughput"\n[kafka]\nretries = 3\n'
    )
    ended = ingest("check", str(file))
    assert ended.returncode == 0, ended.stderr
    in_force = tomllib.loads(re.sub(r"(?m)^# (?=\S+ = )", "", ended.stdout))
    assert in_force["http"]["rest_proxy"] is False
    # Each of the two processes has 32 MiB, and an eighth of that is for one request.
    assert (in_force["limits"]["batch_bytes"], in_force["limits"]["connections"]) == (4 << 20, 10_000)
    assert in_force["topics"]["auto_create"] is True  # with the broker inside
    kafka = in_force["kafka"]
    assert (kafka["acks"], kafka["linger.ms"], kafka["compression.type"]) == ("all", 20, "lz4")
    assert (kafka["allow.auto.create.topics"], kafka["retries"]) == (True, 3)
    set_there = tomllib.loads(ended.stdout)
    assert set_there["kafka"] == {"retries": 3}
    assert set_there["limits"].keys() == {"request_bytes", "record_bytes", "held_bytes"}
    given = tmp_path / "given.toml"
    given.write_text(
        "[limits]\nbatch_bytes = 2000000\n[topics]\nauto_create = false\n[kafka]\nlinger.ms = 7\n"
    )
    written = ingest("check", str(given)).stdout
    assert [line for line in written.splitlines() if "batch_bytes" in line or "linger" in line] == [
        "batch_bytes = 2000000",
        '"linger.ms" = 7',
    ]
    assert '# "allow.auto.create.topics" = false' in written


def test_check_asks_librdkafka_and_reads_the_certificate(ingest: Ingest, tmp_path: Path) -> None:
    file = tmp_path / "ingest.toml"
    file.write_text('[kafka]\nfoo = "bar"\n')
    assert 'No such configuration property: "foo"' in ingest("check", str(file)).stderr
    file.write_text('[http]\ntls_certificate_file = "none.pem"\ntls_key_file = "none.pem"\n')
    ended = ingest("check", str(file))
    assert ended.returncode == 2
    assert "none.pem" in ended.stderr


# serve --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_and_exits_with_0(start: Start, end: signal.Signals) -> None:
    with start("serve", "--port", "0") as service:
        url, _ = listening(service)
        assert post(url, b'{"id":1}') == 200
        service.send_signal(end)
        drained = line_with(service, "drained")
        assert service.wait(SECONDS) == 0
    assert re.search(
        r"drained accepted=1 delivered=1 failed=0 unknown=0 left_unknown=0 seconds=\d+\.\d+\n", drained
    )


def test_a_log_that_nobody_reads_holds_up_neither_answers_nor_the_end(start: Start) -> None:
    with start("serve", "--port", "0", "--access-log") as service:
        url, _ = listening(service)
        assert service.stderr is not None
        fcntl.fcntl(service.stderr, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
        for _ in range(100):
            assert post(url, b"1") == 200
        service.send_signal(signal.SIGTERM)
        assert service.wait(SECONDS) == 0


def test_routes_topic_and_log_format_come_from_flags(start: Start, ingest: Ingest) -> None:
    with start("serve", "--port", "0", "--topic", "t", "--route", "/a=b", "--log-format", "json") as service:
        event = json.loads(line_with(service, '"listening"'))
        assert post(event["url"], b"1") == 200
        assert post(f"{event['url']}/a", b"2") == 200
        assert json.loads(ingest("tail", "t", "--from-beginning", "--count", "1").stdout)["value"] == "1"
        assert json.loads(ingest("tail", "b", "--from-beginning", "--count", "1").stdout)["value"] == "2"


def test_the_limit_of_open_files_is_raised_and_the_log_says_so(environ: dict[str, str]) -> None:
    serve = [sys.executable, "-m", "ingest", "serve", "--port", "0"]
    command = ["sh", "-c", 'ulimit -Sn 300 && ulimit -Hn 400 && exec "$@"', "sh", *serve]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as service:
        try:
            assert "files=400 before=300" in line_with(service, "file limit raised")
            limits = Path(f"/proc/{service.pid}/limits").read_text()
            assert re.search(r"Max open files +400 +400", limits)
        finally:
            service.kill()


def test_a_port_in_use_is_one_line_and_exit_code_2(start: Start, ingest: Ingest) -> None:
    with start("serve", "--port", "0") as service:
        port = listening(service).url.rpartition(":")[2]
        ended = ingest("serve", "--port", port)
    assert ended.returncode == 2
    assert re.search(rf"^config: .*{port}.*in use", ended.stderr, re.MULTILINE)


@pytest.mark.parametrize("kind", ["in a folder", "abstract"])
def test_systemd_is_told_when_it_listens_and_when_it_stops(
    start: Start, environ: dict[str, str], tmp_path: Path, kind: str
) -> None:
    abstract = kind == "abstract"
    name = f"ingest-tests-{os.getpid()}" if abstract else str(tmp_path / "notify")
    environ["NOTIFY_SOCKET"] = f"@{name}" if abstract else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(SECONDS)
        systemd.bind(f"\0{name}" if abstract else name)
        with start("serve", "--port", "0") as service:
            assert systemd.recv(100) == b"READY=1"
            url, _ = listening(service)
            assert post(url, b"1") == 200
            service.send_signal(signal.SIGTERM)
            assert systemd.recv(100) == b"STOPPING=1"
            assert service.wait(SECONDS) == 0


def test_a_systemd_that_is_not_there_is_no_reason_to_fail(start: Start, environ: dict[str, str]) -> None:
    environ["NOTIFY_SOCKET"] = "/nowhere/notify"
    with start("serve", "--port", "0") as service:
        url, _ = listening(service)
        assert "state=READY=1" in line_with(service, "systemd was not told").replace('"', "")
        assert post(url, b"1") == 200


def test_the_access_log_has_a_line_for_each_request_and_management_a_port(start: Start) -> None:
    arguments = ("--access-log", "--management-port", "0", "--log-format", "json")
    with start("serve", "--port", "0", *arguments) as service:
        seen_at = json.loads(line_with(service, '"management"'))["url"]
        url = json.loads(line_with(service, '"listening"'))["url"]
        assert post(f"{url}/?key=k", b"12345", X_Request_Id="mine") == 200
        line = json.loads(line_with(service, '"request"'))
        with urllib.request.urlopen(f"{seen_at}/healthz", timeout=SECONDS) as answer:
            assert answer.status == 200
    seconds = line.pop("seconds")
    assert 0 < seconds < SECONDS
    del line["time"]
    assert line == {
        "level": "info", "event": "request", "request_id": "mine", "peer": "127.0.0.1", "method": "POST",
        "target": "/?key=k", "status": 200, "content_bytes": 5, "records": 1,
    }  # fmt: skip


def test_a_second_signal_abandons_what_is_pending_and_exits_with_1(start: Start) -> None:
    with start("serve", "--port", "0") as kafka:
        brokers = listening(kafka).brokers
        with start("serve", "--port", "0", "--bootstrap-servers", brokers, "--kafka", AUTO_CREATE) as service:
            url, _ = listening(service)
            assert post(url, b"1") == 200
            kafka.send_signal(signal.SIGSTOP)
            assert post(url, b"2", Prefer="respond-async") == 202
            service.send_signal(signal.SIGTERM)
            line_with(service, "draining")
            service.send_signal(signal.SIGTERM)
            assert "unknown=1" in line_with(service, "abandoned")
            assert service.wait(SECONDS) == 1


def test_a_signal_after_the_drain_leaves_the_exit_code_as_it_is(start: Start) -> None:
    with start("serve", "--port", "0") as service:
        listening(service)
        service.send_signal(signal.SIGTERM)
        line_with(service, " drained ")
        while service.poll() is None:
            service.send_signal(signal.SIGTERM)
        assert service.returncode == 0


def test_an_outcome_left_unknown_by_the_drain_is_exit_code_1(start: Start) -> None:
    with start("serve", "--port", "0") as kafka:
        brokers = listening(kafka).brokers
        flags = ("--bootstrap-servers", brokers, "--kafka", AUTO_CREATE, "--grace-seconds", "1.5")
        with start("serve", "--port", "0", *flags) as service:
            url, _ = listening(service)
            assert post(url, b"1") == 200
            kafka.send_signal(signal.SIGSTOP)
            assert post(url, b"2", Prefer="respond-async") == 202
            service.send_signal(signal.SIGTERM)
            assert "accepted=2 delivered=1 failed=0 unknown=1 left_unknown=1" in line_with(service, "drained")
            assert service.wait(SECONDS) == 1


@pytest.mark.parametrize("timeout_ms", [1000, 120_000])
def test_an_outcome_that_was_unknown_before_the_drain_leaves_its_exit_code_0(
    start: Start, monkeypatch: pytest.MonkeyPatch, timeout_ms: int
) -> None:
    with open_mock_kafka() as kafka:
        kafka.create("events")
        # A record given up before the drain, and one that is given up by it.
        flags = ["--bootstrap-servers", kafka.address, "--grace-seconds", "4"]
        flags += ["--kafka", f"message.timeout.ms={timeout_ms}"]
        monkeypatch.setenv("INGEST_TIMEOUTS__ANSWER_SECONDS", "2")
        with start("serve", "--port", "0", *flags) as service:
            url, _ = listening(service)
            assert post(url, b"1") == 200
            kafka.down()
            with pytest.raises(urllib.error.HTTPError, match="504"):
                post(url, b"2")
            service.send_signal(signal.SIGTERM)
            assert "accepted=2 delivered=1 failed=0 unknown=1 left_unknown=0" in line_with(service, "drained")
            assert service.wait(SECONDS) == 0


# tail ---------------------------------------------------------------------------------------------


@pytest.fixture
def service(start: Start) -> Iterator[str]:
    """The URL of a service with the broker inside."""
    with start("serve", "--port", "0") as process:
        yield listening(process).url


def test_tail_prints_one_json_line_a_record(service: str, ingest: Ingest) -> None:
    url = f"{service}/topics/orders/records?key=k%C3%A91"
    assert post(url, "v\n\x9bé".encode(), Content_Type="text/plain", Kafka_Header_Trace="abc") == 200
    ended = ingest("tail", "orders", "--from-beginning", "--count", "1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("\n") == 1
    assert r"v\n\u009bé" in ended.stdout
    line = json.loads(ended.stdout)
    assert list(line) == ["topic", "partition", "offset", "timestamp", "key", "headers", "value"]
    assert (line["topic"], line["offset"], line["key"], line["value"]) == ("orders", 0, "ké1", "v\n\x9bé")
    assert line["headers"] == [["content-type", "text/plain"], ["trace", "abc"]]


def test_bytes_that_are_not_utf_8_are_marked_as_base64(service: str, ingest: Ingest) -> None:
    post(f"{service}/topics/raw/records?key=%FF", b"\xff\x00")
    line = json.loads(ingest("tail", "raw", "--from-beginning", "--count", "1").stdout)
    assert (line["key"], line["value"]) == ({"base64": "/w=="}, {"base64": "/wA="})


def test_tail_of_an_unknown_topic_is_exit_code_2(service: str, ingest: Ingest) -> None:
    ended = ingest("tail", "nope")
    assert ended.returncode == 2
    assert re.fullmatch(r'config: topic "nope": the cluster at \S+ has no such topic\n', ended.stderr)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_tail_cleanly(service: str, start: Start, end: signal.Signals) -> None:
    post(service, b"1")
    with start("tail", "events", "--from-beginning") as tail:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["value"] == "1"
        tail.send_signal(end)
        _, errors = tail.communicate(timeout=SECONDS)
        assert (tail.returncode, errors) == (0, b"")


def test_tail_ends_when_its_reader_has_gone(service: str, start: Start) -> None:
    post(service, b"1")
    with start("tail", "events", "--from-beginning") as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        tail.stdout.readline()
        tail.stdout.close()
        post(service, b"2")
        assert tail.wait(SECONDS) == 0
        assert tail.stderr.read() == b""
