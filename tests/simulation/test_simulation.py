"""The whole engine, simulated: no seed finds anything wrong, every kind of trouble occurs, and a seed is a program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import simulate
from kinds import KINDS

from durable_log.engine import group

SEEDS = int(os.environ.get("DURABLE_LOG_SEEDS", "200"))


@pytest.fixture(scope="module")
def outcomes() -> list[simulate.Outcome]:
    return list(simulate.outcomes(range(1, SEEDS + 1), jobs=os.cpu_count() or 1))


def test_no_seed_finds_anything_wrong(outcomes, record_property):
    record_property("seeds of the simulation", len(outcomes))
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    assert not failures, "\n".join(failures)


def test_every_kind_of_operation_fault_and_recovery_has_occurred(outcomes):
    counts = sum((outcome.counts for outcome in outcomes), Counter())
    assert [kind for kind in KINDS if not counts[kind]] == []


def test_a_seed_gives_the_same_trace_in_any_process(outcomes):
    """Also where sets have another order."""
    seeds = [seed for seed in (1, 2, 3, 5, 8, 13) if seed <= SEEDS]
    here = {seed: simulate.simulate(seed).trace for seed in seeds}
    assert here == {outcome.seed: outcome.trace for outcome in outcomes if outcome.seed in here}
    for hash_seed in ("0", "1", "4711"):
        assert traces_elsewhere(seeds, hash_seed) == here


def traces_elsewhere(seeds: list[int], hash_seed: str) -> dict[int, str]:
    program = "import simulate, sys\nfor seed in map(int, sys.argv[1:]): print(seed, simulate.simulate(seed).trace)"
    printed = subprocess.run(
        [sys.executable, "-c", program, *map(str, seeds)], env=os.environ | {"PYTHONHASHSEED": hash_seed}, check=True,
        capture_output=True, text=True, cwd=Path(simulate.__file__).parent,
    ).stdout  # fmt: skip
    return {int(seed): trace for seed, trace in map(str.split, printed.splitlines())}


def test_a_failure_names_its_seed_its_last_operations_and_the_command_that_repeats_it(monkeypatch):
    """And the fewest steps after which it is there."""
    admit = group.admit_append
    monkeypatch.setattr(group, "admit_append", lambda state, request: admit(state, request._replace(seq=None)))
    failing = next(outcome for outcome in map(simulate.simulate, range(1, 50)) if outcome.failure)
    assert f"seed {failing.seed}, generation" in failing.failure
    assert f"make simulate SEED={failing.seed}" in failing.failure
    assert " append " in failing.failure
    steps = simulate.shortest(failing.seed)
    assert 0 < steps <= failing.steps
    assert simulate.simulate(failing.seed, steps).failure
    assert not simulate.simulate(failing.seed, steps - 1).failure
