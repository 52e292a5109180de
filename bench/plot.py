"""The plot of a run: for each case with one record a request, every system's rate, least to most."""

from __future__ import annotations

import textwrap
from pathlib import Path

from bench.cases import RECORD
from bench.results import Results

OURS, OTHERS = "#1f6f8b", "#b8c4cc"
PANELS_A_ROW = 2
TITLE_LETTERS = 60


def draw(results: Results, path: Path) -> None:
    """Write the SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same results give the same file.
    mpl.rcParams.update({"svg.hashsalt": "ingest", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot

    cases = [case for case in results.cases() if case.content == RECORD]
    rows = -(-len(cases) // PANELS_A_ROW)
    figure, axes = pyplot.subplots(
        rows, PANELS_A_ROW, figsize=(10, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(cases) :]:
        axis.axis("off")
    for axis, case in zip(axes.flat, cases, strict=False):
        found = {
            system: results.spread(case, system, lambda metrics: metrics.requests_per_second)
            for system in results.systems(case)
        }
        spreads = {system: spread for system, spread in reversed(found.items()) if spread is not None}
        medians = [spread.median for spread in spreads.values()]
        below = [spread.median - spread.least for spread in spreads.values()]
        above = [spread.most - spread.median for spread in spreads.values()]
        colours = [OURS if system.startswith("ingest") else OTHERS for system in spreads]
        axis.barh(
            list(spreads), medians, xerr=[below, above], color=colours, error_kw={"lw": 1, "capsize": 2}
        )
        title = str(case).replace("one record, ", "")
        axis.set_title(textwrap.fill(title, TITLE_LETTERS), fontsize=8, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axis in axes[-1]:
        axis.set_xlabel("requests/s")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
