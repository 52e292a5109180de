"""The study: every system in turn, on the same machine, with the same broker and the same load.

nox -s bench -- --quick
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import plot, report, results
from bench.brokers import BROKERS, version
from bench.cases import PLAN, Case, grid, plan
from bench.figures import judge
from bench.load import WrkMissing
from bench.rounds import Run
from bench.systems import BEFORE, LOOPS, SYSTEMS, before
from tests.broker.kafka_server import KafkaMissing

QUICK = {"rounds": 1, "seconds": 2.0}
ROUNDS, SECONDS = 5, 6.0


def _list_of(among: Sequence[str] = ()) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = text.split(",")
        unknown = [name for name in found if among and name not in among]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]}: one or more of {', '.join(among)}")
        return found

    return names


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    everything = [*SYSTEMS, *LOOPS]
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of two seconds: to see that it works, not to quote")
    add("--rounds", type=int, help=f"interleaved rounds ({ROUNDS})")
    add("--seconds", type=float, help=f"of each measurement, after one of warming up ({SECONDS:g})")
    add("--systems", type=_list_of(everything), default=everything, help=f"of {', '.join(everything)}")
    add("--brokers", type=_list_of([*BROKERS]), default=["mock"], help=f"of {', '.join(BROKERS)} (mock)")
    add("--plan", type=_list_of([*PLAN]), default=[*PLAN], help=f"of {', '.join(PLAN)} (all)")
    add(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="another checkout of ingest, which takes part as a system",
    )
    add("--content-type", default="", help="send it with each record, which ingest then stores as a header")
    add("--unpinned", action="store_true", help="the grid without pinning to cores")
    axes = parser.add_argument_group("a grid in place of the plan: every combination of")
    axes.add_argument("--promises", type=_list_of(["delivered", "queued"]))
    axes.add_argument("--connections", type=_numbers)
    axes.add_argument("--sizes", type=_numbers, help="bytes of a record")
    axes.add_argument("--lingers", type=_numbers, help="linger.ms")
    axes.add_argument("--batch-bytes", type=_numbers, help="batch.size")
    add("--write", action="store_true", help="keep the results, and write the page and the plot made of them")
    add("--from", dest="source", type=Path, metavar="FILE", help="measure nothing: take a file of results")
    return parser.parse_args(given)


def cases_of(given: argparse.Namespace) -> list[Case]:
    """The plan, or a grid where one of its axes is named."""
    axes = (given.promises, given.connections, given.sizes, given.lingers, given.batch_bytes)
    if not any(axes) and not given.unpinned:
        return plan(given.plan, given.brokers)
    return grid(
        given.promises or ["delivered"],
        given.connections or [64],
        given.sizes or [200],
        given.lingers or [1],
        given.batch_bytes or [1_000_000],
        given.brokers,
        pinned=not given.unpinned,
    )


def measure(given: argparse.Namespace) -> Path:
    """Measure, and return the file with the results."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for thousands of connections
    rounds = given.rounds or (QUICK["rounds"] if given.quick else ROUNDS)
    seconds = given.seconds or (QUICK["seconds"] if given.quick else SECONDS)
    date = results.now()
    load_average = os.getloadavg()[0]
    if load_average > results.QUIET:
        print(f"bench: not alone here: the load average is {load_average:.1f}", file=sys.stderr)
    run = Run(
        rounds=int(rounds),
        seconds=seconds,
        content_type=given.content_type,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    systems = given.systems
    if given.before is not None:
        SYSTEMS[BEFORE] = before(given.before)
        systems = [BEFORE, *systems]
    try:
        run.measure(cases_of(given), systems)
    finally:
        # What an interrupted run has measured is measured.
        path = results.Results(
            date=date,
            commit=results.commit(),
            machine=results.machine(),
            brokers={broker: version(broker) for broker in given.brokers},
            versions=results.versions(),
            settings={
                "rounds": rounds,
                "seconds": seconds,
                "content_type": given.content_type,
                "load_average_before": load_average,
                **({} if given.before is None else {"before": results.commit(given.before)}),
            },
            checks=run.checks,
            left_out=run.left_out,
            measurements=run.measurements,
        ).write()
    return path


def main() -> None:
    """Measure or read, print, and write the page where asked to."""
    given = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended, too
    try:
        path = given.source or measure(given)
    except (WrkMissing, KafkaMissing) as missing:
        sys.exit(f"bench: {missing}")
    except KeyboardInterrupt:
        sys.exit(f"bench: interrupted; what was measured is in {results.FOLDER}")
    found = results.read(path)
    print(report.markdown(found))
    print(f"results: {path}", file=sys.stderr)
    if given.write and "before" in found.settings:
        found.write(results.PUBLISHED)
        report.write_changes(results.with_before(results.PUBLISHED))
    elif given.write:
        plot.draw(found, report.PLOT)
        report.write(found, found.write(results.PUBLISHED))
    verdicts = judge(found)
    words = [verdict.word for verdict in verdicts]
    counted = ", ".join(f"{words.count(word)} {word}" for word in ("reached", "missed", "not measured"))
    print(f"figures: {counted}", file=sys.stderr)


if __name__ == "__main__":
    main()
