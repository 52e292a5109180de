"""The study: the systems that the project came from, side by side in one run, in phases, factors and storms.

nox -s study -- --quick
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import results
from bench.brokers import BROKERS, Broker, version
from bench.check import CheckFailed
from bench.link import LinkMissing
from bench.load import LoadFailed, WrkMissing, find_wrk
from bench.native import NotBuilt
from bench.processes import Cores, cores
from bench.study import findings as kept
from bench.study import plan, plots, report
from bench.study.findings import Checked, Failed, Findings
from bench.study.runs import PUBLISHED, walk_ns
from bench.study.steps import Step, steps
from bench.systems import SYSTEMS, NotStarted
from tests.broker.kafka_server import KafkaFailed, KafkaMissing

FOLDER = results.ROOT / "build" / "study"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="nox -s study --", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="every part once and for short: to see that it works; no page")
    add(
        "--systems", help=f"separated by commas; of {', '.join(plan.SYSTEMS)}", default=",".join(plan.SYSTEMS)
    )
    add("--only", metavar="WORD", default="", help="steps that have it in their names; no page")
    add("--afresh", action="store_true", help="begin anew, where a run was cut")
    add(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="measure nothing: make the page of these findings",
    )
    found = parser.parse_args(given)
    found.systems = found.systems.split(",")
    unknown = [name for name in found.systems if name not in (*plan.SYSTEMS, *SYSTEMS)]
    if unknown:
        parser.error(f"{unknown[0]}: no such system")
    return found


def main() -> None:
    """Measure, go on, or read; and write the page, unless it was quick."""
    given = arguments()
    # So that what was started is ended, too; by Trio's own handler, where Trio runs.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    if given.source:
        _publish(kept.read(given.source), given.source)
        return
    try:
        find_wrk()
    except WrkMissing as missing:
        sys.exit(f"study: {missing}")
    pace = plan.quick() if given.quick else plan.full()
    path = FOLDER / f"{re.sub(r'[^a-z0-9]+', '-', f'{pace.name} {given.only}'.strip())}.json"
    found = _begin(path, pace, given.systems, afresh=given.afresh)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    cut = False
    try:
        wanted = steps(pace, [name for name in given.systems if name in SYSTEMS])
        run(found, path, [step for step in wanted if given.only in step.key])
    except* KeyboardInterrupt:  # alone, or in a group where it came to a task
        cut = True
    if cut:
        sys.exit(f"study: cut; `nox -s study` goes on from {path}")
    found.settings |= {"finished": results.now(), **_walked("walk_ns_after")}
    found.write(path)
    if given.quick or given.only:
        plots.draw(found, FOLDER)
        print(report.markdown(found))
        print(f"study: no page is written; findings: {path}, plots beside it", file=sys.stderr)
        sys.exit(broken(found))
    source = found.write(PUBLISHED / f"{found.date.replace(':', '')}.json")
    _publish(found, source)


def broken(found: Findings) -> str | None:
    """What a run that shows its workings has to fail for: a step that did, or nothing about ours."""
    failed = [f"{step.what}: {step.reason}" for step in found.of(Failed)]
    if plan.OURS in found.left_out:
        failed.append(f"{plan.OURS} is left out: {found.left_out[plan.OURS]}")
    return "study: " + "; ".join(failed) if failed else None


def _publish(found: Findings, source: Path) -> None:
    plots.draw(found, report.PAGE.parent)
    report.write(found, source.resolve())
    print(f"study: {report.PAGE}, from {source}", file=sys.stderr)


def _begin(path: Path, pace: plan.Pace, systems: list[str], *, afresh: bool) -> Findings:
    """A new run, or the one that was cut, where that was the same one."""
    commit = results.commit()
    settings = {
        "pace": pace.name,
        "systems": systems,
        "seconds": pace.seconds,
        "rounds": pace.rounds,
        "phase_rounds": pace.phase_rounds,
        "open_files_many": plan.files_many(),
    }
    if path.exists() and not afresh:
        try:
            found = kept.read(path)
        except (msgspec.ValidationError, msgspec.DecodeError):
            found = None
        same = found is not None and {name: found.settings.get(name) for name in settings} == settings
        if found is not None and same and found.commit == commit and "finished" not in found.settings:
            _say(f"going on from {path}: {len(found.steps)} steps are done")
            return found
    settings |= {
        "load_average_before": os.getloadavg()[0],
        "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "ephemeral_ports": Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split(),
        "tcp_tw_reuse": Path("/proc/sys/net/ipv4/tcp_tw_reuse").read_text().strip(),
        **_walked("walk_ns_before"),
    }
    left_out = {name: "not in bench/systems.py" for name in systems if name not in SYSTEMS}
    versions = results.versions() | results.pinned_versions()
    return Findings(results.now(), commit, results.machine(), versions, settings, left_out)


def _walked(name: str) -> dict[str, float]:
    """What `walk_ns` finds, as a setting; none where there is no compiler."""
    try:
        return {name: walk_ns()}
    except NotBuilt as error:
        _say(f"memory is not looked at: {error}")
        return {}


def run(found: Findings, path: Path, wanted: Sequence[Step]) -> None:
    """Every step that is not done yet; what it finds is written as soon as it is found."""
    where = cores(pinned=len(os.sched_getaffinity(0)) > 1)
    os.sched_setaffinity(0, where.others)  # this program looks on from where the load is
    begun, done = time.monotonic(), 0
    todo = [step for step in wanted if step.key not in found.steps]
    for name, group in itertools.groupby(todo, key=lambda step: step.broker):
        of_broker = list(group)
        try:
            with BROKERS[name](where.others) as broker:
                found.versions[f"broker {name}"] = version(name)
                for step in of_broker:
                    done += 1
                    if step.system in found.left_out:
                        continue
                    took = time.monotonic() - begun
                    _say(f"{took:5.0f} s  {done}/{len(todo)}  {step.key}")
                    _one(found, step, broker, where)
                    found.write(path)
        except (KafkaMissing, KafkaFailed, LinkMissing) as missing:
            found.left_out[name] = str(missing).splitlines()[0]
            _say(f"  {name} is left out: {missing}")
            found.write(path)


def _one(found: Findings, step: Step, broker: Broker, where: Cores) -> None:
    try:
        results_of_step = step.find(broker, where)
    except NotStarted as error:
        if any(isinstance(each, Checked) and each.system == step.system for each in found.steps.values()):
            found.steps[step.key] = Failed(step.system, step.key, str(error))
        else:
            found.left_out[step.system] = str(error)
        _say(f"  {error}")
    except CheckFailed as error:
        found.left_out[step.system] = f"does not keep its promise: {error}"
        _say(f"  {error}")
    except (LoadFailed, NotBuilt, LinkMissing) as error:
        found.steps[step.key] = Failed(step.system, step.key, str(error))
        _say(f"  failed: {error}")
    else:
        for number, finding in enumerate(results_of_step):
            found.steps[step.key if number == 0 else f"{step.key}/{number}"] = finding
            _say(f"  {report.line(finding)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
