"""Everything at once on a real directory, in this process. Processes that are killed: ``test_torture.py``."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from stress_truth import StressTruth
from stress_writer import OPTIONS, Ledger, Stress
from torture_runs import check_files

import durable_log
from durable_log.engine import catalog, checkpoint, compaction, snapshot

SECONDS = float(os.environ.get("DURABLE_LOG_STRESS_SECONDS", "4"))


def test_readers_and_writers_meet_no_difference_while_everything_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "IDLE_MAX", 3)
    for module in (checkpoint, compaction, snapshot):
        monkeypatch.setattr(module, "SLICE_STATES", 3)
    with durable_log.open(tmp_path / "store", options=OPTIONS) as store:
        stress = Stress(store, Ledger(tmp_path / "ledger"), "one")
        end = time.monotonic() + SECONDS
        stress.run(lambda: time.monotonic() > end)
        assert stress.failure is None, stress.failure
        assert min(stress.counts.values()) > 0, stress.counts
        assert store.stats()["failure"] is None
    with durable_log.open(tmp_path / "store", options=replace(OPTIONS, sweep_seconds=3600.0)) as store:
        StressTruth(tmp_path / "ledger").check(store)
        check_files(store, tmp_path / "store")
