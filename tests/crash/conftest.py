"""Where the tests here find the oracle and the twins; and logs whose idle end is not marked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))

from durable_log.engine import commit


@pytest.fixture(autouse=True)
def no_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "IDLE_SECONDS", 3600.0)
