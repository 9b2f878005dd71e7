"""The rules of the disk that crashes are tested on, one by one: what is sure, what may be, and what never is."""

from __future__ import annotations

from itertools import product

from media import (
    PAGE,
    SECTOR,
    TORN,
    Created,
    DirectorySynced,
    DirectorySyncLost,
    Event,
    Linked,
    Media,
    Note,
    Removed,
    Renamed,
    Synced,
    SyncLost,
    Written,
)

A, B, C = b"a" * SECTOR, b"b" * SECTOR, b"c" * SECTOR
Image = dict[str, bytes]


def disk(*events: Event, files: Image | None = None) -> Media:
    media = Media(files)
    for event in events:
        media.apply(event)
    return media


def images(media: Media, grain: int = SECTOR, *, torn: bool = False) -> list[Image]:
    """Every image that a crash may leave."""
    crash = media.crash(grain, torn=torn)
    found: list[Image] = []
    for digits in product(*(range(choice.radix) for choice in crash.choices)):
        image = crash.image(digits)
        if image not in found:
            found.append(image)
    return found


def contents(media: Media, grain: int = SECTOR, *, torn: bool = False) -> set[bytes]:
    """Everything that a crash may leave of the file ``f``."""
    return {image["f"] for image in images(media, grain, torn=torn)}


def rewritten(*events: Event, content: bytes) -> Media:
    """After these events to the file ``f``, inode -1, which held ``content``."""
    return disk(*events, files={"f": content})


def test_what_was_there_stays():
    assert images(disk(files={"f": A, "g": b""})) == [{"f": A, "g": b""}]


def test_what_is_synced_is_sure():
    media = disk(Created("f", 1), Written(1, 0, A), Synced(1), DirectorySynced())
    assert images(media) == [{"f": A}]


def test_a_note_changes_nothing():
    media = rewritten(Written(-1, 0, B), content=A)
    before = images(media)
    media.apply(Note("whatever"))
    assert images(media) == before


def test_each_written_sector_arrives_or_not():
    media = rewritten(Written(-1, 0, B + B), content=A + A)
    assert contents(media) == {A + A, A + B, B + A, B + B}


def test_in_pages_all_sectors_of_a_write_arrive_together():
    media = rewritten(Written(-1, 0, B + B), content=A + A)
    assert contents(media, PAGE) == {A + A, B + B}


def test_of_a_sector_that_was_written_twice_any_version_may_be_there():
    media = rewritten(Written(-1, 0, B), Written(-1, 0, C), content=A)
    assert contents(media) == {A, B, C}


def test_a_page_is_in_a_state_that_it_was_in():
    media = rewritten(Written(-1, 0, B), Written(-1, SECTOR, C), content=A + A)
    assert contents(media, PAGE) == {A + A, B + A, B + C}
    assert contents(media) == {A + A, B + A, A + C, B + C}


def test_a_write_within_a_sector_leaves_the_rest_of_it():
    media = rewritten(Written(-1, 10, b"xy"), content=A)
    assert contents(media) == {A, A[:10] + b"xy" + A[12:]}


def test_a_write_across_sectors_is_cut_at_their_bounds():
    media = rewritten(Written(-1, SECTOR - 1, b"xy"), content=A + A)
    ends, begins = (A, A[:-1] + b"x"), (A, b"y" + A[1:])
    assert contents(media) == {end + begin for end in ends for begin in begins}


def test_writing_what_is_there_already_leaves_nothing_to_decide():
    media = rewritten(Written(-1, 0, A), content=A)
    assert media.crash().choices == []
    assert media.dirty_sectors(-1) == []


def test_a_torn_sector_holds_a_part_of_the_new_one():
    media = rewritten(Written(-1, 0, B), content=A)
    assert contents(media, torn=True) == {A, B[:TORN] + A[TORN:], B}


def test_a_file_that_grew_has_any_length_in_between_and_zeroes_where_nothing_arrived():
    media = rewritten(Written(-1, SECTOR, B + C[:100]), content=A)
    zeroes = bytes(SECTOR)
    assert contents(media) == {
        A,
        A + B, A + zeroes,
        A + B + C[:100], A + zeroes + C[:100], A + B + zeroes[:100], A + zeroes + zeroes[:100],
    }  # fmt: skip


def test_a_file_that_grew_by_zeroes_has_lengths_only():
    media = rewritten(Written(-1, SECTOR, bytes(3 * SECTOR)), content=A)
    assert [choice.radix for choice in media.crash().choices] == [4]
    assert contents(media) == {A + bytes(count * SECTOR) for count in range(4)}


def test_a_length_that_the_file_had_once_may_be_that_on_disk():
    media = rewritten(Written(-1, 0, b"1" * 10), Written(-1, 10, b"2" * 10), content=b"")
    assert {len(content) for content in contents(media)} == {0, 10, 20}


def test_a_sync_covers_the_file_alone_and_not_its_name():
    media = disk(Created("f", 1), Written(1, 0, A), Synced(1))
    assert images(media) == [{}, {"f": A}]


def test_a_synced_directory_has_the_name_of_a_file_that_may_be_empty():
    media = disk(Created("f", 1), Written(1, 0, A), DirectorySynced())
    assert contents(media) == {b"", bytes(SECTOR), A}


def test_a_sync_of_one_file_says_nothing_of_another():
    media = disk(Written(-1, 0, B), Written(-2, 0, B), Synced(-1), files={"f": A, "g": A})
    assert {tuple(image.values()) for image in images(media)} == {(B, A), (B, B)}


def test_a_rename_has_happened_or_not():
    media = disk(Renamed("f", "g"), files={"f": A})
    assert images(media) == [{"f": A}, {"g": A}]


def test_a_rename_takes_the_place_of_a_file_as_a_whole():
    media = disk(Created("f.tmp", 1), Written(1, 0, B), Synced(1), Renamed("f.tmp", "f"), files={"f": A})
    assert images(media) == [{"f": A}, {"f": B}, {"f": A, "f.tmp": B}]


def test_any_subset_of_the_changes_of_a_directory_counts():
    media = disk(Removed("f"), Removed("g"), files={"f": A, "g": B})
    assert images(media) == [{"f": A, "g": B}, {"f": A}, {"g": B}, {}]


def test_a_rename_may_count_without_the_one_before_it():
    media = disk(Renamed("f", "g"), Renamed("g", "h"), files={"f": A})
    assert {"f": A, "h": A} in images(media)


def test_a_removed_file_comes_back_with_what_it_held():
    media = disk(Written(-1, 0, B), Removed("f"), files={"f": A})
    assert images(media) == [{"f": A}, {}, {"f": B}]


def test_creating_a_name_that_is_there_cuts_its_file():
    media = disk(Created("f", 1), Written(-1, 0, B), files={"f": A + A})
    assert contents(media) == {A + A, b"", bytes(SECTOR), B}
    media.apply(Synced(-1))
    assert contents(media) == {B}


def test_a_linked_file_is_whole_or_not_there():
    assert images(disk(Linked("f", 1, A))) == [{}, {"f": A}]


def test_after_a_sync_that_failed_only_what_it_kept_is_on_disk_and_no_other_sync_brings_the_rest():
    media = rewritten(Written(-1, 0, B + B), SyncLost(-1, frozenset({1})), Synced(-1), content=A + A)
    assert contents(media) == {A + B}


def test_after_a_sync_that_failed_the_length_may_be_the_old_one():
    media = rewritten(Written(-1, SECTOR, B), SyncLost(-1, frozenset({1}), SECTOR), content=A)
    assert contents(media) == {A}


def test_what_is_written_again_after_a_sync_that_failed_can_be_synced():
    media = rewritten(Written(-1, 0, B), SyncLost(-1, frozenset()), Written(-1, 0, B), content=A)
    assert contents(media) == {A, B}
    media.apply(Synced(-1))
    assert contents(media) == {B}


def test_after_a_directory_sync_that_failed_only_what_it_kept_is_on_disk_whatever_is_shown():
    media = disk(Removed("f"), Removed("g"), DirectorySyncLost(frozenset({1})), files={"f": A, "g": B})
    assert media.shown() == {}
    media.apply(DirectorySynced())
    assert images(media) == [{"f": A}]


def test_the_first_digits_are_what_was_durable_and_the_last_what_was_written():
    media = disk(Written(-1, 0, B), Created("g", 1), Written(1, 0, C), Removed("h"), files={"f": A, "h": A})
    crash = media.crash()
    assert crash.image([0] * len(crash.choices)) == {"f": A, "h": A}
    assert crash.image([choice.radix - 1 for choice in crash.choices]) == media.shown() == {"f": B, "g": C}
    assert len(crash.choices) - crash.entries_from == 2


def test_a_crash_can_be_told_in_words():
    media = disk(Written(-1, 0, B), Renamed("f", "g"), files={"f": A})
    assert media.crash().told([1, 0]) == [
        "file -1 (g), bytes from 0 on: new",
        "the change of the entries ['f', 'g']: old",
    ]


def test_a_copy_goes_its_own_way():
    media = rewritten(Written(-1, 0, B), content=A)
    twin = media.copy()
    twin.apply(Synced(-1))
    twin.apply(Removed("f"))
    media.apply(Written(-1, 0, C))
    assert contents(media) == {A, B, C}
    assert images(twin) == [{"f": B}, {}]
