"""Bugs to be put into the engine, each of which the checks have to find: checks that find nothing prove nothing.

Law of this file: each function breaks the engine of this process, for good. The process in which it is called has the
shim in it, and runs one workload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from durable_log.engine import commit, files, recovery, writer
from durable_log.engine.files import DiskFile, SyncFailed


def _replace(owner: Any, name: str, new: Any) -> Any:
    """What was there before."""
    before = getattr(owner, name)
    mock.patch.object(owner, name, new).start()
    return before


def acknowledges_without_a_sync() -> None:
    def committed(file: DiskFile, block: bytearray, info: Any, sync: bool) -> int:
        return before(file, block, info, False)

    before = _replace(DiskFile, "commit", committed)


def acknowledges_in_spite_of_a_failed_sync() -> None:
    def committed(file: DiskFile, block: bytearray, info: Any, sync: bool) -> int:
        try:
            return before(file, block, info, sync)
        except SyncFailed:
            return 0

    before = _replace(DiskFile, "commit", committed)


def syncs_again_what_failed() -> None:
    def committed(file: DiskFile, block: bytearray, info: Any, sync: bool) -> int:
        try:
            return before(file, block, info, sync)
        except SyncFailed:
            file.sync()
            return 0

    before = _replace(DiskFile, "commit", committed)


def takes_a_read_error_for_the_end() -> None:
    def read(file: DiskFile, position: int, length: int) -> bytes:
        try:
            return before(file, position, length)
        except OSError:
            return b""

    before = _replace(DiskFile, "read", read)


def recovers_past_a_read_error() -> None:
    def survey(segment: Any) -> Any:
        try:
            return before(segment)
        except OSError:
            return []

    before = _replace(recovery, "survey", survey)


def leaves_files_open() -> None:
    _replace(DiskFile, "close", lambda file: None)


def latches_when_the_disk_is_full() -> None:
    for module in (commit, writer):
        _replace(module, "is_out_of_space", lambda error: False)


def shows_what_is_half_written() -> None:
    def write(file: DiskFile, position: int, data: Any) -> None:
        files.os.pwrite(file._fd, data, position)

    _replace(DiskFile, "write", write)


SABOTAGES: dict[str, Callable[[], None]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        acknowledges_without_a_sync,
        acknowledges_in_spite_of_a_failed_sync,
        syncs_again_what_failed,
        takes_a_read_error_for_the_end,
        recovers_past_a_read_error,
        leaves_files_open,
        latches_when_the_disk_is_full,
        shows_what_is_half_written,
    )
}
