"""A repair takes little room, and says how much where there is less."""

from __future__ import annotations

import errno
import logging
import os

import pytest
from damaged_stores import CLOCK, Known, built, flip, mend, missing, opened
from twins import TwinDirectory

from durable_log.engine.files import DiskDirectory, MemoryDirectory, WriteFailed
from durable_log.engine.manifest import MANIFEST_NAME
from durable_log.engine.repair import Outcome, _Repair
from durable_log.engine.room import SEGMENT_BYTES
from durable_log.errors import StoreFull


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def damaged(what: str) -> Known:
    known = built().copy()
    for suffix in (".seg", ".run", ".log"):
        if what in (suffix, "everything"):
            for name in known.names(suffix):
                flip(known.directory, name, 4096 + 30)
    if what in ("manifest", "everything"):
        flip(known.directory, MANIFEST_NAME, 4096)
    if what == "header":
        flip(known.directory, known.names(".log")[0], 20)
    return known


DAMAGE = [".seg", ".run", ".log", "manifest", "header", "everything"]


def bytes_in(directory: MemoryDirectory) -> int:
    return sum(directory.sizes().values()) + sum(map(bytes_in, directory.folders.values()))


@pytest.mark.parametrize("what", DAMAGE)
def test_a_repair_takes_no_more_room_than_it_would_say(what):
    known = damaged(what)
    before, most = bytes_in(known.directory), 0
    told = _Repair(known.directory, CLOCK).room()

    def watched(proceed):
        nonlocal most
        proceed()
        most = max(most, bytes_in(known.directory))

    twin = TwinDirectory(known.directory)
    twin.hooks = dict.fromkeys(("sync", "sync directory"), watched)
    mend(twin)
    assert 0 < most - before <= told


def full(_proceed):
    raise WriteFailed(errno.ENOSPC, os.strerror(errno.ENOSPC), "00000001.log")


def attempted(directory: MemoryDirectory, calls: int) -> Outcome | StoreFull:
    """What comes of a repair on a disk that has room for so many calls."""
    left = calls

    def limited(proceed):
        nonlocal left
        left -= 1
        return proceed() if left >= 0 else full(proceed)

    twin = TwinDirectory(directory)
    twin.hooks = dict.fromkeys(("create", "write", "fill"), limited)
    try:
        return mend(twin)
    except StoreFull as error:
        return error


@pytest.mark.parametrize("what", DAMAGE)
def test_a_repair_that_finds_no_room_says_how_much_it_takes_and_goes_on_once_there_is_some(what):
    known, whole, calls = damaged(what), damaged(what), 0
    lost = mend(whole.directory).lost
    while isinstance(ended := attempted(known.directory, calls), StoreFull):
        assert str(ended) == (
            f"no space left for {ended.needed} bytes in :memory:; a repair takes up to so much; make room and run it "
            "again, which goes on where this one ended"
        )
        assert ended.needed > SEGMENT_BYTES
        assert not any(name.endswith(".tmp") for name in known.directory.folder("quarantine").folder("0001").names())
        calls += 1
    assert calls > 3
    assert ended.lost == lost
    with opened(known) as store, opened(whole) as other:
        assert missing(store, known) == missing(other, whole)


def test_it_says_how_much_is_free_too(monkeypatch):
    monkeypatch.setattr(MemoryDirectory, "free", lambda self: 4711)
    ended = attempted(damaged(".seg").directory, 0)
    assert "a repair takes up to so much, and 4711 are free; make room" in str(ended)


def test_other_errors_stay_what_they_are():
    twin = TwinDirectory(damaged(".seg").directory)

    def broken(_proceed):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    twin.hooks = {"create": broken}
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        mend(twin)


def test_a_small_store_needs_no_large_log_segment(tmp_path):
    known = damaged(".log")
    known.directory.remove(known.names(".log")[-1])  # it is empty: one that is there need not be made
    for name in known.directory.names():
        (tmp_path / name).write_bytes(known.directory.files[name].read(0, 2**30))
    directory = DiskDirectory(tmp_path)
    directory.grows_in_place = True  # whatever this one does
    directory.lock()
    mend(directory)
    directory.close()
    assert [path.stat().st_size for path in tmp_path.glob("*.log")] == [SEGMENT_BYTES]
