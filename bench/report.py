"""Results as Markdown: the figures to reach, and a table for each case; and its place in the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.cases import RECORD, Case
from bench.figures import CPU, RECORDS, judge
from bench.results import QUIET, ROOT, Metrics, Results, Spread
from bench.systems import BEFORE

PAGE = ROOT / "docs" / "explanation" / "performance.md"
PLOT = PAGE.with_name("performance.svg")
BEGIN, END = "<!-- the figures: written by nox -s bench -- --write -->\n", "<!-- the figures end -->"
BEGIN_CHANGES = "<!-- what changes brought: written by nox -s bench -- --before FOLDER --write -->\n"
END_CHANGES = "<!-- what changes brought ends -->"
REFERENCE = "ingest"


def markdown(results: Results) -> str:
    """Everything that a run has to say."""
    parts = [_origin(results), _figures(results)]
    parts += [
        f"### {str(case)[0].upper()}{str(case)[1:]}\n\n{_table(results, case)}" for case in results.cases()
    ]
    return "\n\n".join(parts) + "\n"


def write(results: Results, source: Path, page: Path = PAGE) -> None:
    """Put it between the page's markers, with the plot; `source` is the file that it was made of."""
    plot = f"![Requests a second of each system, in each case]({PLOT.name})"
    made = f"Made of `{source.relative_to(ROOT)}`."
    put(page, BEGIN, f"{made}\n\n{plot}\n\n{markdown(results)}", END)


def write_changes(runs: Sequence[tuple[Path, Results]], page: Path = PAGE) -> None:
    """Put between the other markers what changes have brought: a table of each run with `--before`."""
    parts = []
    for source, results in runs:
        earlier = results.settings["before"]
        rows = [
            (
                str(case),
                *(
                    f"{_ratio(results.spread(case, REFERENCE, of), results.spread(case, BEFORE, of))} ×"
                    for of in (RECORDS.of, CPU.of)
                ),
            )
            for case in results.cases()
        ]
        heading = (f"Against {earlier}", "Rate", "CPU")
        origin = f"Made of `{source.relative_to(ROOT)}`. {_origin(results)}"
        parts.append(f"{grid(heading, rows)}\n\n{origin}")
    put(page, BEGIN_CHANGES, "\n\n".join(parts) + "\n", END_CHANGES)


def put(page: Path, begin: str, text: str, end: str) -> None:
    """Write the text between two markers of a page.  Raises ValueError where they are not there."""
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page} has no markers to write between")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _origin(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    rounds, seconds = results.settings["rounds"], results.settings["seconds"]
    lines = [
        f"{results.date}, commit {results.commit}, on {results.machine}.",
        f"Medians of {rounds} interleaved rounds of {seconds:g} seconds, with the least and the most.",
        f"Brokers: {', '.join(results.brokers.values())}. {versions}.",
    ]
    load_average = results.settings["load_average_before"]
    lines += [f"Not alone on the machine: the load average was {load_average:.1f}."] * (load_average > QUIET)
    lines += [f"Left out: {name} ({reason})." for name, reason in results.left_out.items()]
    return "\n".join(lines)


def _figures(results: Results) -> str:
    rows = [
        (
            verdict.figure.what,
            f"{verdict.figure.system} / {verdict.figure.against}",
            f"{verdict.figure.metric.name} {verdict.figure.limit}",
            results.brokers[verdict.broker],
            f"{verdict.ratio:.2f} ×" if verdict.ratio is not None else "",
            verdict.word,
        )
        for verdict in judge(results)
    ]
    return grid(("What", "Of", "To reach", "Broker", "Measured", ""), rows)


def _table(results: Results, case: Case) -> str:
    lines = case.content != RECORD
    heading = (
        "System",
        "Records/s" if lines else "Requests/s",
        f"To {REFERENCE}",
        "p50, ms",
        "p99, ms",
        "p99.9, ms",
        "CPU a request, µs: user",
        "system",
        "Memory, MB",
        "Load and broker, cores",
    )
    rows = []
    for system in results.systems(case):
        failure = results.failure(case, system)
        if failure:
            rows.append((system, f"failed: {failure}", *("" for _ in heading[2:])))
            continue

        def cell(
            metric: Callable[[Metrics], float | None], digits: int, scale: float = 1, system: str = system
        ) -> str:
            return shown(results.spread(case, system, metric), digits, scale)

        rows.append(
            (
                system,
                cell(RECORDS.of, 0),
                _ratio(results.spread(case, system, RECORDS.of), results.spread(case, REFERENCE, RECORDS.of)),
                cell(lambda metrics: metrics.p50_us, 2, 1e-3),
                cell(lambda metrics: metrics.p99_us, 2, 1e-3),
                cell(lambda metrics: metrics.p999_us, 2, 1e-3),
                cell(lambda metrics: metrics.user_us, 1),
                cell(lambda metrics: metrics.system_us, 1),
                cell(lambda metrics: metrics.resident_bytes, 0, 1e-6),
                cell(lambda metrics: metrics.others_busy, 2),
            )
        )
    return grid(heading, rows)


def shown(spread: Spread | None, digits: int, scale: float = 1) -> str:
    """The median, with the least and the most where these differ; "" of nothing."""
    if spread is None:
        return ""
    median, least, most = (f"{value * scale:,.{digits}f}" for value in spread)
    return median if least == most else f"{median} ({least}–{most})"


def _ratio(spread: Spread | None, reference: Spread | None) -> str:
    if spread is None or reference is None:
        return ""
    return f"{spread.median / reference.median:.2f}"


def grid(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [heading, tuple("---" for _ in heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
