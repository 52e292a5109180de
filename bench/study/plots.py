"""The plots: rates by phase, times against the rate, each change's worth, seconds of a long load, storms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.study import plan
from bench.study.figures import survives
from bench.study.findings import Findings, Hold, Storm
from bench.study.report import ratio

COLOURS = {
    "ingest": "#1f6f8b", "tokio-hyper": "#d08c60", "tokio-tcp": "#b5563c", "uring-tcp": "#7a4988",
    "glommio-tcp": "#5b8c5a", "go-franz": "#8a8d91",
}  # fmt: skip
BOUND_MS = 50


def draw(findings: Findings, folder: Path) -> list[Path]:
    """Write each plot that there is something for; which ones."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same findings give the same files.
    mpl.rcParams.update({"svg.hashsalt": "ingest", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (fill, size) in PLOTS.items():
        figure, axis = pyplot.subplots(figsize=size, layout="constrained")
        if fill(findings, axis):
            axis.spines[["top", "right"]].set_visible(False)
            path = folder / f"study-{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            written.append(path)
        pyplot.close(figure)
    return written


def _colour(system: str) -> str:
    return COLOURS.get(system, "#b8c4cc")


def phases(findings: Findings, axis: Any) -> bool:
    """Requests/s of each system in both phases."""
    second = plan.phase_2(findings.settings["open_files_many"])
    systems = [name for name in findings.systems() if findings.median(name, plan.PHASE_1)]
    for number, (case, alpha, label) in enumerate(((plan.PHASE_1, 0.5, "phase 1"), (second, 1.0, "phase 2"))):
        for place, name in enumerate(systems):
            found = findings.spread(name, case)
            if found is not None:
                error = [[found.median - found.least], [found.most - found.median]]
                where = place + (number - 0.5) * 0.38
                axis.bar(where, found.median, 0.36, yerr=error, color=_colour(name), alpha=alpha, capsize=2)
                axis.annotate(label, (where, 0), (0, 3), textcoords="offset points", ha="center", fontsize=6)
    axis.set_xticks(range(len(systems)), systems)
    axis.set_ylabel("requests/s")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return bool(systems)


def curves(findings: Findings, axis: Any) -> bool:
    """The 99th percentile of the times of answers against the constant rate."""
    holds: list[Hold] = findings.of(Hold)
    for hold in holds:
        trials = [*hold.trials, *([hold.held] if hold.held else [])]
        points = sorted((trial.per_second, trial.p99_us / 1000) for trial in trials if trial.answered)
        axis.plot(*zip(*points, strict=True), marker="o", ms=3, label=hold.system, color=_colour(hold.system))
    axis.axhline(BOUND_MS, lw=0.8, ls="--", color="#555555")
    axis.set_yscale("log")
    axis.set_xlabel("requests/s asked for")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_ylabel("p99, ms, from when each was due")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if holds:
        axis.legend(frameon=False)
    return bool(holds)


def factors(findings: Findings, axis: Any) -> bool:
    """What each change is worth, as a ratio to phase 1."""
    systems = [name for name in findings.systems() if findings.median(name, plan.PHASE_1)]
    named = plan.factors(findings.settings["open_files_many"])
    shown = [what for what, case in named.items() if any(ratio(findings, name, case) for name in systems)]
    height = 0.8 / max(1, len(systems))
    for number, name in enumerate(systems):
        worth = [ratio(findings, name, named[what]) or 0.0 for what in shown]
        places = [place + (number - (len(systems) - 1) / 2) * height for place in range(len(shown))]
        axis.barh(places, worth, height * 0.9, label=name, color=_colour(name))
    axis.axvline(1, lw=0.8, color="#555555")
    axis.set_yticks(range(len(shown)), shown)
    axis.invert_yaxis()
    axis.set_xlabel("× the rate of phase 1")
    if shown:
        axis.legend(frameon=False)
    return bool(shown)


def seconds(findings: Findings, axis: Any) -> bool:
    """Answers in each second of the highest constant rate, as a share of that rate."""
    holds = [hold for hold in findings.of(Hold) if hold.held]
    for hold in holds:
        share = [count / hold.held.per_second for count in hold.seconds]
        axis.plot(range(1, len(share) + 1), share, label=hold.system, color=_colour(hold.system))
    axis.set_ylim(bottom=0)
    axis.set_xlabel("second")
    axis.set_ylabel("answers, as a share of the rate")
    if holds:
        axis.legend(frameon=False)
    return bool(holds)


def storms(findings: Findings, axis: Any) -> bool:
    """Seconds until each system had recovered from each storm."""
    found: list[Storm] = [storm for storm in findings.of(Storm) if not storm.options]
    kinds = list(dict.fromkeys((storm.kind, storm.open_files) for storm in found))
    systems = list(dict.fromkeys(storm.system for storm in found))
    for storm in found:
        place, row = systems.index(storm.system), kinds.index((storm.kind, storm.open_files))
        seconds = storm.recovered_seconds
        colour = "#5b8c5a" if survives(storm) else "#d08c60" if seconds is not None else "#a33a3a"
        axis.scatter(place, row, s=420, marker="s", color=colour, alpha=0.85)
        word = "ended" if storm.died else "never" if seconds is None else f"{seconds:.1f} s"
        axis.annotate(word, (place, row), ha="center", va="center", color="white", fontsize=6)
    axis.set_xticks(range(len(systems)), systems)
    axis.set_yticks(range(len(kinds)), [f"{kind}, ulimit -n {files:,}" for kind, files in kinds])
    axis.set_xlim(-0.5, max(0.5, len(systems) - 0.5))
    axis.set_ylim(max(1, len(kinds)) - 0.5, -0.5)
    return bool(found)


PLOTS: dict[str, tuple[Callable[[Findings, Any], bool], tuple[float, float]]] = {
    "phases": (phases, (8, 3)),
    "curves": (curves, (8, 3.4)),
    "factors": (factors, (8, 5)),
    "seconds": (seconds, (8, 2.6)),
    "storms": (storms, (8, 4.4)),
}
"""Each by its name in the page, with its size in inches."""
