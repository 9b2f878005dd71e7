"""Stores without threads: a thousand of them are opened in a second, and each is the same every time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))

from stores import quiet


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet(monkeypatch)
