"""Thirteen bugs that storage engines really had, as changes to this one.

Law of this room: each bug is an edit of the sources, small, plausible and whole: the sabotaged engine still opens,
appends, reads and closes. The text that an edit replaces has to be there once; when the engine changes, so does the
edit. No bug is made for a test: who finds it is found out by running them.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Edit(NamedTuple):
    """In ``file``, ``old`` becomes ``new``."""

    file: str
    old: str
    new: str


CRASH_IMAGES: Final = "tests/disk/test_crash_images.py::test_whatever_a_crash_leaves_keeps_every_promise"
FAILING_CALLS: Final = (
    "tests/faults/test_faults.py::test_whichever_call_fails_what_was_acknowledged_is_there_and_the_store_goes_on"
)
FAILING_SYNCS: Final = "tests/disk/test_failing_syncs.py::test_whatever_a_failing_sync_leaves_keeps_every_promise"
FLIPPED_BITS: Final = (
    "tests/damage/test_flipped_bits.py::test_a_flipped_bit_costs_what_it_hits_and_is_told_wherever_it_is"
)
FUZZ_INPUTS: Final = "tests/fuzz/test_fuzz.py::test_the_inputs_of_the_repository_break_nothing"
SIMULATION: Final = "tests/simulation/test_simulation.py"


class Bug(NamedTuple):
    """A bug and what it would be in the field. ``found_by``: tests and rooms that find it, the quickest first."""

    name: str
    story: str
    edits: tuple[Edit, ...]
    found_by: tuple[str, ...]
    builds: bool = False
    """Whether the C core has to be built anew."""


BUGS: Final = (
    Bug(
        "preallocate over a sealed segment",
        "The maker of spare segments forgets which numbers the log has reached when the store is opened.",
        (
            Edit(
                "durable_log/engine/recovery.py",
                "    last_number = max(numbers, default=0)\n",
                "    last_number = used\n",
            ),
        ),
        (f"{CRASH_IMAGES}[background]", SIMULATION, "tests/torture/test_torture.py"),
    ),
    Bug(
        "trust the file size",
        "A block counts if the file is long enough to hold it: whoever made it so long will have written it, too.",
        (
            Edit(
                "durable_log/engine/segment.py",
                "block = _block(info, lsn + at, verdict == lib.DL_OK)\n",
                "block = _block(info, lsn + at, verdict != lib.DL_BAD_LENGTH)\n",
            ),
        ),
        (f"{CRASH_IMAGES}[new_store]", SIMULATION),
    ),
    Bug(
        "acknowledge a delete before it is durable",
        "Deletions are thought to be cheap and wait for somebody else's sync.",
        (
            Edit(
                "durable_log/engine/commit.py",
                "            self._write(group, now, sync=sync, reserved=reserved)\n",
                "            deletions = [each for each in batch if isinstance(each.request, Delete)]\n"
                "            waits = sync and not (batch and len(deletions) == len(batch))\n"
                "            self._write(group, now, sync=waits, reserved=reserved)\n",
            ),
        ),
        (f"{CRASH_IMAGES}[lives]", SIMULATION),
    ),
    Bug(
        "sync again after EIO",
        "A sync that failed is tried once more, and succeeds: the kernel has marked the pages clean.",
        (
            Edit(
                "durable_log/engine/writer.py",
                "sync_ns = self.segment.file.commit(block, info, sync)\n",
                "try:\n"
                "            sync_ns = self.segment.file.commit(block, info, sync)\n"
                "        except SyncFailed:\n"
                "            self.segment.file.sync()\n"
                "            sync_ns = 0\n",
            ),
            Edit(
                "durable_log/engine/writer.py",
                "from durable_log.engine.files import is_out_of_files, is_out_of_space\n",
                "from durable_log.engine.files import SyncFailed, is_out_of_files, is_out_of_space\n",
            ),
        ),
        (f"{FAILING_SYNCS}[new_store]", "tests/faults/test_faults.py"),
    ),
    Bug(
        "drop the index before the flush",
        "Log segments are given back before the manifest that does without them is on disk.",
        (
            Edit(
                "durable_log/engine/checkpoint.py",
                "        self._name_rows(unfinished, released)\n",
                "        for segment in released:\n"
                "            self._spares.give_back(segment)\n"
                "        self._name_rows(unfinished, released)\n",
            ),
            Edit(
                "durable_log/engine/checkpoint.py",
                "self._leaving.append((segment, unfinished.closing and segment is released[-1]))\n",
                "pass\n",
            ),
        ),
        (f"{CRASH_IMAGES}[rolls_without_spares]", SIMULATION),
    ),
    Bug(
        "patch a footer in place",
        "The manifest is written over instead of being replaced.",
        (
            Edit(
                "durable_log/engine/manifest.py",
                "    file = directory.create(_TEMPORARY)\n",
                "    present = MANIFEST_NAME in directory.names()\n"
                "    file = directory.open(MANIFEST_NAME) if present else directory.create(_TEMPORARY)\n",
            ),
            Edit(
                "durable_log/engine/manifest.py",
                "    directory.rename(_TEMPORARY, MANIFEST_NAME)\n",
                "    if _TEMPORARY in directory.names():\n        directory.rename(_TEMPORARY, MANIFEST_NAME)\n",
            ),
        ),
        (f"{CRASH_IMAGES}[rolls_without_spares]", "tests/disk/test_crash_in_recovery.py"),
    ),
    Bug(
        "read error taken for the end",
        "A read that fails returns what was read so far, as if the file ended there.",
        (
            Edit(
                "durable_log/engine/files.py",
                "                piece = os.pread(self._fd, min(length, _READ_MAX), position)\n"
                "            except OSError as error:\n"
                "                raise self._named(error) from None\n",
                "                piece = os.pread(self._fd, min(length, _READ_MAX), position)\n"
                "            except OSError:\n"
                "                break\n",
            ),
        ),
        (f"{FAILING_CALLS}[new_store]",),
    ),
    Bug(
        "no directory sync at roll",
        "A new segment's name is left to whoever syncs the directory next.",
        (
            Edit(
                "durable_log/engine/segment.py",
                "            directory.rename(name + TEMPORARY, name)\n            directory.sync()\n",
                "            directory.rename(name + TEMPORARY, name)\n",
            ),
        ),
        (f"{CRASH_IMAGES}[new_store]", SIMULATION),
    ),
    Bug(
        "cut at the first bad block in the middle",
        "Whatever does not verify is taken for a torn tail.",
        (
            Edit(
                "durable_log/engine/chain.py",
                "        if block.previous_lsn >= durable or start >= durable:\n            return False\n",
                "        return False\n",
            ),
            Edit(
                "durable_log/engine/chain.py",
                "        if block.lsn >= durable:\n            return False\n",
                "        return False\n",
            ),
        ),
        (f"{FLIPPED_BITS}[log]", "tests/damage/test_lost_writes.py"),
    ),
    Bug(
        "accept a recycled stale block",
        "A block counts where its checksum holds, whichever life of the file it is from.",
        (
            Edit(
                "durable_log/engine/format.py",
                "    return (crc32c(0, uuid) + number * 0x9E3779B1) & 0xFFFFFFFF\n",
                "    return crc32c(0, uuid)\n",
            ),
            Edit(
                "csrc/frame.c",
                "    return info->lsn == lsn ? DL_OK : DL_BAD_LSN;\n",
                "    const int here = (uint32_t)info->lsn == (uint32_t)lsn;\n"
                "    info->lsn = lsn;\n"
                "    return here ? DL_OK : DL_BAD_LSN;\n",
            ),
        ),
        ("tests/damage/test_forged_bytes.py", f"{CRASH_IMAGES}[recycling]"),
        builds=True,
    ),
    Bug(
        "producer state apart from its data",
        "Recovery takes producers from the catalog's last rows, and only the bytes from the log.",
        (
            Edit(
                "durable_log/engine/replay.py",
                "            known.epoch, known.seq = row[3], row[4]\n",
                "            del known\n",
            ),
        ),
        (f"{CRASH_IMAGES}[producers]", "tests/model"),
    ),
    Bug(
        "a length used before its CRC",
        "The length of a frame is believed, and its checksum computed over so many bytes.",
        (
            Edit(
                "csrc/frame.c",
                "    return rest > length - DL_FRAME_HEADER ? 0 : DL_FRAME_HEADER + rest;\n",
                "    return DL_FRAME_HEADER + rest;\n",
            ),
        ),
        ("tests/c/test_cluster_lies.py", f"{FUZZ_INPUTS}[block]"),
        builds=True,
    ),
    Bug(
        "sync left out of one path",
        "The old segment is left without a sync when the log goes on in the next one.",
        (
            Edit(
                "durable_log/engine/writer.py",
                "        if self.unsynced:\n"
                "            self.segment.file.sync()\n"
                "        self.segment, self.position = segment, PAGE\n",
                "        self.segment, self.position = segment, PAGE\n",
            ),
        ),
        (f"{CRASH_IMAGES}[written]", SIMULATION),
    ),
)
