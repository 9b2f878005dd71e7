"""Passes become one result: medians, ratios within a pass, and files that are read back as they were."""

from __future__ import annotations

from made_up import ORIGIN, figure, one_pass

from benchmarks.results import load, merge, ratio, save


def test_a_figure_is_the_median_of_the_medians_of_passes(merged):
    subject = merged(*[one_pass(figure("durable_log", values)) for values in ([1, 2, 90], [5, 4, 4], [8, 8, 8])])
    row = subject.row("c")
    assert row.passes == [[1, 2, 90], [5, 4, 4], [8, 8, 8]]
    assert (row.medians, row.value) == ([2, 4, 8], 4)


def test_a_subject_says_in_how_many_passes_it_was():
    found = merge([one_pass(figure("a", [1]), subject="cardinality"), one_pass(figure("a", [1]))], ORIGIN)
    assert {name: one.origin["passes"] for name, one in found.items()} == {"cardinality": 1, "append": 2}


def test_a_ratio_is_taken_within_each_pass_so_that_drift_does_not_count(merged):
    drifting = [(10, 5), (100, 50), (1000, 500)]
    subject = merged(*[one_pass(figure("durable_log", [a]), figure("Redis", [b])) for a, b in drifting])
    assert ratio(subject.row("c"), subject.row("c", "Redis")) == 2


def test_a_pass_that_a_contestant_failed_in_is_no_part_of_its_ratio(merged):
    passes = [
        one_pass(figure("durable_log", [10 * n]), *([figure("Redis", [5 * n])] if n != 2 else [])) for n in (1, 2, 3)
    ]
    subject = merged(*passes)
    theirs = subject.row("c", "Redis")
    assert (theirs.passes, theirs.value) == ([[5], [], [15]], 10)
    assert ratio(subject.row("c"), theirs) == 2
    alone = merged(one_pass(figure("durable_log", [1])), one_pass(figure("Redis", [1])))
    assert ratio(alone.row("c"), alone.row("c", "Redis")) is None


def test_figures_that_differ_in_case_unit_series_or_place_are_rows_of_their_own(merged):
    told = [figure("a", [1]), figure("a", [1], case="d"), figure("a", [1], unit="s"), figure("a", [1], series="p99"),
            figure("a", [1], at=64)]  # fmt: skip
    assert len(merged(one_pass(*told), one_pass(*told)).rows) == len(told)


def test_who_is_absent_in_every_pass_is_told_once(merged):
    subject = merged(one_pass(absent=[("LMDB", "no wheel")]), one_pass(absent=[("LMDB", "no wheel")]))
    assert subject.absent == [{"contestant": "LMDB", "reason": "no wheel"}]


def test_results_are_read_back_as_they_were_saved(tmp_path):
    passes = [one_pass(figure("durable_log", [1 / 3], at=4), absent=[("LMDB", "no wheel")])]
    subjects = merge(passes, ORIGIN)
    save(tmp_path / "m.json", subjects)
    assert load(tmp_path / "m.json") == subjects
    assert subjects["append"].row("c").passes == [[0.333333]]


def test_a_subject_that_is_measured_again_replaces_itself_alone(tmp_path, capsys):
    from benchmarks.__main__ import write

    first = merge([one_pass(figure("a", [1])), one_pass(figure("a", [1]), subject="read")], ORIGIN)
    write(tmp_path / "m", first)
    write(tmp_path / "m", merge([one_pass(figure("a", [2]))], {**ORIGIN, "revision": "def"}))
    found = load(tmp_path / "m.json")
    assert [found[name].origin["revision"] for name in ("append", "read")] == ["def", "abc"]
    assert found["append"].row("c", "a").value == 2
    assert "revision def" in (tmp_path / "m.md").read_text()
    assert str(tmp_path / "m.json") in capsys.readouterr().out
