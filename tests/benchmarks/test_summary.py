"""What the README shows of the results."""

from __future__ import annotations

import json

import pytest
from made_up import ORIGIN, figure, one_pass

from benchmarks import summary
from benchmarks.bars import BARS, Bar
from benchmarks.results import load, merge, save
from benchmarks.tables import page


def lines(table):
    """The cells of each row but the two that head the table."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in list(table)[2:]]


def subjects(*figures, subject="append"):
    return merge([one_pass(*figures, subject=subject)], ORIGIN)


def test_each_bar_is_shown_with_what_was_reached_beside_what():
    measured = subjects(figure("durable_log", [90]), figure("Redis", [100]), figure("LMDB", [50]))
    bars = [Bar("append", "c", 0.9, "Redis"), Bar("append", "c", 2, "LMDB"), Bar("append", "c", 100)]
    assert lines(summary.bars_table(measured, bars)) == [
        ["c", "90 appends/s", "Redis", "100 appends/s", "0.9", "≥ 0.9", "met"],
        ["", "90 appends/s", "LMDB", "50 appends/s", "1.8", "≥ 2", "**not met**"],
        ["", "90 appends/s", "", "", "", "≥ 100 appends/s", "**not met**"],
    ]


def test_a_bar_that_is_not_met_says_where_it_is_told_why():
    measured = subjects(figure("durable_log", [90]), figure("Redis", [100]))
    bars = [Bar("append", "c", 1, "Redis", why="one-writer"), Bar("append", "c", 0.8, "Redis", why="one-writer")]
    outcomes = [line[-1] for line in lines(summary.bars_table(measured, bars))]
    assert outcomes == ["**not met** ([why](docs/benchmarks.md#one-writer))", "met"]


def test_every_reason_is_a_section_of_the_documentation():
    page = (summary.ROOT / summary.DOCS).read_text("utf-8")
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in page.splitlines() if line.startswith("#")}
    assert {bar.why for bar in BARS if bar.why} <= headings


def test_what_the_readme_and_the_page_of_tables_show_are_the_results_that_are_kept():
    (kept,) = sorted(summary.RESULTS.glob("*.json"))
    readme = summary.README.read_text("utf-8")
    assert readme == summary.placed(readme, summary.text(kept))
    assert kept.with_suffix(".md").read_text("utf-8") == page(load(kept))


def test_every_bar_that_was_not_met_says_why():
    (kept,) = sorted(summary.RESULTS.glob("*.json"))
    outcomes = [line[-1] for line in lines(summary.bars_table(load(kept)))]
    assert len(outcomes) == len(BARS)
    assert [outcome for outcome in outcomes if outcome != "met" and "[why]" not in outcome] == []


def test_a_bar_of_which_nothing_was_measured_is_shown_as_that():
    measured = subjects(figure("durable_log", [90]))
    bars = [Bar("append", "c", 1, "Redis"), Bar("append", "d", 1, "Redis"), Bar("read", "e", 1)]
    assert [line[-1] for line in lines(summary.bars_table(measured, bars))] == ["not measured"] * 3


def test_a_row_that_is_lost_is_shown_with_all_who_are_ahead_the_first_first():
    measured = subjects(
        figure("durable_log", [90]), figure("Redis", [100]), figure("LMDB", [180]), figure("SQLite", [89]),
        figure("durable_log", [2], case="p99", unit="µs", better="less"),
        figure("Redis", [1], case="p99", unit="µs", better="less"),
        figure("durable_log", [2], case="won"), figure("Redis", [1], case="won"),
    )  # fmt: skip
    assert lines(summary.lost_table(measured)) == [["c", "LMDB 2; Redis 1.11"], ["p99", "Redis 2"]]


def test_the_limits_of_the_machine_and_ourselves_in_another_way_are_not_ahead():
    measured = subjects(
        figure("durable_log", [90]), figure("durable_log, threads", [99]), figure("bare pwrite + fdatasync", [100])
    )
    assert lines(summary.lost_table(measured)) == []


@pytest.mark.parametrize(("at", "shown"), [(64, []), (None, [["c", "Redis 2"]])])
def test_what_a_shown_picture_shows_is_left_to_it(at, shown):
    measured = subjects(figure("durable_log", [1], at=at), figure("Redis", [2], at=at), subject="concurrent")
    assert lines(summary.lost_table(measured)) == shown


def test_the_page_is_changed_between_its_marks_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "ROOT", tmp_path)
    save(tmp_path / "machine.json", subjects(figure("durable_log", [1])))
    new = summary.text(tmp_path / "machine.json", [])
    page = f"before\n{summary.BEGIN}old\n{summary.END}after\n"
    assert summary.placed(page, new) == f"before\n{summary.BEGIN}{new}{summary.END}after\n"
    assert "machine-writers.svg" in new
    assert json.loads((tmp_path / "machine.json").read_text())["subjects"].keys() == {"append"}
