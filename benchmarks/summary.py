"""The results for those who have not installed anything yet: every bar, who is ahead where, three pictures.

python -m benchmarks.summary

Law of this room: it writes the part of the README that is between two marks, from the one file of results, and nothing
that is not in there. Rows that are lost are shown as those that are not; only what a picture shows is left to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.bars import BARS, LIMITS, Bar
from benchmarks.contest import OURS
from benchmarks.machine import ROOT
from benchmarks.plots import PLOTS
from benchmarks.results import Row, Subject, load, ratio
from benchmarks.tables import Verdict, amount, bar_text, enough, judge, said

README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
DOCS = "docs/benchmarks.md"
SHOWN = ("writers", "latency", "fan-out")


def bars_table(subjects: dict[str, Subject], bars: Iterable[Bar] = BARS) -> Iterator[str]:
    """Each bar: what was reached, beside what, and whether that is enough."""
    yield f"| what | {OURS} | beside it | | ratio | bar | |"
    yield "|---|---|---|---|---|---|---|"
    bars = list(bars)
    shown = ""
    for name in dict.fromkeys(bar.subject for bar in bars):
        subject = subjects.get(name)
        verdicts = (
            [Verdict(bar, None) for bar in bars if bar.subject == name] if subject is None else judge(subject, bars)
        )
        for verdict in verdicts:
            case = "" if verdict.bar.case == shown else verdict.bar.case
            shown = verdict.bar.case
            yield f"| {' | '.join([case, *_figures(subject, verdict), _outcome(verdict, verdicts)])} |"


def _figures(subject: Subject | None, verdict: Verdict) -> list[str]:
    bar = verdict.bar
    ours = None if subject is None else subject.row(bar.case)
    if subject is None or ours is None:
        return ["", bar.peer or "", "", "", bar_text(bar, "")]
    figure = amount(ours.value, ours.unit)
    if bar.peer is None:
        return [figure, "", "", "", bar_text(bar, ours.unit)]
    theirs = subject.row(bar.peer_case or bar.case, bar.peer)
    beside = "" if theirs is None else amount(theirs.value, theirs.unit)
    reached = "" if verdict.reached is None else f"{verdict.reached:.3g}"
    return [figure, bar.peer, beside, reached, f"{'≤' if bar.at_most else '≥'} {bar.limit:g}"]


def _outcome(verdict: Verdict, verdicts: list[Verdict]) -> str:
    return "not measured" if verdict.reached is None else said(verdict, enough(verdicts), DOCS)


def lost_table(subjects: dict[str, Subject]) -> Iterator[str]:
    """Each case in which somebody is ahead, by how many times."""
    yield "| what | who is ahead, by how many times |"
    yield "|---|---|"
    for subject in subjects.values():
        drawn = {plot.unit for plot in PLOTS if plot.subject == subject.name and plot.name in SHOWN}
        rows = [row for row in subject.rows if row.at is None or row.unit not in drawn]
        for case in dict.fromkeys(row.case for row in rows):
            ahead = sorted(_ahead(subject, [row for row in rows if row.case == case]), reverse=True)
            if ahead:
                yield f"| {case} | {'; '.join(f'{name} {times:.3g}' for times, name in ahead)} |"


def _ahead(subject: Subject, rows: list[Row]) -> Iterator[tuple[float, str]]:
    for row in rows:
        ours = subject.ours(row)
        beside = None if ours is None else ratio(ours, row)
        if beside is None or row.contestant in LIMITS or row.contestant.startswith(OURS):
            continue
        times = beside if row.better == "less" else 1 / beside
        if times > 1:
            yield times, row.contestant


def text(path: Path, bars: Iterable[Bar] = BARS) -> str:
    """What stands between the marks for a file of results."""
    subjects = load(path)
    machine = next(iter(subjects.values())).origin["machine"]
    page = path.with_suffix(".md").relative_to(ROOT)
    pictures = [
        f"![{plot.title}]({path.with_name(f'{path.stem}-{plot.name}.svg').relative_to(ROOT)})"
        for plot in PLOTS
        if plot.name in SHOWN
    ]
    return "\n".join(
        [
            f"Written by `make bench` and `make plots` on a shared virtual machine: {machine['processor']},",
            f"{machine['cores']} cores, {machine['file_system']}, {machine['python']}.",
            "Everybody has the same bytes, and syncs them before it acknowledges an append, but for stores in memory,",
            "which are named as such. Figures are medians of passes, ratios the medians of those within each pass.",
            f"All figures, their spread, dates and versions: [{page}]({page}).",
            "",
            *bars_table(subjects, bars),
            "",
            *pictures,
            "",
            "Where somebody else is ahead, stores in memory among them; what the machine itself does is not counted:",
            "",
            *lost_table(subjects),
            "",
        ]
    )


def placed(page: str, new: str) -> str:
    """The page with that between the marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + new + END + rest.split(END)[1]


def main() -> None:
    """Write the README's part."""
    (results,) = sorted(RESULTS.glob("*.json"))
    README.write_text(placed(README.read_text("utf-8"), text(results)), "utf-8")
    print(f"written: {README}")


if __name__ == "__main__":
    main()
