"""Passes made into one result: for each subject, rows of figures, pass by pass.

Law of this room: what pytest-benchmark wrote goes in, plain values come out; nothing is rounded away but digits that no
clock has. A subject that is measured again replaces itself alone, and says of which code and when it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.contest import OURS, Figure, subject_of

DIGITS = 6


class Row(NamedTuple):
    """A contestant in a case. ``passes``: a value for each round of each pass; a pass that it failed in has none."""

    case: str
    contestant: str
    unit: str
    better: str
    series: str
    at: float | None
    passes: list[list[float]]

    @property
    def medians(self) -> list[float]:
        """Of each pass that it was in."""
        return [median(values) for values in self.passes if values]

    @property
    def value(self) -> float:
        """The median of the passes' medians."""
        return median(self.medians)


class Subject(NamedTuple):
    """All rows of a subject, and the contestants that have none, with the reason why."""

    name: str
    rows: list[Row]
    absent: list[dict[str, str]]
    contestants: dict[str, dict[str, str]]
    origin: dict[str, Any]

    def row(self, case: str, contestant: str = OURS) -> Row | None:
        """One of them. Where a contestant has several lines in a case, the first."""
        return next((row for row in self.rows if row.case == case and row.contestant == contestant), None)

    def ours(self, theirs: Row) -> Row | None:
        """Ours of the same case, in the same unit and series."""
        alike = (theirs.case, OURS, theirs.unit, theirs.better, theirs.series)
        return next((row for row in self.rows if row[:5] == alike), None)


def ratio(ours: Row, theirs: Row) -> float | None:
    """How many times as much: the median over passes of the ratios within each, so that drift does not count. None if
    they were in no pass together.
    """
    both = [(mine, other) for mine, other in zip(ours.passes, theirs.passes, strict=False) if mine and other]
    return median(median(mine) / median(other) for mine, other in both) if both else None


def merge(passes: Iterable[dict[str, Any]], origin: dict[str, Any]) -> dict[str, Subject]:
    """The subjects of all passes, each with how many of them it was in."""
    subjects: dict[str, Subject] = {}

    def subject(name: str, number: int) -> Subject:
        found = subjects.setdefault(name, Subject(name, [], [], {}, dict(origin)))
        found.origin["passes"] = number
        return found

    for number, one in enumerate(passes, 1):
        for measured in one["benchmarks"]:
            told = measured["extra_info"]
            found = subject(subject_of(Path(measured["fullname"].partition("::")[0])), number)
            found.contestants.update(told.get("contestants", {}))
            for figure in told.get("figures", []):
                _add(found.rows, Figure(**figure), number)
        for missing in one.get("absent", []):
            absent = {key: missing[key] for key in ("contestant", "reason")}
            found = subject(missing["subject"], number)
            if absent not in found.absent:
                found.absent.append(absent)
    return subjects


def _add(rows: list[Row], figure: Figure, number: int) -> None:
    """The values of a figure, as those of a pass by its number."""
    new = Row(figure.case, figure.contestant, figure.unit, figure.better, figure.series, figure.at, [])
    row = next((known for known in rows if known[:-1] == new[:-1]), new)
    if row is new:
        rows.append(row)
    row.passes.extend([] for _ in range(number - len(row.passes)))
    row.passes[number - 1].extend(float(f"{value:.{DIGITS}g}") for value in figure.values)


def load(path: Path) -> dict[str, Subject]:
    """The subjects of a file of results."""
    stored = json.loads(path.read_text("utf-8"))["subjects"]
    return {
        name: Subject(name, [Row(**row) for row in one["rows"]], one["absent"], one["contestants"], one["origin"])
        for name, one in stored.items()
    }


def save(path: Path, subjects: dict[str, Subject]) -> None:
    """Write the file anew; subjects in the order of their names."""
    stored = {
        name: {
            "origin": one.origin,
            "contestants": one.contestants,
            "absent": one.absent,
            "rows": [row._asdict() for row in one.rows],
        }
        for name, one in sorted(subjects.items())
    }
    text = json.dumps({"subjects": stored}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")
