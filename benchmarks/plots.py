"""Results as pictures: one SVG a plot, with what the machine itself can do as a dashed line.

python -m benchmarks.plots [--results DIR]

Law of this room: it draws what the files of results hold and nothing else, the same bytes for the same results.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, NullFormatter

from benchmarks.bars import LIMITS, RECOVERED
from benchmarks.contest import OURS
from benchmarks.machine import ROOT
from benchmarks.results import Row, Subject, load

STYLE: Any = {"svg.hashsalt": "durable_log", "svg.fonttype": "none", "font.size": 9, "axes.spines.right": False,
         "axes.spines.top": False}  # fmt: skip
DETERMINISTIC = {"Date": None, "Creator": None}
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
MARKERS = "osv^Dx"
LIMIT_COLOUR = "#555555"


class Plot(NamedTuple):
    """The rows of ``subject`` with this unit and one of these ``series``, each at its place on the axis."""

    name: str
    title: str
    subject: str
    unit: str
    along: str
    series: tuple[str, ...] = ("",)


PLOTS = [
    Plot("writers", "Synced appends of 100 B", "concurrent", "appends/s", "writers at once"),
    Plot("cardinality", "Synced appends of 100 B, 1,024 writers", "cardinality", "appends/s", "streams", ("appends",)),
    Plot("recovery", "Opening after a crash", "recovery", "s", "bytes of log", RECOVERED),
    Plot("latency", "Appends of 60 B over HTTP, due on a schedule", "http", "µs", "requests/s", ("p50", "p99")),
    Plot("fan-out", "Deliveries of 1 writer's tokens", "fan_out", "deliveries/s", "viewers", ("viewers",)),
]


def lines(plot: Plot, subject: Subject) -> dict[tuple[str, str], list[Row]]:
    """The rows that are drawn, by contestant and series; ours first, so that it has the first colour."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in subject.rows:
        if row.unit == plot.unit and row.series in plot.series and (row.at is not None or row.contestant in LIMITS):
            found.setdefault((row.contestant, row.series), []).append(row)
    return dict(sorted(found.items(), key=lambda item: item[0][0] != OURS))


def draw(plot: Plot, subject: Subject, path: Path) -> None:
    """One plot."""
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(7, 4), layout="constrained")
        axes = canvas.add_subplot()
        drawn = lines(plot, subject)
        colours = dict(zip(_competitors(drawn), COLOURS * len(drawn), strict=False))
        for (contestant, series), rows in drawn.items():
            label = f"{contestant}, {series}" if series and len(plot.series) > 1 else contestant
            marker = MARKERS[plot.series.index(series) % len(MARKERS)]
            _line(axes, rows, label, colours.get(contestant, LIMIT_COLOUR), marker)
        axes.set(title=plot.title, xlabel=plot.along, ylabel=plot.unit, xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(EngFormatter(sep=""))
            axis.set_minor_formatter(NullFormatter())
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
        canvas.savefig(path, format="svg", metadata=DETERMINISTIC)


def _competitors(drawn: Iterable[tuple[str, str]]) -> list[str]:
    return [name for name in dict.fromkeys(contestant for contestant, _ in drawn) if name not in LIMITS]


def _line(axes: Axes, rows: list[Row], label: str, colour: str, marker: str) -> None:
    """Medians of passes, and between which they lay. A limit without an axis is one everywhere."""
    if rows[0].contestant in LIMITS and len(rows) == 1:
        axes.axhline(rows[0].value, color=colour, linestyle="--", label=label)
        return
    rows = sorted(rows, key=lambda row: row.at or 0)
    places = [row.at or 0 for row in rows]
    style = "--" if rows[0].contestant in LIMITS else "-"
    width = 2.2 if rows[0].contestant == OURS else 1.2
    values = [row.value for row in rows]
    axes.plot(places, values, color=colour, marker=marker, linestyle=style, linewidth=width, label=label)
    low, high = [min(row.medians) for row in rows], [max(row.medians) for row in rows]
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def main() -> None:
    """Draw the results of each machine."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    folder = parser.parse_args().results
    found = sorted(folder.glob("*.json"))
    if not found:
        raise SystemExit(f"no results in {folder}: run make bench")
    for results in found:
        subjects = load(results)
        for plot in PLOTS:
            if plot.subject not in subjects or not lines(plot, subjects[plot.subject]):
                print(f"{results.name} has nothing for {plot.name}: run make bench ONLY={plot.subject}")
                continue
            path = results.with_name(f"{results.stem}-{plot.name}.svg")
            draw(plot, subjects[plot.subject], path)
            print(f"drawn: {path}")


if __name__ == "__main__":
    main()
