"""Bytes of a closed store go bad; whoever opens it then is told, and gets no byte that is not right.

Law of this room: one place of one file, or one page that is somebody else's, or one that was never written. What may be
unreadable then is more than this room knows; it holds the store to what is promised of any damage.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

from reference import JSON, Life
from simulated_disk import SimulatedDisk

from durable_log.engine.files import LOCK_NAME
from durable_log.engine.manifest import MANIFEST_NAME
from durable_log.engine.opening import open_in
from durable_log.errors import Corruption, OffsetOutOfRange, StreamGone, StreamNotFound
from durable_log.store import Store

if TYPE_CHECKING:
    from simulation import Simulation

PAGE = 4096


class Rot:
    """A closed store after its disk has damaged something."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation, self._chance, self._counts = simulation, simulation.chance, simulation.counts

    def check(self) -> None:
        """Damage a copy, open it, and read everything."""
        simulation = self._simulation
        contents = simulation.disk.contents()
        name = self._chance.choice(sorted(set(contents) - {LOCK_NAME}))
        what = self._damage(contents, name)
        simulation.note(f"rot: {what} in {name}")
        disk = SimulatedDisk(
            self._chance, self._counts, simulation.trace, contents, grows_in_place=simulation.disk.grows_in_place
        )
        try:
            store = Store(open_in(disk, simulation.options, simulation.time.time))
        except Corruption:
            assert name.endswith((".run", ".seg")) or name == MANIFEST_NAME, name
            self._counts["rot: kept from opening"] += 1
        else:
            try:
                self._read_all(store)
            finally:
                atexit.unregister(store.engine.close)
        finally:
            disk.discard_all()

    def _damage(self, contents: dict[str, bytes], name: str) -> str:
        chance, raw = self._chance, bytearray(contents[name])
        used = [at for at in range(0, len(raw), PAGE) if any(raw[at : at + PAGE])]
        page = chance.choice(used)
        what = chance.choice(("a flipped bit", "a flipped bit", "a page of zeroes", "another page"))
        if what == "a flipped bit":
            stored = [at for at in range(page, min(page + PAGE, len(raw))) if raw[at]]
            raw[chance.choice(stored)] ^= 1 << chance.randrange(8)
        else:
            other = chance.choice(used) if what == "another page" else None
            size = len(raw[page : page + PAGE])
            raw[page : page + size] = (
                bytes(size) if other is None else raw[other : other + PAGE].ljust(size, b"\0")[:size]
            )
        contents[name] = bytes(raw)
        return f"{what} at {page}"

    def _read_all(self, store: Store) -> None:
        simulation = self._simulation
        report = store.report
        reported = bool(report.damage or report.lost or report.unreadable_segments or report.unreadable_catalog)
        told = reported or bool(store.engine.upkeep.check_files())
        whole = True
        for life in simulation.history.visible.lives.values():
            if not life.deleted and simulation.history.uses.alive(life, simulation.time.now):
                whole = self._read(store, life) and whole
        self._counts["rot: harmless" if whole else "rot: told"] += 1
        assert whole or told, "bytes are missing, and nobody says so"

    def _read(self, store: Store, life: Life) -> bool:
        """Whether all of a stream is there. Raises ``AssertionError`` if a byte is wrong."""
        offset, whole, stream = life.first, True, store.stream(life.name)
        try:
            info = stream.info()
        except (Corruption, StreamNotFound, StreamGone):
            return False
        if info.number != life.number:
            return False
        while offset < life.tail:
            try:
                chunk = stream.read(offset, limit=PAGE)
                data = chunk.data
                assert life.content_type != JSON or not data or chunk.items
            except OffsetOutOfRange:
                return False
            except Corruption:
                data, whole = b"", False
            assert data == life.content[offset : offset + len(data)], (life.name, offset)
            offset += len(data)
            if not data:  # behind the damage, where somebody may begin
                later = range(offset + 64, life.tail + 1, 64) if life.content_type != JSON else life.ends
                offset = next((at for at in later if at > offset), life.tail)
        return whole and info.tail == life.tail
