"""All benchmarks run, small: what is installed is measured, what is not is told. No figure decides here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import FILES
from benchmarks.contest import OURS
from benchmarks.peers import PEERS
from benchmarks.peers.base import Absent
from benchmarks.results import load

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 300
COMPARED = ("append", "append_many", "concurrent", "iterate")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of everything: what it printed, and its results."""
    folder = tmp_path_factory.mktemp("quick")
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--dir", str(folder), "--results", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    (results,) = folder.glob("*.json")
    return found.stdout, load(results)


@pytest.mark.parametrize("subject", FILES)
def test_a_subject_runs(run, subject):
    text, subjects = run
    assert f"## {subject}\n" in text
    ours = [row for row in subjects[subject].rows if row.contestant == OURS]
    assert ours
    timed = [row for row in ours if row.unit not in ("MB", "bytes")]  # so small a store takes no memory that is seen
    assert all(value > 0 for row in timed for value in row.medians)


def absence(peer, folder):
    """Why a peer is not here, if it is not."""
    try:
        peer(folder).close()
    except Absent as absent:
        return str(absent)
    return None


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("subject", COMPARED)
def test_a_peer_is_measured_or_its_absence_told(run, subject, peer, tmp_path):
    text, subjects = run
    reason = absence(peer, tmp_path)
    if reason is not None:
        assert {"contestant": peer.name, "reason": reason} in subjects[subject].absent
        assert f"| {peer.name} | not run: {reason} |" in text
    else:
        assert any(row.contestant == peer.name for row in subjects[subject].rows)
        assert subjects[subject].contestants[peer.name]["version"] == peer.version()
