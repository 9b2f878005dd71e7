"""A store on a disk that fills up, and has room again: one process, one kind of full disk.

    full_disks.py shim | limit | mount DIRECTORY

``shim``: calls that take room fail. ``limit``: the process may not write beyond a size of a file (``EFBIG``).
``mount``: DIRECTORY is on a small file system of its own, which is really full.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from session import OPTIONS
from shim import FOREVER, FULL, Fault, Shim
from twins import Clock

import durable_log
from durable_log.errors import StoreFull
from durable_log.store import Store

NAMES = [f"s{number}" for number in range(8)]
LIMIT = 300_000
MODEST, LARGE = replace(OPTIONS, segment_bytes=2**18), replace(OPTIONS, segment_bytes=2**20)
"""Segments that are smaller than that, and larger ones."""


def appended_until_full(store: Store, name: str) -> int:
    """How many bytes were taken before the disk was full."""
    taken = 0
    for _ in range(2000):
        try:
            store.stream(name).append(b"f" * 3000)
        except StoreFull:
            return taken
        taken += 3000
    raise AssertionError("the disk was never full")


def is_refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except StoreFull:
        return True
    return False


def use_while_full(path: Path, fill: Callable[[], None], clear: Callable[[], None]) -> None:
    """All that is promised of a full disk, by the store itself and by whoever opens it next."""
    with durable_log.open(path, options=MODEST, clock=Clock()) as store:
        for name in NAMES:
            store.create(name, data=name.encode() * 500)
    store = durable_log.open(path, options=LARGE, clock=Clock())
    fill()
    tails = {name: store.stream(name).info().tail for name in NAMES}
    tails["s0"] += appended_until_full(store, "s0")
    assert is_refused(lambda: store.stream("s1").append(b"x" * 3000))
    assert is_refused(lambda: store.create("no room", data=b"x" * 3000))
    for name in ("s2", "s3", "s4"):
        store.delete(name)
    assert store.stream("s5").trim(500) == 500
    with suppress(StoreFull):
        store.compact()
    kept = ["s0", "s1", "s5", "s6", "s7"]
    assert list(store.names()) == kept
    for name in kept:
        assert len(store.stream(name).read(durable_log.EARLIEST, limit=2**22).data) > 0
        assert store.stream(name).info().tail == tails[name], name
    assert store.stats()["failure"] is None
    clear()
    assert store.stream("s1").append(b"y").offset == tails["s1"]
    store.create("room", data=b"x" * 3000)
    store.compact()
    store.engine.check()
    store.close()
    with durable_log.open(path, options=OPTIONS, clock=Clock()) as again:
        assert again.report.damage == again.report.lost == []
        assert list(again.names()) == sorted([*kept, "room"])
        assert again.stream("s1").read(tails["s1"]).data == b"y"
        assert again.stream("s0").info().tail == tails["s0"]


def by_the_shim(root: Path) -> None:
    shim = Shim()
    shim.watch(root)
    use_while_full(root / "store", lambda: shim.arm(Fault(1, FULL, FOREVER)), shim.disarm)


def by_a_limit(root: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limited = lambda soft: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))  # noqa: E731
    use_while_full(root / "store", lambda: limited(LIMIT), lambda: limited(hard))


def by_a_mount(root: Path) -> None:
    ballast = root / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    use_while_full(root / "store", fill, ballast.unlink)


if __name__ == "__main__":
    kinds = {"shim": by_the_shim, "limit": by_a_limit, "mount": by_a_mount}
    kinds[sys.argv[1]](Path(sys.argv[2]))
