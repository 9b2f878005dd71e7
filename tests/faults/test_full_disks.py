"""A full disk refuses appends and latches nothing; deletions, trims and reads work; and it is forgotten once there is
room again.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

LONG = os.environ.get("DURABLE_LOG_FAULTS") == "long"


@pytest.mark.parametrize("kind", ["shim", "limit"])
def test_a_full_disk_refuses_appends_and_no_more(start, tmp_path, kind):
    process = start("full_disks.py", kind, str(tmp_path))
    assert process.returncode == 0, process.stderr


@pytest.mark.skipif(
    not LONG or os.geteuid() != 0, reason="mounts a file system, in the long run, where that is allowed"
)
@pytest.mark.parametrize("size", [3000, 4000, 6000])
def test_a_file_system_that_is_really_full_refuses_appends_and_no_more(start, tmp_path: Path, size):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        process = start("full_disks.py", "mount", str(tmp_path))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert process.returncode == 0, process.stderr
