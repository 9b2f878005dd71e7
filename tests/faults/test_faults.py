"""Whatever system call fails, once or for ever: nothing is lost, nothing is shown that is not durable, nobody hangs.

What has to hold is written in ``session.py`` and ``injection.py``. ``DURABLE_LOG_FAULTS=long`` takes all workloads and
all errors, and an hour.
"""

from __future__ import annotations

import os

import pytest
from fault_workloads import WORKLOADS
from sabotage import SABOTAGES

LONG = os.environ.get("DURABLE_LOG_FAULTS") == "long"
CHOSEN = [name for name, workload in WORKLOADS.items() if LONG or workload.in_ci]


@pytest.mark.parametrize("name", CHOSEN)
def test_whichever_call_fails_what_was_acknowledged_is_there_and_the_store_goes_on(start, name):
    process = start("child.py", name, *(["--long"] if LONG else []))
    print(process.stdout)
    assert process.returncode == 0, process.stderr


def test_the_shim_stands_before_every_kind_of_call_those_of_the_c_core_too(start, tmp_path):
    process = start("shim_calls.py", str(tmp_path))
    assert process.returncode == 0, process.stderr


def test_every_workload_works_while_nothing_fails(start):
    process = start("child.py")
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == list(WORKLOADS)


@pytest.mark.parametrize(
    ("sabotage", "workload"),
    [
        ("acknowledges_without_a_sync", "small_appends"),
        ("acknowledges_in_spite_of_a_failed_sync", "small_appends"),
        ("syncs_again_what_failed", "small_appends"),
        ("takes_a_read_error_for_the_end", "recovery"),
        ("recovers_past_a_read_error", "recovery"),
        ("leaves_files_open", "small_appends"),
        ("latches_when_the_disk_is_full", "large_appends_roll"),
        ("shows_what_is_half_written", "new_store"),
    ],
)
def test_these_checks_find_a_store_that(start, sabotage, workload):
    process = start("child.py", workload, "--sabotage", sabotage)
    assert process.returncode == 1, process.stdout
    assert "once more" in process.stderr or "AssertionError" in process.stderr, process.stderr


def test_every_sabotage_is_tried():
    tried = next(mark for mark in test_these_checks_find_a_store_that.pytestmark if mark.name == "parametrize").args[1]
    assert [sabotage for sabotage, _ in tried] == list(SABOTAGES)
