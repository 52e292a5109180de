"""The files of docs/deploy are what they claim: they parse, and their numbers fit the configuration's."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import ingest
from ingest.loading import load
from ingest.metrics import METRICS
from tests.pages import ROOT

DEPLOY = ROOT / "docs" / "deploy"
MEGABYTE = 1_000_000
BESIDE_THE_BUDGET = 64 * MEGABYTE
IDLE = 64 * MEGABYTE  # more than an idle process was seen to have; nox -s promises prints it

MANIFEST: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def manifest(kind: str) -> dict[str, Any]:
    (found,) = (document for document in MANIFEST if document["kind"] == kind)
    return found


def unit() -> dict[str, str]:
    """The unit's assignments; each name once, but for those that systemd adds up."""
    lines = (DEPLOY / "ingest.service").read_text().splitlines()
    pairs = [line.partition("=")[::2] for line in lines if line and line[0] not in "#["]
    return dict(pairs)


def configuration(text: str, tmp_path: Path) -> ingest.Config:
    file = tmp_path / "ingest.toml"
    file.write_text(text)
    return load(file, {}, {})


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    systemd = shutil.which("systemd-analyze")
    if systemd is None:
        pytest.skip("systemd-analyze is not on PATH")
    text = (DEPLOY / "ingest.service").read_text().replace("/opt/ingest/bin/ingest", sys.executable)
    file = tmp_path / "ingest.service"
    file.write_text(text)
    done = subprocess.run([systemd, "verify", str(file)], capture_output=True, text=True, check=False)
    assert "ingest.service" not in done.stderr, done.stderr


def test_the_unit_leaves_time_and_memory_for_its_configuration(tmp_path: Path) -> None:
    config = configuration((DEPLOY / "ingest.toml").read_text(), tmp_path)
    settings = unit()
    assert settings["Type"] == "notify"
    assert int(settings["TimeoutStopSec"]) > config.shutdown.grace_seconds + 1
    memory = int(settings["MemoryMax"].removesuffix("M")) << 20
    assert memory >= config.limits.held_bytes + BESIDE_THE_BUDGET + IDLE


def test_what_the_unit_starts_is_a_command_of_ours() -> None:
    program, *arguments = shlex.split(unit()["ExecStart"])
    assert Path(program).name == "ingest"
    done = subprocess.run(
        [sys.executable, "-m", "ingest", *arguments, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_pod_is_given_the_time_and_memory_that_its_configuration_takes(tmp_path: Path) -> None:
    config = configuration(manifest("ConfigMap")["data"]["ingest.toml"], tmp_path)
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > config.shutdown.grace_seconds + 1
    memory = int(container["resources"]["limits"]["memory"].removesuffix("Mi")) << 20
    assert memory >= config.limits.held_bytes + BESIDE_THE_BUDGET + IDLE


def test_the_probes_ask_the_management_port(tmp_path: Path) -> None:
    config = configuration(manifest("ConfigMap")["data"]["ingest.toml"], tmp_path)
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": config.http.port, "management": config.management.port}
    assert config.http.host == config.management.host == "0.0.0.0"
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "management"}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(container["args"][-1]).parent) in mounts


def test_the_service_and_its_budget_find_the_pods() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels


def test_the_dockerfile_copies_what_is_there_and_serves_on_the_ports_it_names() -> None:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    instructions = [line.split(" ", 1) for line in text.splitlines() if line]
    assert {name for name, _ in instructions} <= {
        "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
        "ENTRYPOINT", "CMD",
    }  # fmt: skip
    for arguments in (
        rest for name, rest in instructions if name == "COPY" and not rest.startswith("--from")
    ):
        *sources, _ = arguments.split()
        assert all((ROOT / source).exists() for source in sources)
    (exposed,) = (rest.split() for name, rest in instructions if name == "EXPOSE")
    config = ingest.Config()
    assert exposed == [str(config.http.port), str(config.management.port)]
    environ = dict(pair.split("=", 1) for pair in shlex.split(dict(instructions)["ENV"]))
    load(None, {name: value for name, value in environ.items() if name.startswith("INGEST_")}, {})


def test_the_alerts_speak_of_metrics_that_there_are() -> None:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    page = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    names = {metric.name for metric in METRICS}
    for rule in group["rules"]:
        asked = re.findall(r"\bingest_\w+", rule["expr"])
        assert asked
        assert {re.sub(r"_bucket$", "", name) for name in asked} <= names, rule["alert"]
        assert f"| `{rule['alert']}` |" in page
