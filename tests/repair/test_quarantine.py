"""The folders of repairs: which of them are a repair's, which one goes on, and what else may lie beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from damaged_stores import CLOCK, PAGE, Known, built, flip, mend
from twins import copy_of

from durable_log.engine.files import DiskDirectory, directory_to_look_at
from durable_log.engine.overlay import OverlayDirectory
from durable_log.engine.quarantine import (
    FINDINGS,
    QUARANTINE,
    REPORT_JSON,
    REPORT_TEXT,
    Finding,
    Quarantine,
    unfinished,
)
from durable_log.engine.repair import Outcome, repair


class Killed(BaseException):
    """The process is no more."""


@pytest.fixture
def known() -> Known:
    """A store with a damaged page in a clustered segment."""
    damaged = built().copy()
    flip(damaged.directory, damaged.names(".seg")[0], PAGE + 99)
    return damaged


def folder_of(known: Known, number: int) -> list[str]:
    return known.directory.folder(QUARANTINE).folder(f"{number:04}").names()


def interrupted(known: Known) -> None:
    """A repair that is killed when all is done but the report."""

    def kill(_outcome: Outcome) -> tuple[bytes, bytes]:
        raise Killed

    with pytest.raises(Killed):
        repair(known.directory, CLOCK, kill)
    assert REPORT_JSON not in folder_of(known, 1)


def test_an_empty_folder_that_a_person_made_is_no_repair():
    known = built().copy()
    known.directory.folder(QUARANTINE).folder("0001")
    assert unfinished(known.directory) is None
    assert mend(known.directory).number == 0
    assert folder_of(known, 1) == []


def test_an_empty_folder_is_as_good_as_a_new_one(known: Known):
    known.directory.folder(QUARANTINE).folder("0007")
    assert mend(known.directory).number == 7
    assert {FINDINGS, REPORT_TEXT, REPORT_JSON} < set(folder_of(known, 7))


def test_a_folder_with_something_else_in_it_is_left_alone(known: Known):
    segment = known.names(".seg")[0]
    known.directory.folder(QUARANTINE).folder("0007").create(segment).write(0, b"kept by a person")
    assert mend(known.directory).number == 8
    assert folder_of(known, 7) == [segment]
    assert segment in folder_of(known, 8)
    assert mend(known.directory).number == 0


def test_a_repair_goes_on_whatever_has_a_higher_number(known: Known):
    Quarantine(known.directory, 3).add(())
    known.directory.folder(QUARANTINE).folder("0009").create("notes").write(0, b"mine")
    assert mend(known.directory).number == 3


@pytest.mark.parametrize("name", ["0000", "00001", "12345678901", "\u0663\u0663\u0663\u0663", "old"])
def test_what_is_not_named_as_a_repair_does_not_count(known: Known, name: str):
    known.directory.folder(QUARANTINE).folder(name)
    assert mend(known.directory).number == 1


def on_disk(known: Known, path: Path) -> DiskDirectory:
    for name, file in known.directory.files.items():
        (path / name).write_bytes(file.read(0, file.size()))
    return DiskDirectory(path)


def test_files_where_folders_belong_are_told_or_passed_over(known: Known, tmp_path):
    disk = on_disk(known, tmp_path)
    (tmp_path / QUARANTINE).touch()
    with pytest.raises(NotADirectoryError, match="a repair needs a folder of that name"):
        mend(disk)
    (tmp_path / QUARANTINE).unlink()
    (tmp_path / QUARANTINE).mkdir()
    (tmp_path / QUARANTINE / "0002").touch()
    assert mend(disk).number == 3
    assert mend(disk).number == 0


def test_a_rehearsal_says_the_same_of_files_where_folders_belong(known: Known, tmp_path):
    on_disk(known, tmp_path)
    (tmp_path / QUARANTINE).touch()
    with pytest.raises(NotADirectoryError, match="a repair needs a folder of that name"):
        mend(OverlayDirectory(directory_to_look_at(tmp_path)))
    (tmp_path / QUARANTINE).unlink()
    (tmp_path / QUARANTINE).mkdir()
    (tmp_path / QUARANTINE / "0002").touch()
    assert mend(OverlayDirectory(directory_to_look_at(tmp_path))).number == 3


def test_nothing_needs_a_quarantine_as_long_as_nothing_is_damaged(tmp_path):
    disk = on_disk(built(), tmp_path)
    (tmp_path / QUARANTINE).touch()
    assert mend(disk).number == 0


@pytest.mark.parametrize("spoiled", [b"\xff", b"damage\tone\t", b"lost\ta\tb\tc\td\te\tf\n", b"\t" * 9])
def test_a_repair_whose_notes_are_damaged_is_finished_and_says_so(known: Known, spoiled: bytes):
    whole = mend(copy_of(known.directory))
    interrupted(known)
    known.directory.folder(QUARANTINE).folder("0001").create(FINDINGS).write(0, spoiled)
    outcome = mend(known.directory)
    assert (outcome.number, outcome.lost) == (1, whole.lost)
    assert outcome.findings == [
        Finding("damage", "quarantine/0001/findings.tsv", 0, "what an interrupted repair noted can't all be read")
    ]
    assert REPORT_JSON in folder_of(known, 1)
    assert mend(known.directory).number == 0


def test_of_damaged_notes_all_lines_that_hold_are_taken_over(known: Known):
    whole, segment = mend(copy_of(known.directory)), known.names(".seg")[0]
    interrupted(known)
    notes = known.directory.folder(QUARANTINE).folder("0001").open(FINDINGS)
    notes.write(notes.size(), b"lost\tand no more")
    outcome = mend(known.directory)
    assert [one for one in outcome.findings if one.file == segment] == whole.findings
    assert len(outcome.findings) == len(whole.findings) + 1
