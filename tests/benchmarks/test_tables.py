"""Tables say what was measured: bars that are met and not, rows that are lost, contestants that did not run."""

from __future__ import annotations

import pytest
from made_up import ORIGIN, figure, one_pass

from benchmarks.bars import BARS, LIMITS, Bar
from benchmarks.results import merge
from benchmarks.tables import amount, page, table


def rows(subject, *bars):
    """The cells of each row but the two that head the table."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in list(table(subject, bars))[2:]]


def test_a_row_that_is_lost_is_shown_as_lost(merged):
    told = rows(merged(one_pass(figure("durable_log", [90]), figure("Redis", [100]), figure("LMDB", [50]))))
    assert told == [
        ["c", "**durable_log**", "90 appends/s", "one pass", "", "", ""],
        ["", "Redis", "100 appends/s", "one pass", "0.9", "", "lost"],
        ["", "LMDB", "50 appends/s", "one pass", "1.8", "", ""],
    ]


def test_of_latencies_the_larger_is_lost(merged):
    told = rows(merged(one_pass(*[figure(name, [ms], unit="ms", better="less") for name, ms in
                                  (("durable_log", 2), ("Redis", 1), ("LMDB", 4))])))  # fmt: skip
    assert [row[-1] for row in told] == ["", "lost", ""]


def test_percentiles_are_held_against_the_same_percentile(merged):
    told = rows(merged(one_pass(*[figure(name, [ms], unit="ms", better="less", series=series) for name, series, ms in (
        ("durable_log", "p50", 1), ("durable_log", "p99", 8), ("Redis", "p50", 2), ("Redis", "p99", 4))])))  # fmt: skip
    assert [row[4] for row in told] == ["", "", "0.5", "2"]


def test_the_spread_is_that_of_the_passes(merged):
    told = rows(merged(*[one_pass(figure("durable_log", [value])) for value in (1200, 900, 3)]))
    assert told[0][2:4] == ["900 appends/s", "3 – 1,200"]


@pytest.mark.parametrize(("ours", "outcome"), [(90, "met"), (89, "**not met**")])
def test_a_bar_stands_beside_its_peer_and_says_whether_it_is_met(merged, ours, outcome):
    subject = merged(one_pass(figure("durable_log", [ours]), figure("Redis", [100])))
    told = rows(subject, Bar("append", "c", 0.9, "Redis"), Bar("read", "c", 9, "Redis"))
    assert told[1][-2:] == ["≥ 0.9 × Redis", outcome]
    assert told[0][-2:] == ["", ""]


@pytest.mark.parametrize(("ours", "outcome"), [(600, "met"), (601, "**not met**")])
def test_a_bar_without_a_peer_is_in_the_unit_of_the_case(merged, ours, outcome):
    subject = merged(one_pass(figure("durable_log", [ours], unit="bytes", better="less")))
    assert rows(subject, Bar("append", "c", 600, at_most=True))[0][-2:] == ["≤ 600 bytes", outcome]


def test_a_bar_against_another_case_says_what_was_reached(merged):
    subject = merged(one_pass(figure("durable_log", [300]), figure("bare", [10], case="one")))
    told = rows(subject, Bar("append", "c", 40, "bare", "one"))
    assert told[0][-2:] == ["≥ 40 × bare (one): 30", "**not met**"]
    assert told[1][-2:] == ["", ""]


def test_of_two_alternatives_one_is_enough(merged):
    subject = merged(one_pass(figure("durable_log", [5]), figure("durable_log", [7], case="d")))
    bars = [Bar("append", "c", 6, either="x"), Bar("append", "d", 6, either="x")]
    assert [row[-1] for row in rows(subject, *bars)] == ["met", "met"]
    assert [row[-1] for row in rows(subject, bars[0]._replace(limit=8), bars[1]._replace(limit=8))] == [
        "**not met**"
    ] * 2


def test_a_peer_that_is_missing_is_shown_with_its_reason(merged):
    subject = merged(one_pass(figure("durable_log", [5]), absent=[("Redis", "redis-server is not installed")]))
    told = rows(subject, Bar("append", "c", 1.3, "Redis"))
    assert told[1][1:3] == ["Redis", "not run: redis-server is not installed"]
    assert told[2] == ["c", "", "", "", "", "≥ 1.3 × Redis", "not measured"]


def test_beside_what_the_machine_itself_does_nothing_is_lost(merged):
    limit = min(LIMITS)
    told = rows(merged(one_pass(figure("durable_log", [90]), figure(limit, [100]))))
    assert told[1][-1] == "the limit"


def test_the_page_says_where_it_comes_from():
    text = page(merge([one_pass(figure("durable_log", [1]))], ORIGIN), [])
    assert "## append" in text
    assert "`python -m benchmarks`, passes: 1, revision abc, 2026-01-31;" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(2.5e9, "bytes/s", "2.5 GB/s"), (536, "bytes", "536 bytes"), (12345.6, "appends/s", "12,346 appends/s"),
     (0.00123, "s", "0.00123 s")],
)  # fmt: skip
def test_amounts_are_read_easily(value, unit, text):
    assert amount(value, unit) == text


def test_every_bar_is_there_once():
    assert len({bar._replace(limit=0) for bar in BARS}) == len(BARS)
