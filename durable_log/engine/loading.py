"""Streams on their way from the catalog's runs into memory.

Law of this room: rows are read, and states made of them, without any lock; a state that was made here is that of a
stream only once the catalog has let it in, and until then nobody but its maker knows it. Runs are asked in the order in
which they are given, the newest first. Any thread may load anything, beside all others.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cache
from typing import Final, NamedTuple, Protocol

from durable_log.engine.rows import Loaded, decode_state, decode_stream
from durable_log.engine.run import Run
from durable_log.engine.run_find import Located, Search, Unreadable
from durable_log.engine.run_format import NameEntry, Row, hash_of
from durable_log.engine.state import StreamState, lost_ancestor
from durable_log.errors import Corruption

Runs = tuple[Run, ...]
Note = Callable[[], None]
LET_IN_AT_ONCE: Final = 64
"""How many streams are let in before others get the lock."""


class CatchUp(Protocol):
    """What the log has of streams beyond their rows: see ``replay``, which is above this room."""

    def streams(self) -> array[int]:
        """The numbers of all streams that the log has records of, ascending."""

    def apply(self, state: StreamState, lsn: int) -> Note | None:
        """Apply a stream's records from ``lsn`` on. What has to be called when the state is let in; None if there are
        no records.
        """


class Arrival(NamedTuple):
    """A stream that may be let in. ``note`` is to be called then, if the log had more of it than its row."""

    state: StreamState
    note: Note | None

    def descends_from(self) -> Iterable[StreamState]:
        """The streams that have to be in memory as long as this one is."""
        fork = self.state.fork
        return () if fork is None else (fork.source, *(owner for owner, _ in fork.ancestors))


def row_of(runs: Runs, name: str) -> Row | None:
    """The newest row of that name. Raises :class:`Corruption`, ``OSError``."""
    digest = hash_of(name)
    for run in runs:
        row = run.find(digest, name)
        if row is not None:
            return row
    return None


def rows_of(runs: Runs, names: list[str]) -> list[Located | Unreadable | None]:
    """The newest row of each name, or what keeps it from being known. Raises nothing."""
    search = Search(names)
    for run in runs:
        run.find_many(search)
    return search.found


def row_of_number(runs: Runs, number: int) -> tuple[Row | None, bool]:
    """The newest row of the stream of that number, and whether no later one says that its name is another's, or
    nobody's. Raises :class:`Corruption`, ``OSError``.
    """
    for run in runs:
        row = run.find_numbers(array("Q", (number,))).get(number)
        if row is not None:
            newest = row_of(runs, row.name)
            return row, not row.tombstone and newest is not None and newest.number == number
    return None, False


def names_of(runs: Runs, prefix: str, after: str, limit: int) -> tuple[dict[str, NameEntry], list[str]]:
    """The newest word on each of the next names; and how far the runs were read, if not to their end."""
    found: dict[str, NameEntry] = {}
    horizons = []
    for run in runs:
        entries, more = run.names_from(prefix.encode(), after.encode(), limit)
        for entry in entries:
            found.setdefault(entry.name, entry)
        if more:
            horizons.append(entries[-1].name)
    return found, horizons


class Tables(Protocol):
    """What loading asks of the catalog, which is above this room."""

    runs: Runs
    catch_up: CatchUp | None

    @property
    def lock(self) -> AbstractContextManager[object]:
        """What guards the tables."""

    def find_resident(self, name: str) -> StreamState | None:
        """The stream of that name if it is in memory."""

    def is_removed(self, name: str) -> bool:
        """Whether there is no stream of that name, whatever the runs say."""

    def find_number(self, number: int) -> StreamState | None:
        """The stream of that number, in memory from now on."""

    def admit(self, arrival: Arrival) -> bool:
        """Let it in, with the lock. False if one that it descends from is not in memory any more."""


class Loader:
    """Loads streams into a catalog.

    Rows are read, and states made of them, without the lock, beside whatever happens; what they are worth is decided
    with the lock held. A name that is in memory or was removed says so there, and what was read of it is thrown away:
    so there are never two states of a stream. Of every other name the runs have the last word. For whatever differs
    from its row stays in memory until a newer row, or a tombstone, has come into the runs: if they are still the tuple
    that was read, the stream is what its row said, as a tuple of runs never changes, and one that was replaced never
    comes back. So is what the log has beyond the row: ``catch_up`` goes only after all streams that it has records of
    came into memory. If the runs are others, everything that was read of them may be wrong, and begins anew.

    So does what met an error, unless the runs and ``catch_up`` still stand: files are closed, and log segments given
    back, only after these were replaced.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def load(self, name: str) -> StreamState | None:
        """The stream of that name, in memory now; None if there is none. Raises :class:`Corruption`, ``OSError``."""
        tables = self._tables
        while True:
            now = _Now(tables.runs, tables.catch_up, self._ancestor)
            try:
                row = row_of(now.runs, name)
                arrival = None if row is None else _arrival(now, _decoded(now, name, row))
            except (OSError, Corruption):
                if self._still(now):
                    raise
                continue
            with tables.lock:
                state = tables.find_resident(name)
                if state is not None or tables.is_removed(name):
                    return state
                if tables.runs is now.runs:
                    if arrival is None:
                        return None
                    if tables.admit(arrival):
                        return arrival.state

    def load_many(self, names: Iterable[str]) -> dict[str, Unreadable | None]:
        """Have these in memory, or know why not: see :meth:`Catalog.load_many`."""
        tables, absent = self._tables, dict[str, Unreadable | None]()
        wanted = [name for name in dict.fromkeys(names) if tables.find_resident(name) is None]
        while wanted:
            now = _Now(tables.runs, tables.catch_up, cache(self._ancestor))
            found = list(zip(wanted, rows_of(now.runs, wanted), strict=True))
            wanted = []
            for first in range(0, len(found), LET_IN_AT_ONCE):
                wanted += self._let_in(found[first : first + LET_IN_AT_ONCE], now, absent)
        return absent

    def _let_in(
        self, found: list[tuple[str, Located | Unreadable | None]], now: _Now, absent: dict[str, Unreadable | None]
    ) -> list[str]:
        """Those that have to be looked for again."""
        tables, again = self._tables, []
        arrivals = [(name, _arrival_of(now, name, located)) for name, located in found]
        still = self._still(now)
        with tables.lock:
            for name, arrival in arrivals:
                if tables.find_resident(name) is not None:
                    continue
                if tables.is_removed(name):
                    absent[name] = None
                elif tables.runs is not now.runs:
                    again.append(name)
                elif isinstance(arrival, Arrival):
                    if not tables.admit(arrival):
                        again.append(name)
                elif arrival is None or still:
                    absent[name] = arrival
                else:
                    again.append(name)
        return again

    def _still(self, now: _Now) -> bool:
        return self._tables.runs is now.runs and self._tables.catch_up is now.catch_up

    def _ancestor(self, number: int) -> StreamState:
        state = self._tables.find_number(number)
        return lost_ancestor(number) if state is None else state


class _Now(NamedTuple):
    """What a look-up begins with."""

    runs: Runs
    catch_up: CatchUp | None
    find: Callable[[int], StreamState]


def _arrival_of(now: _Now, name: str, located: Located | Unreadable | None) -> Arrival | Unreadable | None:
    if not isinstance(located, tuple):
        return located
    try:
        return _arrival(now, decode_stream(name, *located, now.find))
    except (OSError, Corruption) as error:
        return error


def _decoded(now: _Now, name: str, row: Row) -> Loaded | None:
    return None if row.tombstone else decode_state(name, row.number, row.payload, now.find)


def _arrival(now: _Now, loaded: Loaded | None) -> Arrival | None:
    if loaded is None:
        return None
    state, lsn = loaded
    return Arrival(state, None if now.catch_up is None else now.catch_up.apply(state, lsn))
