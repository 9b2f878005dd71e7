"""The directory of streams: names → states, in memory for the active ones, in sorted runs on disk for all others.

Law of this room: the catalog holds what is durable; a stream enters it when its CREATE is, and leaves it when its
DELETE is. The holder of the commit lock adds, removes and changes; anyone may look up. A state that changed since its
row was written stays resident; one that did not is ``idle``, a bounded cache, and only ``evict`` lets it go, called
with the commit lock held, so that whoever changes a state changes the one that everybody sees. One small lock guards
the tables; runs are replaced as a whole tuple under it, and nobody reads a file while he holds it.
"""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from durable_log.engine.index import end_of, reaches_log
from durable_log.engine.loading import CatchUp, Loader, Note, names_of, row_of, row_of_number
from durable_log.engine.residents import Residents
from durable_log.engine.rows import lsn_of_row, source_of
from durable_log.engine.run import Run
from durable_log.engine.run_find import Unreadable
from durable_log.engine.run_format import NameEntry, Row
from durable_log.engine.state import LET_GO, StreamState, touch_interval
from durable_log.errors import Corruption

IDLE_MAX: Final = 16_384
NAMES_PAGE: Final = 1000
EVICTED_AT_ONCE: Final = 512


class Catalog:
    """All streams of a store. ``epoch`` grows with each checkpoint; ``count`` is the number of streams."""

    def __init__(self, clock: Callable[[], float], runs: tuple[Run, ...] = ()) -> None:
        self._clock = clock
        self.lock = threading.RLock()
        self.runs = runs
        """Newest first."""
        self._resident = Residents()
        self.find_resident: Callable[[str], StreamState | None] = self._resident.get
        """The stream of a name if it is in memory. O(1), no reads."""
        self._removed: dict[str, StreamState] = {}
        self._idle: OrderedDict[StreamState, None] = OrderedDict()
        self._loader = Loader(self, self._resident, self._removed)
        self.crashed_at: float | None = None
        """When the store was opened after its last crash, in seconds since the epoch."""
        self.crashed_lsn = 0
        """Where the log ended then."""
        self.forgets_crash = False
        """Whether there are rows older than that, and no manifest says so yet."""
        self.catch_up: CatchUp | None = None
        """What the log had of streams when the store was opened, until all of it is in their states."""
        self.unreadable: dict[str, Corruption] = {}
        """Names that the log creates and that can't be looked up, as the runs can't be read there,"""
        self.unreadable_numbers: dict[int, Corruption] = {}
        """and the numbers of streams that it creates or deletes: what a row says of one of these is not all."""
        self.epoch = 1
        self.count = 0
        self.next_number = 1

    def __len__(self) -> int:
        return self.count

    # --- lookups: any thread --------------------------------------------------------------------------------------

    def get(self, name: str, *, wait: bool = True) -> StreamState | None:
        """The stream of that name, expired or not. O(1) if it is resident, else O(runs) reads.

        Without ``wait``, raises ``BlockingIOError`` where only the disk knows.
        """
        state = self._resident.get(name)
        if state is None and self.runs and name not in self._removed:
            if not wait:
                raise BlockingIOError(errno.EAGAIN, "the stream is not in memory")
            if name in self.unreadable:
                raise self.unreadable[name].again()
            return self._loader.load(name)
        return state

    def live(self, name: str, *, wait: bool = True) -> StreamState | None:
        """The stream of that name, unless it has expired."""
        state = self._resident.get(name)
        if state is None:
            state = self.get(name, wait=wait)
            if state is None:
                return None
        if state.expiry is not None and not state.gone and state.expiry.deadline <= self._clock():
            return None
        return state

    def load_many(self, names: Iterable[str]) -> dict[str, Unreadable | None]:
        """Bring streams into memory, in one pass over each run. Of those that are not there then: what keeps them from
        it, or None if there is no such stream.
        """
        if not self.unreadable:
            return self._loader.load_many(names)
        wanted = set(names)
        readable = self._loader.load_many(wanted - self.unreadable.keys())
        return readable | {name: self.unreadable[name].again() for name in wanted & self.unreadable.keys()}

    def load_number(self, number: int) -> tuple[StreamState | None, int]:
        """The stream of that number and the LSN of its row; None if it was removed, 0 if there is no row."""
        row, is_newest = self._row_of_number(number)
        if row is None:
            return None, 0
        return self._life(number, row, is_newest), lsn_of_row(row.payload)

    def find_number(self, number: int) -> StreamState | None:
        """The stream of that number, if it has been in a run. O(runs) reads for each that it was forked from and that
        is not in memory.
        """
        # To load a fork is to find its source. A chain of them is loaded from its far end: it may be longer than calls
        # go deep.
        line = list[tuple[int, Row, bool]]()
        while number:
            row, is_newest = self._row_of_number(number)
            if row is None:
                break
            line.append((number, row, is_newest))
            number = source_of(row.payload, number) if is_newest and row.name not in self._resident else 0
        state = None
        for each in reversed(line):
            state = self._life(*each)
        return state

    def _life(self, number: int, row: Row, is_newest: bool) -> StreamState | None:
        state = self.get(row.name) if is_newest else None
        # The name may live again already, without a row yet.
        return state if state is not None and state.number == number else None

    def _row_of_number(self, number: int) -> tuple[Row | None, bool]:
        while True:
            runs = self.runs
            try:
                return row_of_number(runs, number)
            except (OSError, Corruption):
                if self.runs is runs:
                    raise

    def row_lsn(self, name: str) -> int:
        """The LSN of the newest row of that name; 0 if there is none."""
        row = row_of(self.runs, name)
        return 0 if row is None else lsn_of_row(row.payload)

    def names(self, prefix: str) -> Iterator[str]:
        """The names of readable streams that start with ``prefix``, in order, a page at a time."""
        after = ""
        while True:
            page, more = self._page(prefix, after)
            yield from page
            if not more:
                return
            after = more

    # --- changes: the holder of the commit lock -------------------------------------------------------------------

    def admit(self, state: StreamState, lsn: int, note: Note | None) -> bool:
        """Let in a stream that is neither here nor removed, for ``loading``, which holds the lock. ``lsn`` is that of
        its row. False if one that it descends from was let go before it could be pinned.
        """
        if state.fork is not None:
            if not (
                self._is_here(state.fork.source) and all(self._is_here(owner) for owner, _ in state.fork.ancestors)
            ):
                return False
            self._pin(state, 1)
        if note is not None:
            note()
        if state.expiry is not None:
            self.forgive(state, lsn)
        if note is not None or reaches_log(state.index):
            state.epoch = self.epoch  # the next checkpoint has to see it
        else:
            self._idle[state] = None
        # Last, as whoever holds the commit lock may find it at once, and change it, which ends its idleness.
        try:
            self._resident.enter(state)
        except BaseException:
            if self._resident.get(state.name) is not state:
                self._idle.pop(state, None)
            raise
        return True

    def add(self, state: StreamState, *, counted: bool = False) -> None:
        """A stream whose CREATE is durable; ``counted`` if the count knows of it. O(log n)."""
        with self.lock:
            self._resident.enter(state)
            self._removed.pop(state.name, None)
            self._pin(state, 1)
        state.epoch = self.epoch
        self.count += not counted
        self.next_number = max(self.next_number, state.number + 1)

    def remove(self, state: StreamState, *, counted: bool = False) -> None:
        """A stream whose DELETE is durable; ``counted`` if the count knows of it. O(log n)."""
        state.gone = True
        with self.lock:
            if self._resident.get(state.name) is state:
                self._resident.leave(state)
                self._removed[state.name] = state
            self._idle.pop(state, None)
            self._pin(state, -1)
        self.count -= not counted

    def change(self, state: StreamState) -> None:
        """This stream differs from its row from now on."""
        if state.epoch != self.epoch:
            state.epoch = self.epoch
            if state in self._idle:
                with self.lock:
                    del self._idle[state]

    def hold(self, state: StreamState, epoch: int) -> None:
        """Keep a stream resident until it is settled, as one that changed in ``epoch``, though it has not."""
        state.epoch = state.epoch or epoch
        with self.lock:
            self._idle.pop(state, None)

    @property
    def ends_well(self) -> bool:
        """Whether a good end of the store is one: whoever opens it next knows what to give back to rows that are older
        than a crash. Nobody has written what was given back to streams that were not looked up.
        """
        return not self.forgets_crash

    def forgive(self, state: StreamState, lsn: int = 0) -> None:
        """Give a sliding TTL back what a crash may have taken: uses that no record or row tells of. ``lsn`` is that of
        the row; one that was written since then knows.
        """
        expiry = state.expiry
        if expiry is not None and expiry.ttl is not None:
            expiry.saved = expiry.touched
            if self.crashed_at is not None and lsn <= self.crashed_lsn:
                expiry.renew(min(self.crashed_at, expiry.touched + touch_interval(expiry.ttl)))

    def evict(self) -> tuple[list[StreamState], list[StreamState]]:
        """Let go of idle streams beyond the bound, least recently loaded first, not more than a slice of them. Returns
        those, and others that can't go yet, as their last use is known to nobody else.
        """
        gone: list[StreamState] = []
        used: list[StreamState] = []
        with self.lock:
            surplus = len(self._idle) - IDLE_MAX
            for state in list(islice(self._idle, max(0, min(surplus, EVICTED_AT_ONCE)))):
                self._idle.move_to_end(state)
                if state.pins or state.watchers is not None:
                    continue
                epoch = state.epoch
                try:
                    (gone if self._let_go(state) else used).append(state)
                finally:
                    if self._resident.get(state.name) is state:
                        state.epoch = epoch
                        self._idle[state] = None
        return gone, used

    def _let_go(self, state: StreamState) -> bool:
        """Let go of an idle stream; False if it was used and nobody has noted that."""
        # Whoever notes a use looks at the epoch afterwards, so one that is not seen here is noted again.
        state.epoch = LET_GO
        if state.expiry is not None and state.expiry.touched > state.expiry.saved:
            return False
        del self._idle[state]
        self._resident.leave(state)
        self._pin(state, -1)
        return True

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def begin_epoch(self) -> int:
        """From here on, changes belong to the next checkpoint. Returns the epoch that ends."""
        self.epoch += 1
        return self.epoch - 1

    @property
    def has_changed(self) -> bool:
        """Whether anything differs from its row, or may."""
        return len(self._resident) > len(self._idle) or bool(self._removed)

    def states(self) -> list[StreamState]:
        """All that is resident, in no order, at one moment: a single call into C, however many they are."""
        return list(self._resident.values())

    def changed(self) -> list[StreamState]:
        """The resident streams that are not idle, in no order."""
        return [state for state in self.states() if state.epoch > 0]

    def expiring(self) -> list[StreamState]:
        """The resident streams that can expire."""
        return [state for state in self.states() if state.expiry is not None and not state.deleted]

    @property
    def resident(self) -> int:
        """How many streams are in memory."""
        return len(self._resident)

    def removed(self) -> list[StreamState]:
        """The streams that were removed since the last checkpoint and have not come back."""
        with self.lock:
            return list(self._removed.values())

    def settle(self, written: Sequence[StreamState], tombstones: Sequence[StreamState], epoch: int) -> None:
        """Their rows are in the runs now. What has not changed since ``epoch`` ended and has no records in the log is
        idle; what was removed is forgotten.
        """
        with self.lock:
            for state in tombstones:
                if self._removed.get(state.name) is state:
                    del self._removed[state.name]
            for state in written:
                if state.epoch <= epoch and not reaches_log(state.index) and self._resident.get(state.name) is state:
                    state.epoch = 0
                    self._idle[state] = None

    def replace_runs(self, old: tuple[Run, ...], new: Run | None) -> None:
        """``new`` stands for the ``old`` runs from now on; without old ones it is the newest."""
        with self.lock:
            runs = list(self.runs)
            at = runs.index(old[0]) if old else 0
            runs[at : at + len(old)] = [] if new is None else [new]
            self.runs = tuple(runs)

    def check(self) -> None:
        """Walk the invariants. Raises ``AssertionError``. For tests."""
        with self.lock:
            self._resident.check()
            for name, state in self._resident.items():
                assert state.name == name, (state.name, name)
                assert state.number < self.next_number
                assert 0 <= state.first <= state.durable <= state.tail
                assert end_of(state.index) == state.tail, (name, end_of(state.index), state.tail)
                assert not (state.durable_closed and not state.closed)
                assert state.deleted == state.gone == (state.deleted and state.forks > 0), name
                if state.recent is not None:
                    assert int.from_bytes(state.recent[:8], "little") + len(state.recent) - 8 == state.tail
            for name in self._removed:
                assert name not in self._resident

    def _is_here(self, owner: StreamState) -> bool:
        return self._resident.get(owner.name) is owner or not owner.name

    def _pin(self, state: StreamState, step: int) -> None:
        if state.fork is not None:
            state.fork.source.pins += step
            for owner, _ in state.fork.ancestors:
                owner.pins += step

    def _page(self, prefix: str, after: str) -> tuple[list[str], str]:
        """Some names beyond ``after``, and where the next page begins; empty if there is none.

        What the catalog says at one moment: when the lock is held, with the runs that were read still in their place.
        They never change, so what was read of them before is what they say then; and they are open then, as whoever
        takes runs away does so before it closes them. If others are in their place, whatever was read may be of closed
        files or older than what is in memory, an error too: the page is read again.
        """
        while True:
            runs = self.runs
            try:
                found, horizons = names_of(runs, prefix, after, NAMES_PAGE)
            except (OSError, Corruption):
                if self.runs is runs:
                    raise
                continue
            with self.lock:
                if self.runs is not runs:
                    continue
                removed = found.keys() & self._removed.keys()
                states = self._resident.page(prefix, after, NAMES_PAGE)
            break
        if len(states) == NAMES_PAGE:
            horizons.append(states[-1].name)
        horizon, now = min(horizons, default=""), self._clock()
        there = {state.name for state in states if not state.gone and state.deadline > now}
        rest = found.keys() - removed - {state.name for state in states}
        there.update(name for name in rest if (name <= horizon or not horizon) and self._is_readable(found[name], now))
        there.update(name for name in self.unreadable if name.startswith(prefix) and name > after)
        return sorted(name for name in there if name <= horizon or not horizon), horizon

    def _is_readable(self, entry: NameEntry, now: float) -> bool:
        if entry.tombstone or entry.hidden or entry.number in self.unreadable_numbers:
            return False
        if entry.deadline > now * 1000 or (self.crashed_at is None and self.catch_up is None):
            return entry.deadline > now * 1000
        state = self.live(entry.name)  # it may have been used, or forgiven uses, that its row does not know of
        return state is not None and not state.gone
