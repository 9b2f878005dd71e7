"""Results as Markdown: one table a subject, each contestant beside ``durable_log``, each bar and whether it is met.

Law of this room: results in, text out. A row that is lost says so; so does a contestant that did not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.bars import BARS, LIMITS, Bar
from benchmarks.contest import OURS
from benchmarks.results import Row, Subject, ratio

DOCS = "../../docs/benchmarks.md"
SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Verdict(NamedTuple):
    """A bar, and what there is of it: ``reached`` is None if the row that it is about was not measured."""

    bar: Bar
    reached: float | None

    @property
    def met(self) -> bool:
        """Whether it is; what was not measured is not."""
        if self.reached is None:
            return False
        return self.reached <= self.bar.limit if self.bar.at_most else self.reached >= self.bar.limit


def judge(subject: Subject, bars: Iterable[Bar]) -> list[Verdict]:
    """All bars of a subject."""
    return [Verdict(bar, _reached(subject, bar)) for bar in bars if bar.subject == subject.name]


def _reached(subject: Subject, bar: Bar) -> float | None:
    ours = subject.row(bar.case)
    if ours is None:
        return None
    if bar.peer is None:
        return ours.value
    theirs = subject.row(bar.peer_case or bar.case, bar.peer)
    return None if theirs is None else ratio(ours, theirs)


def amount(value: float, unit: str) -> str:
    """A figure with its unit, in digits that mean something."""
    if unit in ("bytes", "bytes/s"):
        for scale, letter in SCALES:
            if value >= scale:
                return f"{value / scale:.3g} {letter}B{unit.removeprefix('bytes')}"
    return f"{digits(value)} {unit}"


def digits(value: float) -> str:
    """A number in three digits or more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(subject: Subject, bars: Iterable[Bar] = BARS) -> Iterator[str]:
    """The lines of a subject's table."""
    verdicts = judge(subject, bars)
    yield f"| case | contestant | median | passes from – to | {OURS} ÷ it | bar | |"
    yield "|---|---|---|---|---|---|---|"
    for case in dict.fromkeys(row.case for row in subject.rows):
        shown = case
        for row in sorted((row for row in subject.rows if row.case == case), key=lambda row: row.contestant != OURS):
            told = [verdict for verdict in verdicts if _is_told_at(verdict.bar, row, subject)]
            yield _line(shown, row, subject.ours(row), told, enough(verdicts))
            shown = ""
    for absent in subject.absent:
        reason = absent["reason"].replace("|", "\\|")
        yield f"| | {absent['contestant']} | not run: {reason} | | | | |"
    for verdict in verdicts:
        if verdict.reached is None:
            yield f"| {verdict.bar.case} | | | | | {bar_text(verdict.bar, '')} | not measured |"


def _is_told_at(bar: Bar, row: Row, subject: Subject) -> bool:
    """A bar stands beside its peer, or beside ours if there is none in that case."""
    if row is not subject.row(row.case, row.contestant) or row.case != bar.case:
        return False
    return row.contestant == (OURS if bar.peer is None or bar.peer_case is not None else bar.peer)


def enough(verdicts: list[Verdict]) -> set[str]:
    """The alternatives of which one is met."""
    return {verdict.bar.either for verdict in verdicts if verdict.bar.either and verdict.met}


def said(verdict: Verdict, known: set[str], docs: str) -> str:
    """Whether the bar is met, by itself or by what is ``enough`` instead; if not, where in ``docs`` it is told why."""
    if verdict.met or verdict.bar.either in known:
        return "met"
    return f"**not met** ([why]({docs}#{verdict.bar.why}))" if verdict.bar.why else "**not met**"


def _line(case: str, row: Row, ours: Row | None, verdicts: list[Verdict], known: set[str]) -> str:
    spread = f"{digits(min(row.medians))} – {digits(max(row.medians))}"
    beside = None if ours is None or ours is row else ratio(ours, row)
    cells = [
        case,
        row.contestant if row.contestant != OURS else f"**{OURS}**",
        amount(row.value, row.unit),
        spread if len(row.passes) > 1 else "one pass",
        "" if beside is None else f"{beside:.3g}",
        "; ".join(_told(verdict, row.unit) for verdict in verdicts),
        _outcome(row, beside, verdicts, known),
    ]
    return f"| {' | '.join(cells)} |"


def _told(verdict: Verdict, unit: str) -> str:
    """The bar, and what was reached where no other cell says so."""
    if verdict.bar.peer_case is None or verdict.reached is None:
        return bar_text(verdict.bar, unit)
    return f"{bar_text(verdict.bar, unit)}: {verdict.reached:.3g}"


def bar_text(bar: Bar, unit: str) -> str:
    """What has to be reached."""
    sign = "≤" if bar.at_most else "≥"
    either = " or the other" if bar.either else ""
    if bar.peer is None:
        return f"{sign} {amount(bar.limit, unit).strip()}{either}"
    return f"{sign} {bar.limit:g} × {bar.peer}" + (f" ({bar.peer_case})" if bar.peer_case else "") + either


def _outcome(row: Row, beside: float | None, verdicts: list[Verdict], known: set[str]) -> str:
    if verdicts:
        return min(said(verdict, known, DOCS) for verdict in verdicts)  # "**not met**" comes first
    if row.contestant in LIMITS:
        return "the limit"
    lost = beside is not None and (beside > 1 if row.better == "less" else beside < 1)
    return "lost" if lost and not row.contestant.startswith(OURS) else ""


def page(subjects: dict[str, Subject], bars: Iterable[Bar] = BARS) -> str:
    """All tables, with what they were measured on and by which command."""
    lines = [
        "# Results",
        "",
        "Written by `make bench`; how to read it: [docs/benchmarks.md](../../docs/benchmarks.md).",
        "",
    ]
    for subject in subjects.values():
        lines += [f"## {subject.name}", "", *_origin(subject), "", *table(subject, bars), ""]
        for name, contestant in sorted(subject.contestants.items()):
            lines.append(f"- {name}: {contestant['version']}; {contestant['how']}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _origin(subject: Subject) -> Iterator[str]:
    origin, machine = subject.origin, subject.origin["machine"]
    yield f"`{origin['command']}`, passes: {origin['passes']}, revision {origin['revision']}, {origin['date']};"
    yield f"{machine['processor']}, {machine['cores']} cores, {machine['system']},"
    yield f"{machine['file_system']}, {machine['python']}."
