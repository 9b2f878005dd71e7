"""The benchmarks can be imported here; they are no part of what is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from made_up import ORIGIN

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


@pytest.fixture
def merged():
    """The subject ``append`` of passes that were made up."""
    from benchmarks.results import merge

    return lambda *passes: merge(passes, ORIGIN)["append"]
