"""What the study makes of what it measured; the measuring itself is `nox -s bench`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import pytest

from bench import load, report, results, systems
from bench.__main__ import arguments, cases_of
from bench.brokers import Place, Target
from bench.cases import KEYED, LINES, Case, plan
from bench.check import Answered, CheckFailed, hold
from bench.figures import CPU, FIGURES, P50, REQUESTS, Figure, Metric, judge
from bench.load import LoadFailed
from bench.results import Measurement, Metrics, Results
from bench.systems import BEFORE, SYSTEMS, NotStarted, System, before, serving
from tests.client import Answer

COUNTED = {
    "requests": 1000, "microseconds": 2_000_000,
    "connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0,
    "p50": 900, "p99": 3000, "p999": 7000, "most": 9000,
}  # fmt: skip
DELIVERED = Case()
LINGER_0 = Case(linger_ms=0)


def wrk(**changes: int) -> str:
    return f"Running 2s test @ http://127.0.0.1:1/\n  1 threads\n{json.dumps(COUNTED | changes)}\n"


def metrics(rate: float, cpu: float = 20.0) -> Metrics:
    return Metrics(rate, rate, 1000, 2000, 3000, cpu * 0.75, cpu * 0.25, 50_000_000, 0.5)


def results_of(*measurements: Measurement, brokers: tuple[str, ...] = ("mock",)) -> Results:
    return Results(
        date="2000-01-01T00:00:00Z",
        commit="abc",
        machine="a machine",
        brokers={broker: broker for broker in brokers},
        versions={"CPython": "3"},
        settings={"rounds": 3, "seconds": 2.0, "content_type": "", "load_average_before": 0.1},
        checks=[],
        left_out={},
        measurements=list(measurements),
    )


def rounds(case: Case, system: str, *rates: float, cpu: float = 20.0) -> list[Measurement]:
    return [Measurement(case, system, number, metrics(rate, cpu)) for number, rate in enumerate(rates)]


def test_another_checkout_is_another_system(tmp_path: Path) -> None:
    assert arguments(["--before", str(tmp_path)]).before == tmp_path
    place = Target("127.0.0.1:9", "t", 1)
    command = before(tmp_path).command(DELIVERED, place, 80, tmp_path)
    assert command[:2] == ["env", f"PYTHONPATH={tmp_path}"]
    assert command[3:6] == ["-P", "-m", "ingest"]


BUILT = ["tokio-hyper", "tokio-tcp", "uring-tcp", "glommio-tcp", "go-franz"]
CORES = frozenset(os.sched_getaffinity(0))
ANSWERING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(202)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_system_listens_where_no_outgoing_connection_takes_its_port(tmp_path: Path) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    system = System(
        "any", lambda _case, _target, port, _folder: [sys.executable, "-c", ANSWERING, str(port)], bool
    )
    with serving(system, DELIVERED, Target("127.0.0.1:9", "t", 1), CORES, tmp_path) as server:
        assert server.port < lowest


@pytest.mark.parametrize("name", BUILT)
def test_a_peer_that_was_not_built_says_who_builds_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "BUILT", tmp_path)
    with (
        pytest.raises(NotStarted, match="nox -s peers"),
        serving(SYSTEMS[name], DELIVERED, Target("127.0.0.1:9", "t", 1), CORES, tmp_path),
    ):
        pass


@pytest.mark.parametrize("name", BUILT)
def test_a_peer_gets_the_settings_of_the_case_and_the_last_word(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "BUILT", tmp_path)
    for folder in ("rust/release", "go"):
        program = tmp_path / folder / name
        program.parent.mkdir(parents=True)
        program.write_text('#!/bin/sh\necho "$@"\nexit 1\n')
        program.chmod(0o755)
    case = Case("queued", linger_ms=7, batch_bytes=99)
    words = "--brokers=127.0.0.1:9 --topic=t --promise=queued --linger-ms=7 --batch-bytes=99"
    with (
        pytest.raises(NotStarted, match=rf"ended with 1: --port=\d+ {words}$"),
        serving(SYSTEMS[name], case, Target("127.0.0.1:9", "t", 1), CORES, tmp_path),
    ):
        pass


def test_what_wrk_counted_is_read() -> None:
    assert load.parse(wrk()) == load.Load(1000, 2.0, 900, 3000, 7000)


@pytest.mark.parametrize("wrong", ["connect", "read", "write", "status", "timeout"])
def test_one_answer_that_is_not_2xx_or_did_not_come_fails_the_run(wrong: str) -> None:
    with pytest.raises(LoadFailed, match=f"{wrong} 1"):
        load.parse(wrk(**{wrong: 1}))


def test_a_run_without_an_answer_or_a_result_fails() -> None:
    with pytest.raises(LoadFailed, match="no request was answered"):
        load.parse(wrk(requests=0))
    with pytest.raises(LoadFailed, match="unable to connect"):
        load.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


@pytest.mark.parametrize("size_bytes", [200, 4096])
def test_contents_have_the_size_that_their_case_says(size_bytes: int) -> None:
    one = load.content(Case(size_bytes=size_bytes))
    assert len(one) == size_bytes
    assert json.loads(one)["id"] == "0"
    lines = load.content(Case(content=KEYED, lines=100, size_bytes=size_bytes)).splitlines()
    assert {len(line) for line in lines} == {size_bytes}
    assert len({json.loads(line)["id"] for line in lines}) == len(lines) == 100


def answered(number: int, status: int = 200, offset: int | None = None) -> Answered:
    receipt = {"topic": "t", "partition": 0, "offset": number if offset is None else offset}
    return [b"%d" % number], Answer(status, {}, json.dumps(receipt).encode())


@pytest.mark.parametrize(
    ("answers", "found", "wrong"),
    [
        ([answered(0), answered(1)], {(0, 0): b"0", (0, 1): b"1"}, ""),
        ([answered(0), answered(1)], {(0, 0): b"0"}, "b'1' is in the topic 0 times"),
        ([answered(0)], {(0, 0): b"0", (1, 0): b"0"}, "b'0' is in the topic 2 times"),
        ([answered(0), answered(1, offset=0)], {(0, 0): b"0", (0, 1): b"1"}, r"b'1' is not at \(0, 0\)"),
        ([answered(0, status=202)], {(0, 0): b"0"}, "answers that are not 200: {202: 1}"),
        ([answered(0), answered(1, status=503)], {(0, 0): b"0"}, "answers that are not 200: {503: 1}"),
    ],
    ids=["all is well", "lost", "twice", "another offset", "another promise", "refused"],
)
def test_a_system_that_does_not_keep_its_promise_is_not_measured(
    answers: list[Answered], found: dict[Place, bytes], wrong: str
) -> None:
    if not wrong:
        hold(DELIVERED, "t", answers, found)
        return
    with pytest.raises(CheckFailed, match=wrong):
        hold(DELIVERED, "t", answers, found)


def test_a_spread_is_the_median_with_the_least_and_the_most() -> None:
    run = results_of(*rounds(DELIVERED, "ingest", 300, 100, 200))
    assert run.spread(DELIVERED, "ingest", REQUESTS.of) == (200, 100, 300)
    assert run.spread(LINGER_0, "ingest", REQUESTS.of) is None


def test_a_system_with_one_failed_round_has_no_figures_in_that_case() -> None:
    run = results_of(
        *rounds(DELIVERED, "ingest", 300, 100), Measurement(DELIVERED, "ingest", 2, None, "status 3")
    )
    assert run.spread(DELIVERED, "ingest", REQUESTS.of) is None
    assert "| ingest | failed: status 3 |" in report.markdown(run)


def test_a_rate_has_to_reach_its_figure_and_a_time_to_stay_within_it() -> None:
    run = results_of(*rounds(DELIVERED, "ingest", 150, cpu=15), *rounds(DELIVERED, "peer", 100, cpu=20))

    def word(metric: Metric, bound: float) -> str:
        figure = Figure("", (DELIVERED,), "ingest", "peer", metric, bound)
        (verdict,) = judge(run, [figure])
        return verdict.word

    assert [word(REQUESTS, 1.5), word(REQUESTS, 1.51)] == ["reached", "missed"]
    assert [word(CPU, 0.75), word(CPU, 0.74)] == ["reached", "missed"]


def test_a_figure_over_several_cases_takes_each_systems_best() -> None:
    run = results_of(
        *rounds(DELIVERED, "ingest", 600), *rounds(DELIVERED, "peer", 100),
        *rounds(LINGER_0, "ingest", 300), *rounds(LINGER_0, "peer", 200),
    )  # fmt: skip
    figure = Figure("", (DELIVERED, LINGER_0), "ingest", "peer", REQUESTS, 3)
    assert [verdict.ratio for verdict in judge(run, [figure])] == [3]


def test_a_figure_is_judged_on_each_broker_and_says_where_it_was_not_measured() -> None:
    kafka = dataclasses.replace(DELIVERED, broker="kafka")
    run = results_of(
        *rounds(DELIVERED, "ingest", 100), *rounds(DELIVERED, "peer", 100), *rounds(kafka, "ingest", 100),
        brokers=("mock", "kafka"),
    )  # fmt: skip
    verdicts = judge(run, [Figure("", (DELIVERED,), "ingest", "peer", P50, 1)])
    assert [(verdict.broker, verdict.word) for verdict in verdicts] == [
        ("mock", "reached"),
        ("kafka", "not measured"),
    ]


def test_the_plan_measures_every_case_that_a_figure_asks_for() -> None:
    planned = plan(["records", "batches", "workers", "alone"], ["mock"])
    assert {case for figure in FIGURES for case in figure.cases} <= set(planned)


def test_axes_on_the_command_line_make_a_grid() -> None:
    cases = cases_of(arguments(["--connections", "1,64", "--lingers", "0,5", "--unpinned"]))
    assert cases == [
        Case(connections=connections, linger_ms=linger, pinned=False)
        for connections in (1, 64)
        for linger in (0, 5)
    ]
    assert cases_of(arguments(["--plan", "workers"])) == [Case(pinned=False)]


def test_the_table_shows_each_system_beside_ingest() -> None:
    run = results_of(*rounds(DELIVERED, "ingest", 900, 1100, 1000), *rounds(DELIVERED, "peer", 500))
    rows = {line.split(" | ")[0]: line.split(" | ") for line in report.markdown(run).splitlines()}
    assert rows["| ingest"][1:4] == ["1,000 (900–1,100)", "1.00", "1.00"]
    assert rows["| peer"][1:3] == ["500", "0.50"]


def test_results_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    case = Case(content=LINES, lines=100)
    run = results_of(*rounds(case, "ingest", 1, 2), Measurement(case, "peer", 0, None, "no answer"))
    assert results.read(run.write(tmp_path)) == run


def test_only_what_is_between_its_markers_is_written_into_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{report.BEGIN}\nold\n\n{report.END}\n\nafter\n")
    run = results_of(*rounds(DELIVERED, "ingest", 1000))
    report.write(run, results.PUBLISHED / "run.json", page)
    written = page.read_text()
    assert written.startswith("before\n\n" + report.BEGIN)
    assert written.endswith(report.END + "\n\nafter\n")
    assert "old" not in written
    assert report.markdown(run) in written
    page.write_text("no markers")
    with pytest.raises(ValueError, match="no markers"):
        report.write(run, results.PUBLISHED / "run.json", page)


def test_what_changes_brought_is_a_ratio_for_each_case(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{report.BEGIN_CHANGES}old\n{report.END_CHANGES}\n")
    measured = [*rounds(DELIVERED, BEFORE, 1000, cpu=40), *rounds(DELIVERED, "ingest", 1500, cpu=20)]
    run = results_of(*measured)
    run.settings["before"] = "abc"
    report.write_changes([(results.PUBLISHED / "run.json", run)], page)
    assert f"| {DELIVERED} | 1.50 × | 0.50 × |" in page.read_text()
    run.write(tmp_path)
    later = dataclasses.replace(run, date="2000-01-02T00:00:00Z")
    later.write(tmp_path)
    dataclasses.replace(run, settings={**run.settings, "before": "abd"}, date="1999").write(tmp_path)
    results_of().write(tmp_path)
    assert [found for _, found in results.with_before(tmp_path)][-1] == later


def test_the_published_page_is_made_of_the_results_that_it_names(tmp_path: Path) -> None:
    text = report.PAGE.read_text()
    assert report.BEGIN in text
    source = re.search(r"Made of `([^`]+)`", text)
    if source is None:
        assert "Not measured yet." in text
        return
    page = tmp_path / "page.md"
    page.write_text(text)
    path = results.ROOT / source[1]
    report.write(results.read(path), path, page)
    report.write_changes(results.with_before(results.PUBLISHED), page)
    assert page.read_text() == text


def test_what_peers_are_made_of_is_read_from_their_manifests() -> None:
    versions = results.pinned_versions()
    assert {"hyper", "tokio", "tokio-uring", "glommio", "rdkafka", "franz-go"} <= versions.keys()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions.values())
