"""System calls that fail, in a process of its own: all of a workload, or exactly one.

    python tests/faults/run.py
    python tests/faults/run.py WORKLOAD [--long]
    python tests/faults/run.py WORKLOAD --call 17 --error EIO --manner done [--killed] [--trace]

Exit code 1: something does not hold; it says what, and how to see exactly that once more.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from shim import compiled

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "faults"


def environment(build: Path = BUILD) -> dict[str, str]:
    """That of a process with the shim in it, which finds what the tests of the engine share."""
    return {**os.environ, "LD_PRELOAD": str(compiled(build)), "PYTHONPATH": str(HERE.parent / "engine")}


if __name__ == "__main__":
    os.execve(sys.executable, [sys.executable, str(HERE / "child.py"), *sys.argv[1:]], environment())
