"""Looking for damage in the files of a store: a quick look and a whole one, while it is open; and the log of a copy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from damaged_stores import PAGE, Known, built, flip, make_newer, opened

from durable_log.engine.check import FileFault, check_log
from durable_log.engine.cluster import ROW_SIZE, ClusteredSegment
from durable_log.engine.format import lsn_of, position_of, segment_of
from durable_log.engine.manifest import load_manifest
from durable_log.engine.run import Run
from durable_log.store import Store


@pytest.fixture
def known() -> Known:
    return built().copy()


@pytest.fixture
def store(known: Known) -> Iterator[Store]:
    with opened(known) as store:
        store.engine.upkeep._clusterer.stop()
        yield store


def found(store: Store, *, deep: bool) -> list[FileFault]:
    return store.engine.upkeep.check_files(deep=deep)


@pytest.mark.parametrize("deep", [False, True])
def test_nothing_is_found_in_a_sound_store(store: Store, deep: bool):
    assert found(store, deep=deep) == []


def test_damaged_bytes_of_a_stream_are_found_by_whoever_reads_them(known: Known, store: Store):
    name = known.names(".seg")[0]
    flip(known.directory, name, PAGE + 99)
    assert found(store, deep=False) == []
    assert [(fault.file, fault.position) for fault in found(store, deep=True)] == [(name, PAGE)]


@pytest.mark.parametrize("deep", [False, True])
def test_a_damaged_row_is_found_at_any_look(known: Known, store: Store, deep: bool):
    name = known.names(".seg")[0]
    segment = ClusteredSegment.open(known.directory, name)
    assert segment is not None
    position = segment.trailer.rows_position + 2 * ROW_SIZE
    flip(known.directory, name, position + 18)
    assert (name, position) in [(fault.file, fault.position) for fault in found(store, deep=deep)]


@pytest.mark.parametrize("deep", [False, True])
def test_a_damaged_page_of_a_run_is_found_at_any_look(known: Known, store: Store, deep: bool):
    name = known.names(".run")[-1]
    run = Run.open(known.directory, name)
    assert run is not None
    flip(known.directory, name, PAGE + 99)
    assert (name, PAGE) in [(fault.file, fault.position) for fault in found(store, deep=deep)]


def test_a_header_that_became_one_of_a_newer_version_under_an_open_run_is_damage(known: Known):
    """A run of an older one was opened; what stands there now can't be its header."""
    run = Run.open(known.directory, known.names(".run")[0])
    assert run is not None
    make_newer(known.directory, run.file.name)
    assert run.verify() == [(0, "the file header, the trailer or the tables do not verify")]


def test_bytes_behind_the_header_of_a_run_are_watched_too(known: Known):
    run = Run.open(known.directory, known.names(".run")[0])
    assert run is not None
    flip(known.directory, run.file.name, 2000)
    assert run.verify() == [(0, "the header has changed")]


# --- the log of a copy


def log_of(known: Known) -> tuple[int, list[FileFault]]:
    """The LSN of its last block, and what is found if it has to end with that."""
    with opened(known.copy()) as store:
        last = store.engine._writer.last_lsn
    return last, list(check_log(known.directory, load_manifest(known.directory, 0), last))


def test_a_whole_log_is_sound_and_ends_where_it_has_to(known: Known):
    last, faults = log_of(known)
    assert faults == []
    later = last + PAGE
    [fault] = check_log(known.directory, load_manifest(known.directory, 0), later)
    assert (lsn_of(int(fault.file[:8], 16), fault.position), fault.file[8:]) == (last, ".log")
    assert f"not with that of {segment_of(later):08x}.log position {position_of(later)}" in fault.reason


def test_a_segment_without_a_header_is_told_and_so_are_the_blocks_that_are_missed(known: Known):
    last, _ = log_of(known)
    name = known.names(".log")[-2]
    flip(known.directory, name, 20)
    faults = list(check_log(known.directory, load_manifest(known.directory, 0), last))
    assert (name, 0, "the file header fails its checksum") == faults[0][:3]
    assert [fault.reason for fault in faults[1:]] == ["a block is missing or its header fails its checksum"]
