"""Open what is left of a store, read everything, and compare it with what was acknowledged and with what the damage
may have cost.
"""

from __future__ import annotations

from typing import NamedTuple

from anatomy import Anatomy, Cost
from stores import Files, Life, Seen, Shape, disk_of, expected, kill, open_quietly, see, tried

from durable_log.errors import Corruption, DurableLogError, NotAStore, StoreUnreadable
from durable_log.store import Store


class Findings(NamedTuple):
    """``said``: all that the store said of damage. ``changed``: whether it says anything else than an undamaged one."""

    said: list[str]
    changed: bool
    opened: bool


def judge(anatomy: Anatomy, files: Files, cost: Cost) -> Findings:
    """Raises ``AssertionError`` if the store returns what is wrong, costs more than the damage may, or is silent."""
    shape = anatomy.shape
    store = opened(files)
    if not isinstance(store, Store):
        assert cost.refuses or cost.may_refuse, f"the store does not open: {store}"
        if isinstance(store, Corruption):
            assert store.file in {*files, *shape.files}, store
            assert store.position >= 0
        return Findings([str(store)], True, False)
    try:
        assert not cost.refuses, "the store opens"
        findings = _judge_open(shape, store, cost)
    finally:
        kill(store)
    assert findings.said or not cost.said, "nothing is said of the damage"
    if cost.nothing:
        assert not findings.changed, "what costs nothing changes what the store says"
    return findings


def opened(files: Files) -> Store | DurableLogError:
    """The store, or why it does not open."""
    try:
        return open_quietly(disk_of(files))
    except (Corruption, StoreUnreadable, NotAStore) as error:
        return error


def _judge_open(shape: Shape, store: Store, cost: Cost) -> Findings:
    said = said_at_opening(store)
    changed = False
    for name in shape.names:
        life = shape.alive.get(name)
        seen = tried(see, store, name, shape.lives)
        if isinstance(seen, Corruption):
            said.append(str(seen))
            changed = True
            assert any(one.number in cost.shaken for one in shape.lives if one.name == name), f"{name}: {seen}"
            continue
        changed |= seen != (life and expected(life))
        check(name, life, seen, shape, cost)
    said += [str(fault) for fault in store.engine.upkeep.check_files()]
    listed = tried(lambda: list(store.names()))
    if isinstance(listed, Corruption):
        said.append(str(listed))
        assert cost.listing or cost.shaken, listed
    else:
        changed |= listed != sorted(shape.alive)
        may_be = {life.name for life in shape.lives if life.number in cost.may_return} | set(shape.alive)
        missing = {life.name for life in shape.alive.values() if life.number in cost.may_miss}
        assert set(shape.alive) - missing <= set(listed) <= may_be, listed
    return Findings(said, changed, True)


def said_at_opening(store: Store) -> list[str]:
    report = store.report
    said = [*map(str, report.damage), *map(str, report.lost), *report.unreadable_segments]
    return said + ["the log was cut"] * report.cut


def check(name: str, life: Life | None, seen: Seen | None, shape: Shape, cost: Cost) -> None:
    """One stream against what was acknowledged of it."""
    if life is None:
        assert seen is None or seen.number in cost.may_return, f"{name} is there again"
        return
    if seen is None:
        assert life.number in cost.may_miss, f"{name} is missing"
        return
    if seen.number != life.number:
        assert seen.number in cost.may_return, f"{name} is an earlier life"
        assert life.number in cost.may_miss, f"{name} is an earlier life"
        return
    lost = life.lost_by(cost.lost)
    holes = [*seen.holes, (seen.tail, len(life.content))] if seen.tail < len(life.content) else seen.holes
    for start, end in holes:
        assert covered(start, end, lost), f"{name}: bytes {start} to {end} are missing"
    assert seen.content_type == life.content_type
    if life.number not in cost.shaken:
        assert seen._replace(holes=[]) == expected(life), f"{name}: {seen}"
    assert seen.tail <= len(life.content)
    assert seen.first <= life.first
    assert life.closed or not seen.closed
    assert all(life.claims.get(who, (0, 0)) >= claim for who, claim in seen.claims.items() if isinstance(who, str))


def covered(start: int, end: int, ranges: list[tuple[int, int]]) -> bool:
    for first, last in sorted(ranges):
        if first <= start:
            start = max(start, last)
    return start >= end


def goes_on(files: Files) -> None:
    """It takes appends, closes, and says the same when it is opened again."""
    disk = disk_of(files)
    store = open_quietly(disk)
    said: dict[str, object] = {}
    for name in list(store.names()):
        stream = store.stream(name)
        if not stream.info().closed:
            stream.append(b"1")
    store.create("new", data=b"a new stream")
    for name in list(store.names()):
        said[name] = tell(store, name)
    store.close()
    for _ in range(2):
        store = open_quietly(disk)
        assert {name: tell(store, name) for name in store.names()} == said
        store.close()


def tell(store: Store, name: str) -> tuple[object, list[bytes]]:
    """What there is of a stream, and every byte of it that can be read."""
    info = store.stream(name).info()
    parts, offset = [], info.first
    while offset < info.tail:
        chunk = tried(store.engine.read, name, offset, 2**20)
        if isinstance(chunk, Corruption):
            offset += 256
        else:
            parts.append(chunk.data)
            offset = chunk.next_offset
    return info, parts
