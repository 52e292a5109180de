"""Row 15: wrong configuration is refused at start, at once and in one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

WITHIN_SECONDS = 1.0

# What is given, and what the line says.
FLAGS = [
    (("--port", "http"), '--port = "http": must be a whole number from 0 to 65535'),
    (("--port", "65536"), "--port"),
    (("--http", "nginx"), "--http"),
    (("--kafka", "foo=bar"), 'No such configuration property: "foo"'),
    (("--kafka", "batch.size=many"), 'Invalid value for configuration property "batch.size"'),
    (("--kafka", "acks=1"), "acks"),
    (("--kafka", "message.timeout.ms=0"), "message.timeout.ms = 0"),
    (("--kafka", "message.max.bytes=1000"), "message.max.bytes = 1000"),
    (("--kafka", "delivery.report.only.error=true"), "no answer could be given"),
    (("--kafka", "no-equals-sign"), "must be NAME=VALUE"),
    (("--grace-seconds", "1"), "shutdown.grace_seconds = 1"),
    (("--topic", "__consumer_offsets"), "internal to Kafka"),
    (("--topic", "a b"), "a topic has 1 to 249"),
    (("--route", "clicks=clicks"), "clicks"),
    (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
    (("--config", "none.toml"), "none.toml: cannot be read"),
]
FILES = [
    ("[limits]\nheld_bytes = 1000", "limits.held_bytes = 1000 has no room for the largest request"),
    ("[limits]\nrecord_bytes = 0", "record_bytes"),
    ("[limits]\nhold_bytes = 1", 'did you mean "held_bytes"?'),
    ("[timeouts]\nanswer_seconds = 0", "answer_seconds"),
    ("[timeouts]\nhead_seconds = 'soon'", "head_seconds"),
    ("[shutdown]\ndrain_delay_seconds = 24", "leaves no time to flush"),
    ("[http]\ntls_certificate_file = 'a.pem'", "without http.tls_key_file"),
    ("[http]\ntls_certificate_file = 'a.pem'\ntls_key_file = 'a.pem'", "cannot use the certificate and key"),
    ("[[routes]]\npath = '/a'", "a topic is required"),
    ("[[routes]]\npath = '/a'\ntopic = 'a'\nwhen_full = 'wait'\nwait_seconds = 10", "wait_seconds = 10"),
    ("[kafka]\nsasl.password_file = 'none'", "none"),
    ("[limit]\nheld_bytes = 1", "did you mean [limits]?"),
    ("not TOML", "not TOML"),
]
ENVIRONMENT = [
    ({"INGEST_HTTP__PORT": "http"}, "INGEST_HTTP__PORT"),
    ({"INGEST_HTTP__PROT": "80"}, "INGEST_HTTP__PROT: no such option"),
]


def test_every_wrong_configuration_ends_at_once_with_its_line(
    tmp_path: Path, reached: Callable[[int, str], None]
) -> None:
    cases: list[tuple[tuple[str, ...], dict[str, str], str]] = []
    cases += [(flags, {}, words) for flags, words in FLAGS]
    for number, (content, words) in enumerate(FILES):
        file = tmp_path / f"{number}.toml"
        file.write_text(content)
        cases.append((("--config", str(file)), {}, words))
    cases += [((), variables, words) for variables, words in ENVIRONMENT]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    slowest, its = 0.0, ""
    for flags, variables, words in cases:
        command = [sys.executable, "-m", "ingest", "serve", *flags]
        began = time.perf_counter()
        ended = subprocess.run(
            command, env=clean | variables, capture_output=True, text=True, timeout=20, check=False
        )
        seconds = time.perf_counter() - began
        if seconds > slowest:
            slowest, its = seconds, words
        lines = [line for line in ended.stderr.splitlines() if line.startswith("config: ")]
        assert ended.returncode == 2, (flags, variables, ended.stderr)
        assert len(lines) == 1, (flags, variables, ended.stderr)
        assert words in lines[0], (flags, variables, lines)
        assert "Traceback" not in ended.stderr
    reached(
        15,
        f"{len(cases)} wrong configurations: exit code 2 and one line each, within {slowest:.2f} s",
    )
    assert slowest < WITHIN_SECONDS, its
