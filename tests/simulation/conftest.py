"""Where the tests here find the disk, the model and the simulation itself."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / room) for room in ("engine", "disk", "model", "simulation")]
