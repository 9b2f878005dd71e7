"""Every row of the benchmark of many streams runs, small, and prints a figure. No figure decides here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bars import CARDINALITY, STREAMS

ROOT = Path(__file__).resolve().parents[2]
ROWS = {
    "active": 4,
    "waking": 4,
    "create": 1,
    "idle-memory": 1,
    "open": 5,
    "ten-million": 3,
    "read-clustered": 6,
    "write-amplification": 4,
    "reclaim": 3,
    "pace": 8,
}
"""How many figures each has."""
BARRED = {"active": 2, "waking": 1, "idle-memory": 1, "open": 2}
"""How many of them the bars are about."""


@pytest.mark.parametrize("row", ROWS)
def test_a_row_prints_its_figures(row, tmp_path):
    streams = "1100" if row == "ten-million" else "2000"
    command = [sys.executable, "-m", "benchmarks.cardinality", "--streams", streams, "--rows", row]
    found = subprocess.run(
        [*command, "--dir", str(tmp_path), "--json", str(tmp_path / "figures")],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    figures = json.loads((tmp_path / "figures").read_text())
    assert [figure["row"] for figure in figures] == [row] * ROWS[row]
    barred = [bar.case.replace(f"{STREAMS:,}", f"{int(streams):,}") for bar in CARDINALITY]
    assert sum(figure["what"] in barred for figure in figures) == BARRED.get(row, 0)
    for figure in figures:
        assert figure["value"] >= 0 or row == "idle-memory"
        assert figure["what"] in found.stdout
        assert (figure["met"] is None) == (figure["bar"] == "")
    assert "bare pwrite + fdatasync" in found.stdout


def test_every_bar_is_about_a_figure():
    assert sum(BARRED.values()) == len(CARDINALITY)


def test_the_test_knows_all_rows():
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.cardinality", "--rows", "nonsense"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode != 0
    assert found.stderr.strip().endswith(", ".join(sorted(ROWS, key=found.stderr.index)))
