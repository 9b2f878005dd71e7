"""The look at where the time goes runs, small, and shows every part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import breakdown

ROOT = Path(__file__).resolve().parents[2]


def test_every_part_is_measured_and_shown(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.breakdown", "--quick", "--dir", str(tmp_path), "--results", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    (page,) = tmp_path.glob("*-breakdown.md")
    shown = page.read_text()
    rows = [line.split("|")[1:-1] for line in shown.splitlines() if line.startswith("| ") and "from – to" not in line]
    assert all(float(cells[1]) > 0 for cells in rows)
    named = {cells[0].strip() for cells in rows}
    assert named >= {what for _, what in breakdown.WAYS}
    assert named >= {f"an append of {writers:,} tasks" for writers in breakdown.WRITERS}
    assert shown.count("## ") == 3 + len(breakdown.LOADS)
