"""A repair that is killed at any step: the next one ends where it would have."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from damaged_stores import PAGE, Known, built, flip, mend, missing, opened, zero
from twins import TwinDirectory

from durable_log.engine.files import MemoryDirectory, MemoryFile

STEPS = ("write", "sync", "rename", "remove", "create", "link", "sync directory", "commit", "mark")


class Killed(BaseException):
    """The process is no more."""


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.CRITICAL)
    tell = threading.excepthook
    monkeypatch.setattr(threading, "excepthook", lambda what: what.exc_type is Killed or tell(what))


def damaged() -> Known:
    known = built().copy()
    flip(known.directory, known.names(".seg")[0], 2 * PAGE)
    zero(known.directory, known.names(".run")[-1], 1)
    flip(known.directory, "MANIFEST", PAGE + 66)
    zero(known.directory, known.names(".log")[2], 0)
    flip(known.directory, known.names(".log")[3], PAGE + 99)
    return known


def killer(after: int) -> tuple[Callable[[Callable[[], Any]], Any], list[int]]:
    """A hook that lets so many calls through and none after that; and how many there were."""
    count = [0]

    def call(proceed: Callable[[], Any]) -> Any:
        count[0] += 1
        if count[0] > after:
            raise Killed
        return proceed()

    return call, count


def left_by(directory: MemoryDirectory) -> MemoryDirectory:
    """All files, those of folders too, as they are now."""
    copied = MemoryDirectory()
    for name, file in list(directory.files.items()):
        copied.files[name] = MemoryFile(name)
        copied.files[name].write(0, file.read(0, file.size()))
    copied.folders = {name: left_by(folder) for name, folder in directory.folders.items()}
    return copied


def state_of(known: Known) -> dict[str, Any]:
    with opened(known) as store:
        lost = missing(store, known)
        assert list(store.engine.upkeep.audit()) == []
        found = {name: store.stream(name).info()[1:6] for name in store.names()}
        return {"lost": lost, "streams": found, "known": sorted(store.engine.upkeep.losses())}


def repair_killed_after(steps: int) -> tuple[Known, int]:
    known = damaged()
    hook, count = killer(steps)
    twin = TwinDirectory(known.directory)
    twin.hooks = dict.fromkeys(STEPS, hook)
    with suppress(Killed):
        mend(twin)
    return known._replace(directory=left_by(known.directory)), count[0]


def test_a_repair_that_is_killed_at_any_step_ends_the_same_when_it_is_run_again():
    whole, steps = repair_killed_after(10**6)
    expected = state_of(whole)
    assert expected["known"]
    assert steps > 60
    for after in range(0, steps, 7):
        known, _ = repair_killed_after(after)
        outcome = mend(known.directory)
        assert outcome.number in (0, 1), after
        assert mend(known.directory).number == 0, after
        folder = known.directory.folder("quarantine")
        assert folder.names() == ["0001"], after
        assert {"report.txt", "report.json"} <= set(folder.folder("0001").names()), after
        assert state_of(known) == expected, after
