"""Where the tests here find the oracle and the twins that they share with the tests of the engine."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))
