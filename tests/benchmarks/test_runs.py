"""The look at sorted runs goes through, small: it calls the engine below its faces, where calls change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_part_of_the_look_at_runs_is_timed(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.runs", "--rows", "3000", "--dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert all(part in found.stdout for part in ("write_run", "find", "names_from", "due", "verify", "merge of 4 runs"))
