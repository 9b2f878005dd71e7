"""How much room a repair takes on disk, and the error that says so where there is less.

Law of this room: a bound, from what is known before anything changes; nobody plans with it but the person who makes
room. The thread that repairs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from durable_log.engine.files import Directory, is_out_of_space
from durable_log.engine.run_format import run_number
from durable_log.engine.salvage_log import SalvagedLog
from durable_log.errors import StoreFull

SEGMENT_BYTES: Final = 64 * 2**10
"""Of the log segments that a repair makes: hardly anything is written to them."""
_SMALL_FILES: Final = 64 * 2**10
"""The manifest, the reports, and what is rounded up to pages."""


def room_for(directory: Directory, log: SalvagedLog, damaged: Collection[str]) -> int:
    """The most bytes that a repair takes beside what is there: what is damaged is copied and made anew; so is the
    catalog, if need be twice; the log becomes rows and bytes of streams, beside which it stays until they count.
    """
    sizes = directory.sizes()
    read_anew = sum(size for name, size in sizes.items() if name in damaged or run_number(name) is not None)
    copied = sum(sizes[name] for name in log.damaged)
    clustered = sum(block.end - block.lsn for block in log.chain.blocks)
    return 2 * (read_anew + clustered) + copied + 2 * SEGMENT_BYTES + _SMALL_FILES


@contextmanager
def within(directory: Directory, room: int) -> Iterator[None]:
    """Raises :class:`StoreFull` in place of whatever says that the disk is full."""
    try:
        yield
    except (OSError, StoreFull) as error:
        if isinstance(error, OSError) and not is_out_of_space(error):
            raise
        free = directory.free()
        left = "" if free is None else f", and {free} are free"
        advice = f"a repair takes up to so much{left}; make room and run it again, which goes on where this one ended"
        raise StoreFull(directory.path, room, advice) from error
