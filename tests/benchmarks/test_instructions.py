"""The guard of instruction counts: its arithmetic, its verdicts, and paths that can be gone. No count decides here."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import instructions
from benchmarks.hot_paths import PATHS
from benchmarks.instructions import GREW, PASSED, TIMES, UNKNOWN, check, each, main


@pytest.fixture
def counts(tmp_path, monkeypatch):
    """``main`` with counts that were made up: returns its exit code and what is in the file afterwards."""
    file = tmp_path / "instructions.json"

    def run(now, *options, known=None):
        if known is not None:
            file.write_text(json.dumps(known))
        monkeypatch.setattr(instructions, "measure", lambda paths: {path: now[path] for path in paths})
        monkeypatch.setattr(instructions, "build", lambda: "this build")
        monkeypatch.setattr(instructions.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr("sys.argv", ["instructions", "--file", str(file), "--only", *now, *options])
        return main(), json.loads(file.read_text()) if file.exists() else None

    return run


def test_what_starting_costs_is_no_part_of_a_path():
    assert each(20, 120, lambda times: 1_000_000_000 + 345 * times) == 345


@pytest.mark.parametrize(("now", "verdict"), [(97, PASSED), (102, PASSED), (104, GREW), (50, PASSED)])
def test_a_path_may_not_grow_beyond_the_tolerance(now, verdict, capsys):
    assert check({"append": 100}, {"append": now}, tolerance=0.03) == verdict
    assert ("GREW" in capsys.readouterr().out) == (verdict == GREW)


def test_a_path_that_takes_less_is_told_of_so_that_it_is_held(capsys):
    assert check({"append": 100}, {"append": 50}) == PASSED
    assert "--update holds it" in capsys.readouterr().out


def test_a_path_without_a_count_does_not_pass(capsys):
    assert check({"append": 100}, {"append": 100, "ASGI GET": 1}) == UNKNOWN
    assert "no counts of ASGI GET: run --update" in capsys.readouterr().out


def test_a_build_without_counts_does_not_pass(counts, capsys):
    assert counts({"append": 100}, known={"another build": {"append": 100}})[0] == UNKNOWN
    told = capsys.readouterr().out
    assert "no counts for this build: run --update" in told
    assert "this build" in told
    assert "another build" in told


def test_an_update_writes_what_was_counted_and_leaves_the_rest(counts):
    known = {"another build": {"append": 1}, "this build": {"append": 2, "ASGI GET": 3}}
    code, file = counts({"append": 100.4}, "--update", known=known)
    assert code == PASSED
    assert file == {"another build": {"append": 1}, "this build": {"append": 100, "ASGI GET": 3}}
    assert counts({"append": 104})[0] == GREW


def test_without_valgrind_nothing_passes(monkeypatch, capsys):
    monkeypatch.setattr(instructions.shutil, "which", lambda _name: None)
    monkeypatch.setattr("sys.argv", ["instructions"])
    assert main() == UNKNOWN
    assert "valgrind is not installed" in capsys.readouterr().out


@pytest.mark.parametrize("path", PATHS)
def test_a_path_can_be_gone(path, tmp_path):
    with PATHS[path](tmp_path) as go:
        go(2)


def test_every_path_is_counted():
    assert list(TIMES) == list(PATHS)
    assert all(few < many for few, many in TIMES.values())


def test_a_build_is_told_by_its_versions():
    assert re.fullmatch(r"\w+ 3[.\d]+\S* \(.+\), cc [\d.]+, \w+ [\d.]+, \w+", instructions.build())
