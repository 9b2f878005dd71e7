"""Stores of every version of the format open, verify, hold what they held, and go on."""

from __future__ import annotations

import pytest
from stories import FOLDER, STORIES, VERSION, Golden, decoded, made

import durable_log
from durable_log.errors import Corruption
from durable_log.store import Store

PATHS = sorted(FOLDER.glob("*/*.json"))
MOVED = (
    f"the engine writes other bytes than those of {VERSION}: if that format was released, raise the version, have "
    "tests/golden/write.py write a new folder, and never change an old one; if it was not, write it anew with --replace"
)


@pytest.fixture(params=PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def golden(request: pytest.FixtureRequest) -> Golden:
    return decoded(request.param.read_text("utf-8"))


def holds(store: Store, golden: Golden, more: bytes = b"") -> None:
    """Every stream is what it was, and holds what it held, but where the golden store itself is damaged."""
    for name, facts in golden.streams.items():
        stream = store.stream(name)
        info, content = stream.info(), facts["content"][: facts["tail"]]
        content += b"" if facts["closed"] or facts["content_type"] == "application/json" else more
        assert (info.number, info.content_type, info.first, info.tail, info.closed) == (
            facts["number"], facts["content_type"], facts["first"], len(content), facts["closed"],
        )  # fmt: skip
        offset = info.first
        for start, end in [*facts["holes"], (len(content), len(content))]:
            while offset < start:
                chunk = store.engine.read(name, offset, start - offset)
                assert chunk.data == content[offset : chunk.next_offset]
                offset = chunk.next_offset
            if start < end:
                with pytest.raises(Corruption):
                    store.engine.read(name, start, end - start)
                offset = end
        state = store.engine._catalog.get(name)
        assert {who: [one.epoch, one.seq] for who, one in (state.producers or {}).items()} == facts["claims"]
        assert state.last_seq == facts["seq"]


def test_a_golden_store_holds_what_it_held_and_goes_on(golden, tmp_path):
    for name, content in golden.files.items():
        (tmp_path / name).write_bytes(content)
    names = sorted(golden.streams)
    with durable_log.open(tmp_path, clock=lambda: 1_900_000_001.0) as store:
        assert (len(store.report.damage), store.report.cut) == (golden.damaged, golden.cut)
        assert bool(store.engine.upkeep.check_files()) == bool(golden.damaged)
        assert list(store.names()) == names
        holds(store, golden)
        for name, facts in golden.streams.items():
            if not facts["closed"] and facts["content_type"] != "application/json":
                store.stream(name).append(b" and on")
        store.create("new", data=b"new")
    for _ in range(2):
        with durable_log.open(tmp_path, clock=lambda: 1_900_000_002.0) as store:
            assert list(store.names()) == sorted([*names, "new"])
            holds(store, golden, b" and on")
            store.engine.check()
            if not golden.damaged:
                store.compact()
                holds(store, golden, b" and on")


@pytest.mark.parametrize("name", STORIES)
def test_the_engine_writes_the_golden_stores_byte_for_byte(name):
    golden, now = decoded((FOLDER / VERSION / f"{name}.json").read_text("utf-8")), made(name)
    for file in sorted({*golden.files, *now.files}):
        old, new = golden.files.get(file, b""), now.files.get(file, b"")
        differing = next((at for at, (one, two) in enumerate(zip(old, new, strict=False)) if one != two), None)
        assert old == new, f"{name}/{file}, {len(old)} and {len(new)} bytes, from position {differing} on: {MOVED}"
    assert now == golden, MOVED


def test_there_is_a_folder_for_what_is_written_now_and_each_has_every_story_that_it_began_with():
    assert {path.stem for path in PATHS if path.parent.name == VERSION} == set(STORIES)
    assert all(path.stat().st_size < 30_000 for path in PATHS)
