"""What a repair makes of each thing that may be damaged: what verifies is kept, the rest is told, all works again."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from random import Random

import pytest
from damaged_stores import (
    CLOCK,
    PAGE,
    Known,
    Truth,
    Writer,
    assert_works,
    build,
    built,
    double,
    flip,
    mend,
    missing,
    opened,
    places,
    truncate,
    zero,
)
from twins import SMALL, Clock, TwinDirectory, copy_of, open_store

from durable_log.engine.chain import Damage
from durable_log.engine.cluster import CHUNK, ROW_SIZE, ClusteredSegment
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.format import lsn_of
from durable_log.engine.index import LOST, add_place, clustered_segment, is_clustered
from durable_log.engine.log_repair import _causes, mend_log
from durable_log.engine.manifest import MANIFEST_NAME, UNFINISHED_NAME
from durable_log.engine.quarantine import Finding
from durable_log.engine.repair import Outcome, repair
from durable_log.engine.run import Run
from durable_log.engine.salvage import entry_at, open_damaged
from durable_log.engine.state import StreamState
from durable_log.errors import Corruption, NotAStore, StreamClosed
from durable_log.model import StreamConfig

STREAMS = [f"s{number:02}" for number in range(30)]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def known() -> Known:
    return built().copy()


def repaired(known: Known) -> tuple[Outcome, dict[str, set[int]]]:
    """The outcome, and which offsets of which streams are not there any more; all else was tried out."""
    outcome = mend(known.directory)
    assert outcome.number == 1
    assert mend(known.directory).number == 0, "nothing is left to repair"
    with opened(known.copy()) as store:
        lost = missing(store, known)
        assert not store.report.damage
        assert not set(store.names()) & known.deleted
        for name, start, end in outcome.lost:
            with pytest.raises(Corruption, match="lost") as caught:
                store.stream(name).read(start)
            assert caught.value.file == "quarantine/0001/report.txt"
            assert set(range(start, end)) <= lost[name], "what is reported is what is lost"
        for name, truth in known.streams.items():
            assert not truth.closed or store.stream(name).info().closed, "closed stays closed"
        assert list(store.engine.upkeep.audit()) == []
        assert_works(store, list(store.names()))
    return outcome, {name: offsets for name, offsets in lost.items() if offsets}


def closed_by(outcome: Outcome) -> set[str]:
    return {finding.name for finding in outcome.findings if finding.kind == "closed"}


def kept(known: Known) -> dict[str, bytes]:
    folder = known.directory.folder("quarantine").folder("0001")
    return {name: file.read(0, file.size()) for name, file in folder.files.items()}


def in_segment(known: Known) -> tuple[str, ClusteredSegment]:
    name = known.names(".seg")[0]
    segment = ClusteredSegment.open(known.directory, name)
    assert segment is not None
    return name, segment


def test_a_sound_store_is_left_alone(known: Known):
    before = {name: file.read(0, file.size()) for name, file in known.directory.files.items()}
    outcome = mend(known.directory)
    assert (outcome.number, outcome.findings, outcome.lost) == (0, [], [])
    assert {name: file.read(0, file.size()) for name, file in known.directory.files.items()} == before


# --- the log ------------------------------------------------------------------------------------------------------


def data_frame(known: Known) -> tuple[str, int, int, str, int]:
    """A record amid the log: stream, start, end, file, position; a later one of the same stream follows."""
    for name in STREAMS:
        if name not in known.streams:
            continue
        found = [entry for entry in places(known, name) if not is_clustered(entry[2])]
        if len(found) > 2:
            start, end, place = found[1]
            return name, start, end, f"{place >> 32:08x}.log", place & 0xFFFFFFFF
    raise AssertionError("no stream has three records in the log")


@pytest.mark.parametrize("where", ["payload", "frame header", "block header"])
def test_damage_amid_the_log_costs_its_record_and_the_log_is_clustered_again(known: Known, where: str):
    name, start, end, file, position = data_frame(known)
    at = {"payload": position + 60, "frame header": position + 9, "block header": position // PAGE * PAGE + 20}[where]
    before = known.directory.files[file].read(0, 2**20)
    flip(known.directory, file, at)
    damaged = known.directory.files[file].read(0, 2**20)
    outcome, lost = repaired(known)
    assert lost.keys() == {name}
    assert lost[name] == set(range(start, end))
    assert outcome.lost == [(name, start, end)]
    assert kept(known)[file] == damaged != before
    cause = next(finding for finding in outcome.findings if finding.kind == "lost")
    assert (cause.file, cause.name, cause.start, cause.end) == (file, name, start, end)
    assert position // PAGE * PAGE >= cause.position
    with opened(known) as store:
        assert store.stats()["clustering_debt_bytes"] == 0


def test_a_log_segment_without_a_header_is_read_all_the_same(known: Known):
    for file in known.names(".log")[1:-1]:
        damaged = known.copy()
        zero(damaged.directory, file, 0)
        _, lost = repaired(damaged)
        assert lost == {}


def test_a_missing_log_segment_costs_its_records(known: Known):
    *_, file, _ = data_frame(known)
    held = {
        name: {offset for start, end, place in places(known, name) for offset in range(start, end)
               if f"{place >> 32:08x}.log" == file}
        for name in known.streams
    }  # fmt: skip
    known.directory.remove(file)
    _, lost = repaired(known)
    assert lost
    for name, offsets in lost.items():
        assert offsets <= held[name], name


def test_what_a_stream_without_creation_has_is_found_again(known: Known):
    """Of a stream that the log creates, the creation is damaged."""
    contents = {name: known.directory.files[name].read(0, 2**20) for name in known.names(".log")}
    file = next(name for name, content in contents.items() if b"young" in content)
    flip(known.directory, file, contents[file].index(b"young"))
    outcome = mend(known.directory)
    revived = [finding.name for finding in outcome.findings if finding.kind == "revived"]
    number = known.streams["young"].number
    assert revived == [f"lost+found/{number}"]
    with opened(known) as store:
        stream = store.stream(f"lost+found/{number}")
        assert stream.read().data == known.streams["young"].content
        with pytest.raises(StreamClosed):
            stream.append(b"more")
        stream.delete()
        store.create("young", data=b"anew")
        store.engine.upkeep.cluster()


def test_a_log_that_went_on_behind_a_segment_without_a_header_loses_nothing():
    """The newest segment had no header, and the store was used: nothing was given out again."""
    known = Known(MemoryDirectory(), {}, set())
    with opened(known) as store:
        store.engine.upkeep._clusterer.stop()
        store.create("a")
        for _ in range(8):
            store.stream("a").append(b"a" * 9000)
        first = known.copy()
    file = first.names(".log")[-1]
    flip(first.directory, file, 10)
    with opened(first) as store:
        store.engine.upkeep._clusterer.stop()
        assert store.stream("a").append(b"z" * 100).offset == 72_000
        second = first.copy()
    before = second.directory.files[file].read(0, 2**20)
    outcome = mend(second.directory)
    assert (file, "the file header fails its checksum") in {(one.file, one.reason) for one in outcome.findings}
    assert outcome.lost == []
    assert kept(second)[file] == before
    assert mend(second.directory).number == 0
    with opened(second) as store:
        assert store.stream("a").read().data == b"a" * 72_000 + b"z" * 100
        assert list(store.engine.upkeep.audit()) == []


# --- clustered segments -------------------------------------------------------------------------------------------


def test_a_damaged_page_of_a_clustered_segment_costs_that_page(known: Known):
    name, segment = in_segment(known)
    row = next(segment.row(number) for number in range(segment.rows_count) if segment.row(number).end > 3 * PAGE)
    flip(known.directory, name, row.payload_position + PAGE + 7)
    outcome, lost = repaired(known)
    stream = next(key for key, truth in known.streams.items() if truth.number == row.stream)
    assert lost == {stream: set(range(row.start + PAGE, row.start + 2 * PAGE))}
    assert outcome.lost == [(stream, row.start + PAGE, row.start + 2 * PAGE)]
    assert name in kept(known)
    assert name not in known.directory.names()


def test_records_around_a_lost_page_keep_their_bounds(known: Known):
    name, segment = in_segment(known)
    row = next(segment.row(number) for number in range(segment.rows_count) if segment.row(number).end > 4 * PAGE)
    stream = next(key for key, truth in known.streams.items() if truth.number == row.stream)
    with opened(known.copy()) as store:
        bounds = {at: store.engine.record_bounds(stream, at) for at in range(row.start, row.end, 100)}
    flip(known.directory, name, row.payload_position + PAGE + 7)
    mend(known.directory)
    lost = (row.start + PAGE, row.start + 2 * PAGE)
    with opened(known) as store:
        for at, (start, end) in bounds.items():
            found = store.engine.record_bounds(stream, at)
            if end <= lost[0] or start >= lost[1]:
                assert found == (start, end)
            elif at < lost[0]:
                assert found == (start, lost[0])
            elif at >= lost[1]:
                assert found == (lost[1], end)
            else:
                assert found == lost


def test_a_damaged_entry_costs_its_chunk(known: Known):
    name, segment = in_segment(known)
    row = segment.row(2)
    flip(known.directory, name, row.entries_position + 9)
    _, lost = repaired(known)
    stream = next(key for key, truth in known.streams.items() if truth.number == row.stream)
    first = max(row.start, known.streams[stream].first)
    assert lost == {stream: set(range(first, min(row.end, row.start + CHUNK)))}


@pytest.mark.parametrize("rows", [(0,), (2, 3), (5,)])
def test_a_damaged_row_is_worked_out_from_its_entries(known: Known, rows: tuple[int, ...]):
    name, segment = in_segment(known)
    for row in rows:
        flip(known.directory, name, segment.trailer.rows_position + row * ROW_SIZE + 18)
    _, lost = repaired(known)
    assert lost == {}


def test_rows_that_cannot_be_worked_out_cost_their_bytes_and_nobody_elses(known: Known):
    """The first entry of row 2 is damaged, too, so nobody knows where the bytes of row 3 begin."""
    name, segment = in_segment(known)
    held = {segment.row(row).stream for row in (2, 3)}
    flip(known.directory, name, segment.row(2).entries_position + 9)
    for row in (2, 3):
        flip(known.directory, name, segment.trailer.rows_position + row * ROW_SIZE + 18)
    outcome, lost = repaired(known)
    assert {known.streams[stream].number for stream in lost} == held
    rows = [finding for finding in outcome.findings if finding.reason == "a row fails its checksum"]
    assert {(row.file, row.position) for row in rows} == {
        (name, segment.trailer.rows_position + row * ROW_SIZE) for row in (2, 3)
    }


def long_stream() -> Known:
    """One clustered stream of some chunks."""
    directory = MemoryDirectory()
    content = b"".join(bytes([97 + number]) * 10_000 for number in range(20))
    with opened(Known(directory, {}, set())) as store:
        stream = store.create("a")
        for number in range(20):
            stream.append(content[number * 10_000 : (number + 1) * 10_000])
        store.create("b", data=b"b" * 100)
        truth = {"a": Truth(1, content), "b": Truth(2, b"b" * 100)}
    return Known(directory, truth, set())


def test_a_damaged_row_of_many_chunks_is_worked_out_from_all_of_its_entries():
    known = long_stream()
    name, segment = in_segment(known)
    assert segment.row(0).end > 2 * CHUNK
    flip(known.directory, name, segment.trailer.rows_position + 18)
    _, lost = repaired(known)
    assert lost == {}


def test_a_damaged_row_is_worked_out_up_to_an_entry_that_is_damaged_too():
    known = long_stream()
    name, segment = in_segment(known)
    first = entry_at(segment, segment.row(0).entries_position)
    flip(known.directory, name, segment.trailer.rows_position + 18)
    flip(known.directory, name, segment.trailer.entries_position + first.size + 9)
    _, lost = repaired(known)
    assert lost == {"a": set(range(CHUNK, 200_000))}


@pytest.mark.parametrize("where", ["length", "ends"])
def test_an_entry_that_says_it_is_longer_than_any_is_none(known: Known, where: str):
    name, segment = in_segment(known)
    row = segment.row(2)
    known.directory.files[name].write(row.entries_position + {"length": 4, "ends": 28}[where], b"\xff\xff\xff\x7f")
    assert entry_at(segment, row.entries_position) is None
    assert entry_at(segment, segment.trailer.size - 4) is None, "and none begins behind the last"
    _, lost = repaired(known)
    assert len(lost) == 1


@pytest.mark.parametrize("segment_max", [2**26, 1])
def test_what_is_left_of_a_damaged_segment_may_take_many_blocks_and_many_segments(
    known: Known, monkeypatch: pytest.MonkeyPatch, segment_max: int
):
    monkeypatch.setattr("durable_log.engine.mend._BLOCK_MAX", 1)
    monkeypatch.setattr("durable_log.engine.mend._SEGMENT_MAX", segment_max)
    before = len(known.names(".seg"))
    name, segment = in_segment(known)
    row = next(segment.row(number) for number in range(segment.rows_count) if segment.row(number).end > 4 * PAGE)
    flip(known.directory, name, row.payload_position + PAGE + 7)
    _, lost = repaired(known)
    assert [len(offsets) for offsets in lost.values()] == [PAGE]
    assert (len(known.names(".seg")) > before + 1) == (segment_max == 1)


def test_what_one_repair_found_lost_the_next_one_does_not_find_again():
    known = long_stream()
    name, segment = in_segment(known)
    flip(known.directory, name, segment.row(0).payload_position + 5)
    assert mend(known.directory).lost == [("a", 0, PAGE)]
    name, segment = in_segment(known)
    flip(known.directory, name, segment.row(0).payload_position + 5)
    second = mend(known.directory)
    assert second.number == 2
    assert second.lost == [("a", PAGE, 2 * PAGE)]
    assert [(one.name, one.start) for one in second.findings if one.kind == "lost"] == [("a", PAGE)]


def test_a_damaged_segment_that_cannot_be_read_is_closed_again(known: Known):
    def fail(proceed: Callable[[], object]) -> object:
        raise OSError(errno.EIO, "Input/output error")

    twin = TwinDirectory(known.directory)
    twin.hooks["read"] = fail
    with pytest.raises(OSError, match="Input/output error"):
        open_damaged(twin, known.names(".seg")[0], bytes(16), 1)
    assert [what for what, _ in twin.calls] == ["open", "read", "close"]


@pytest.mark.parametrize("where", ["header", "trailer"])
def test_a_clustered_segment_without_a_header_or_a_trailer_loses_nothing(known: Known, where: str):
    for name in known.names(".seg"):
        damaged = known.copy()
        size = damaged.directory.files[name].size()
        flip(damaged.directory, name, 20 if where == "header" else size - 10)
        _, lost = repaired(damaged)
        assert lost == {}


def test_a_missing_clustered_segment_costs_what_it_held(known: Known):
    name = known.names(".seg")[1]
    held = {
        stream: {offset for start, end, place in places(known, stream) for offset in range(start, end)
                 if is_clustered(place) and f"{clustered_segment(place):08x}.seg" == name}
        for stream in known.streams
    }  # fmt: skip
    known.directory.remove(name)
    outcome, lost = repaired(known)
    assert lost
    for stream, offsets in lost.items():
        assert offsets <= held[stream] | held.get("s06", set()), stream
    assert all(finding.file == name for finding in outcome.findings if finding.kind == "lost")


# --- runs ---------------------------------------------------------------------------------------------------------


def test_a_damaged_page_of_rows_costs_no_byte_and_closes_what_nobody_can_know_of(known: Known):
    name = known.names(".run")[-1]
    flip(known.directory, name, PAGE + 100)
    run = Run.open(known.directory, name)
    assert run is not None
    outcome, lost = repaired(known)
    assert lost == {}
    closed = closed_by(outcome)
    assert closed
    with opened(known) as store:
        for stream in closed & known.streams.keys():
            with pytest.raises(StreamClosed):
                store.stream(stream).append(b"x")
        for stream in known.streams.keys() - closed:
            assert store.stream(stream).info().closed == known.streams[stream].closed
        assert closed < known.streams.keys() | known.deleted


def test_an_older_row_that_is_damaged_and_superseded_costs_nothing(known: Known):
    name = known.names(".run")[0]
    for page in range(1, 4):
        zero(known.directory, name, page)
    outcome, lost = repaired(known)
    assert lost == {}
    assert len(closed_by(outcome)) < 5


@pytest.mark.parametrize("where", ["header", "trailer", "tables", "numbers", "names"])
def test_all_else_of_a_run_is_made_anew_without_loss(known: Known, where: str):
    for name in known.names(".run"):
        damaged = known.copy()
        run = Run.open(damaged.directory, name)
        assert run is not None
        trailer, size = run.trailer, run.size
        at = {
            "header": 20,
            "trailer": size - 4000,
            "tables": trailer.tables_position + 2,
            "numbers": trailer.numbers_position + 20,
            "names": trailer.names_position + 20,
        }[where]
        flip(damaged.directory, name, at)
        outcome, lost = repaired(damaged)
        assert lost == {}
        assert closed_by(outcome) == set()


def test_a_missing_run_is_made_up_for_by_clustered_segments_and_older_rows(known: Known):
    newest = known.names(".run")[-1]
    known.directory.remove(newest)
    outcome = mend(known.directory)
    assert mend(known.directory).number == 0
    with opened(known) as store:
        lost = missing(store, known)
        found = {name for name in store.names() if name.startswith("lost+found/")}
        numbers = {int(name.partition("/")[2]): name for name in found}
        for name in lost:
            truth = known.streams[name]
            stream = store.stream(numbers[truth.number])
            info = stream.info()  # of a fork, its own bytes
            assert stream.read(info.first).data == truth.content[info.first : info.tail]
        assert_works(store, list(store.names()))
    assert closed_by(outcome)


# --- the manifest, and several things at once ---------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["header", "block", "missing"])
def test_a_manifest_is_made_anew_without_loss(known: Known, damage: str):
    if damage == "missing":
        known.directory.remove(MANIFEST_NAME)
    else:
        flip(known.directory, MANIFEST_NAME, 20 if damage == "header" else PAGE + 70)
    greatest = max(truth.number for truth in known.streams.values())
    outcome, lost = repaired(known)
    assert lost == {}
    assert closed_by(outcome) == set()
    with opened(known) as store:
        assert len(store.engine) == len(list(store.names())) == len(known.streams)
        assert store.create("next").info().number > greatest


def test_a_manifest_that_is_made_anew_forgives_what_a_crash_may_have_taken():
    """The one that was lost remembered the crash, and no row is newer than that."""
    clock, known = Clock(), Known(MemoryDirectory(), {}, set())
    with open_store(known.directory, SMALL, clock) as store:
        store.create("s", ttl=100, data=b"x")
    with open_store(known.directory, SMALL, clock) as store:
        clock.now += 59
        assert store.stream("s").read().data == b"x"
        known = known.copy()
    open_store(known.directory, SMALL, clock).close()
    flip(known.directory, MANIFEST_NAME, 30)
    assert repair(known.directory, clock, lambda outcome: (b"", b"{}")).number == 1
    clock.now += 60
    with open_store(known.directory, SMALL, clock) as store:
        assert list(store.names()) == ["s"]
        assert store.stream("s").read().data == b"x"


def with_older_manifests() -> list[tuple[str, Known]]:
    """The same store, open or closed, with each manifest that it had before: nothing else is damaged."""
    older, directory = list[bytes](), MemoryDirectory()
    store = open_store(directory, SMALL, CLOCK)
    store.engine.upkeep._clusterer.stop()
    writer = Writer(store, Random(5))
    for turn in range(4):
        older.append(directory.files[MANIFEST_NAME].read(0, 2**20))
        for name in ("a", "b"):
            writer.create(f"{name}{turn}")
        for number in range(12):
            writer.append(f"a{number % (turn + 1)}", 3000)
        if turn == 2:
            writer.delete("b0")
        store.engine.upkeep.cluster()
    writer.append("b3", 5)
    known = Known(copy_of(directory), writer.truth(), writer.deleted)
    store.close()
    states = {"at work": known, "closed": Known(copy_of(directory), known.streams, known.deleted)}
    found = []
    for what, state in states.items():
        for number, manifest in enumerate(older):
            damaged = state.copy()
            damaged.directory.create(MANIFEST_NAME).write(0, manifest)
            found.append((f"{what}, {number}", damaged))
    return found


@pytest.mark.parametrize(("what", "known"), with_older_manifests())
def test_a_manifest_that_is_not_the_newest_one_is_made_anew_without_loss(what: str, known: Known):
    """Files that it does not name had been removed for it."""
    before = set(known.directory.names())
    with pytest.raises(Corruption, match=r"it is older than|it is not there"):
        opened(known)
    assert set(known.directory.names()) == before
    outcome, lost = repaired(known)
    assert lost == {}
    assert closed_by(outcome) == set()
    assert kept(known).keys() >= {MANIFEST_NAME}


def of_another_store(known: Known, suffix: str) -> str:
    """Put a file of a store that was made alike in the place of one; its name."""
    name = known.names(suffix)[len(known.names(suffix)) // 2]
    other = build(1)
    content = other.directory.files[name].read(0, 2**20)
    assert content != known.directory.files[name].read(0, 2**20)
    known.directory.create(name).write(0, content)
    return name


@pytest.mark.parametrize("suffix", [".seg", ".run", ".log"])
def test_a_file_of_another_store_is_as_good_as_none(known: Known, suffix: str):
    missing_file, mixed_up = known.copy(), known.copy()
    name = of_another_store(mixed_up, suffix)
    other = mixed_up.directory.files[name].read(0, 2**20)
    missing_file.directory.remove(name)
    _, expected = repaired(missing_file)
    outcome, lost = repaired(mixed_up)
    assert lost == expected
    assert {finding.file for finding in outcome.findings if finding.kind == "moved"} >= {name}
    assert kept(mixed_up)[name] == other


def test_a_manifest_of_another_store_is_made_anew_without_loss(known: Known):
    of_another_store(known, MANIFEST_NAME)
    outcome, lost = repaired(known)
    assert lost == {}
    assert closed_by(outcome) == set()
    reasons = [finding.reason for finding in outcome.findings if finding.file == MANIFEST_NAME]
    assert "the file is one of another store" in reasons


def test_what_is_no_store_is_left_alone():
    directory = MemoryDirectory()
    directory.create("notes.txt").write(0, b"of somebody")
    with pytest.raises(Exception, match="not a durable_log store"):
        mend(directory)
    assert directory.names() == ["notes.txt"]


def test_several_things_at_once(known: Known):
    flip(known.directory, MANIFEST_NAME, 30)
    flip(known.directory, known.names(".seg")[0], 2 * PAGE)
    truncate(known.directory, known.names(".seg")[1], known.directory.files[known.names(".seg")[1]].size() - 30)
    double(known.directory, known.names(".run")[1], 1, 2)
    zero(known.directory, known.names(".log")[2], 0)
    flip(known.directory, known.names(".log")[3], 2 * PAGE + 99)
    outcome, lost = repaired(known)
    assert {finding.file for finding in outcome.findings if finding.kind == "moved"} == {
        MANIFEST_NAME, "00000001.seg", "00000003.seg", "00000004.run",
        "00000024.log", "00000025.log",
    }  # fmt: skip
    assert sum(map(len, lost.values())) < 40_000


def test_two_repairs_have_two_reports(known: Known):
    name, segment = in_segment(known)
    flip(known.directory, name, segment.row(4).payload_position)
    assert mend(known.directory).number == 1
    name, segment = in_segment(known)
    flip(known.directory, name, segment.row(9).payload_position)
    second = mend(known.directory)
    assert second.number == 2
    with opened(known) as store:
        reports = {report for _, _, _, report in store.engine.upkeep.losses()}
        assert reports == {1, 2}
        store.compact()
        assert {report for _, _, _, report in store.engine.upkeep.losses()} == reports


def test_lost_ranges_survive_compaction_forks_and_backups(known: Known, tmp_path):
    name, segment = in_segment(known)
    row = next(segment.row(number) for number in range(segment.rows_count) if segment.row(number).end > 3 * PAGE)
    stream = next(key for key, truth in known.streams.items() if truth.number == row.stream)
    flip(known.directory, name, row.payload_position + PAGE + 7)
    mend(known.directory)
    with opened(known) as store:
        store.create("branch", fork_of=stream)
        store.compact()
        target = MemoryDirectory()
        store.engine.upkeep.backups.fill(target, verify=True)
        for each in (stream, "branch"):
            with pytest.raises(Corruption, match="lost"):
                store.stream(each).read(row.start + PAGE)
            assert store.stream(each).read(row.start + 2 * PAGE).data
    assert "quarantine" not in target.names()
    with opened(Known(target, known.streams, known.deleted)) as copy, pytest.raises(Corruption, match="lost"):
        copy.stream(stream).read(row.start + PAGE)


def test_a_run_that_is_damaged_while_the_repair_goes_on_is_mended_when_it_is_run_again(
    known: Known, monkeypatch: pytest.MonkeyPatch
):
    def and_then_damage(directory: MemoryDirectory, *rest: object) -> None:
        mend_log(directory, *rest)  # type: ignore[arg-type]
        flip(directory, known.names(".run")[-1], 20)

    *_, file, position = data_frame(known)
    flip(known.directory, file, position + 60)
    with monkeypatch.context() as patched:
        patched.setattr("durable_log.engine.repair.mend_log", and_then_damage)
        with pytest.raises(Corruption, match="the file header or the trailer fails"):
            mend(known.directory)
    assert mend(known.directory).number == 1, "it goes on in the same quarantine"
    assert mend(known.directory).number == 0


def test_a_backup_that_was_not_finished_is_not_repaired(known: Known):
    known.directory.remove(MANIFEST_NAME)
    known.directory.create(UNFINISHED_NAME)
    with pytest.raises(NotAStore, match="the backup into it was not finished"):
        mend(known.directory)


def test_lost_bytes_that_no_damage_explains_are_told_all_the_same():
    state = StreamState(1, "a", StreamConfig("text/plain"), 0)
    add_place(state.index, 100, lsn_of(1, PAGE))
    add_place(state.index, 150, LOST)
    before = Damage(lsn_of(0, PAGE), lsn_of(0, 2 * PAGE), True, "a block's body fails its checksum")
    assert _causes(state, 0, [before], 7) == [
        Finding("lost", "quarantine/0007/report.txt", 0, "nothing is left that holds them", "a", 100, 150)
    ]


def test_a_manifest_is_made_anew_although_the_first_block_of_the_log_is_damaged_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("durable_log.engine.commit.IDLE_SECONDS", 3600.0)
    directory = MemoryDirectory()
    with open_store(directory, SMALL, CLOCK) as store:
        store.create("a", data=b"a" * 100)
        store.engine.upkeep.cluster()
        store.stream("a").append(b"first")
        store.stream("a").append(b"second")
        damaged = copy_of(directory)
    [name] = [name for name in damaged.names() if name.endswith(".log")]
    flip(damaged, name, PAGE + 20)
    flip(damaged, MANIFEST_NAME, 30)
    assert mend(damaged).lost == [("a", 100, 105)]
    assert mend(damaged).number == 0
    with open_store(damaged, SMALL, CLOCK) as store:
        assert store.stream("a").read().data == b"a" * 100
        assert store.stream("a").read(105).data == b"second"


def test_a_folder_that_somebody_made_is_no_repair_that_was_not_finished(known: Known):
    known.directory.folder("quarantine").folder("0001")
    assert mend(known.directory).number == 0
    assert known.directory.folder("quarantine").folder("0001").names() == []
    flip(known.directory, MANIFEST_NAME, 30)
    assert mend(known.directory).number == 1
