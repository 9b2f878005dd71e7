"""Streams on their way from the catalog's runs into memory.

Law of this room: rows are read, and states made of them, without any lock; a state that was made here is that of a
stream only once the catalog has let it in, and until then nobody but its maker knows it. Runs are asked in the order in
which they are given, the newest first. Any thread may load anything, beside all others.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Final, NamedTuple, Protocol

from durable_log.engine.index import LOST, add_place, end_of
from durable_log.engine.rows import decode_state, decode_stream
from durable_log.engine.run import Run
from durable_log.engine.run_find import Search, Unreadable
from durable_log.engine.run_format import NameEntry, Row, hash_of
from durable_log.engine.state import StreamState, lost_ancestor
from durable_log.errors import Corruption

Runs = tuple[Run, ...]
Note = Callable[[], None]
Arrival = tuple[StreamState, int, Note | None]
"""A state that may be let in, and the LSN of its row. The note is called then, if the log had more of the stream."""
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


def row_of(runs: Runs, name: str) -> Row | None:
    """The newest row of that name. Raises :class:`Corruption`, ``OSError``."""
    digest = hash_of(name)
    for run in runs:
        row = run.find(digest, name)
        if row is not None:
            return row
    return None


def rows_of(runs: Runs, names: Sequence[str]) -> Search:
    """The newest row of each name, or what keeps it from being known."""
    search = Search(names)
    for run in runs:
        run.find_many(search)
    return search


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
    unreadable_numbers: dict[int, Corruption]

    @property
    def lock(self) -> AbstractContextManager[object]:
        """What guards the tables."""

    def find_number(self, number: int) -> StreamState | None:
        """The stream of that number, in memory from now on."""

    def admit(self, state: StreamState, lsn: int, note: Note | None) -> bool:
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

    def __init__(self, tables: Tables, resident: Mapping[str, StreamState], removed: Mapping[str, StreamState]) -> None:
        self._tables, self._resident, self._removed = tables, resident, removed

    def load(self, name: str) -> StreamState | None:
        """The stream of that name, in memory now; None if there is none. Raises :class:`Corruption`, ``OSError``."""
        tables = self._tables
        while True:
            now = _Now(tables.runs, tables.catch_up, tables.unreadable_numbers, self._ancestor)
            try:
                row = row_of(now.runs, name)
                arrival = None if row is None or row.tombstone else now.arrival(decode_state(*row[:3], now.find))
            except (OSError, Corruption):
                if self._still(now):
                    raise
                continue
            with tables.lock:
                state = self._resident.get(name)
                if state is not None or name in self._removed:
                    return state
                if tables.runs is now.runs:
                    if arrival is None:
                        return None
                    if tables.admit(*arrival):
                        return arrival[0]

    def load_many(self, names: Iterable[str]) -> dict[str, Unreadable | None]:
        """Have these in memory, or know why not: see :meth:`Catalog.load_many`."""
        tables, absent = self._tables, dict[str, Unreadable | None]()
        wanted = [name for name in dict.fromkeys(names) if name not in self._resident]
        while wanted:
            now = _Now(tables.runs, tables.catch_up, tables.unreadable_numbers, cache(self._ancestor))
            search, again = rows_of(now.runs, wanted), list[str]()
            for first in range(0, len(wanted), LET_IN_AT_ONCE):
                part = wanted[first : first + LET_IN_AT_ONCE]
                arrivals = [now.arrival_of(name, search, index) for index, name in enumerate(part, first)]
                again += self._let_in(part, arrivals, now, absent)
            wanted = again
        return absent

    def _let_in(
        self, names: list[str], arrivals: list[Arrival | Unreadable | None], now: _Now,
        absent: dict[str, Unreadable | None],
    ) -> list[str]:  # fmt: skip
        """Those that have to be looked for again."""
        tables, again, still = self._tables, list[str](), self._still(now)
        with tables.lock:
            for name, arrival in zip(names, arrivals, strict=True):
                if name in self._resident:
                    continue
                if name in self._removed:
                    absent[name] = None
                elif tables.runs is not now.runs:
                    again.append(name)
                elif isinstance(arrival, tuple):
                    if not tables.admit(*arrival):
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
    unreadable: dict[int, Corruption]
    find: Callable[[int], StreamState]

    def arrival(self, loaded: tuple[StreamState, int]) -> Arrival:
        """A state out of a row, brought up to date."""
        state, lsn = loaded
        if state.number in self.unreadable:
            raise self.unreadable[state.number].again()
        note = None if self.catch_up is None else self.catch_up.apply(state, lsn)
        if end_of(state.index) < state.tail:
            add_place(state.index, state.tail, LOST)  # the log did not tell where they lie
        return state, lsn, note

    def arrival_of(self, name: str, search: Search, index: int) -> Arrival | Unreadable | None:
        """The same of what a search has found; None for a tombstone, too."""
        found = search.found[index]
        if not isinstance(found, bytes):
            return found
        try:
            loaded = decode_stream(name, found, search.at[index], self.find)
            return None if loaded is None else self.arrival(loaded)
        except (OSError, Corruption) as error:
            return error
