"""Giving back all the space that can be given back, at once, because somebody asked for it.

Law of this room: it finds out what is dead and decides the order; clustering, rewriting and merging are done by the
checkpointer and the compactor, by their rules, and the caller keeps both of them from anything else meanwhile. How much
is dead is counted anew from the catalog's rows: the counts that are kept all the time are hints. A step that fails does
not keep the others from giving their space back. The thread that asked; writers and readers go on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from durable_log.engine.catalog import Catalog
from durable_log.engine.checkpoint import Checkpointer, pause
from durable_log.engine.commit import Committer
from durable_log.engine.compaction import Compactor, Needed
from durable_log.engine.files import Directory
from durable_log.engine.index import clustered_row, clustered_segment, is_clustered, places_of
from durable_log.engine.keeper import Spares
from durable_log.engine.live import LiveBytes
from durable_log.engine.reader import Reader
from durable_log.engine.rows import needed_of
from durable_log.engine.run_format import Row
from durable_log.errors import Corruption

ROWS_AT_ONCE: Final = 256
DEAD_PART_MIN: Final = 0.01
"""Below a hundredth, a rewrite costs a hundred times what it gives back."""


class Survey:
    """What is needed of the clustered segments, and how many bytes of each that is."""

    def __init__(self) -> None:
        self.needed: dict[int, Needed] = defaultdict(Needed)
        self.live: dict[int, int] = defaultdict(int)

    def add(self, number: int, places: Iterable[tuple[int, int, int]], first: int) -> None:
        """What one stream needs, from its byte ``first`` on."""
        for start, end, place in places:
            if is_clustered(place):
                segment = clustered_segment(place)
                self.needed[segment].add(number, segment, clustered_row(place), first if start < first else 0)
                self.live[segment] += max(0, end - max(start, first))


class Reclaimer:
    """Compacts a whole store. Never beside a checkpoint or the compactor's own steps."""

    def __init__(
        self, directory: Directory, catalog: Catalog, committer: Committer, reader: Reader,
        checkpointer: Checkpointer, compactor: Compactor, live: LiveBytes, spares: Spares,
    ) -> None:  # fmt: skip
        self._directory, self._catalog, self._committer, self._reader = directory, catalog, committer, reader
        self._checkpointer, self._compactor, self._live, self._spares = checkpointer, compactor, live, spares

    def run(self) -> None:
        """Everything, in the order in which it gives most. Raises the first ``OSError`` or :class:`Corruption` that a
        step met, after all steps; :class:`CommitFailed` at once.
        """
        failures: list[Exception] = []
        merge = self._compactor.merge_all
        steps = [self._cluster, merge, self._rewrite_all, merge, self._spares.remove, self._spares.litter.sweep]
        for step in steps:
            try:
                step()
            except (OSError, Corruption) as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _cluster(self) -> None:
        # The log goes on as in a young store: a full segment of zeroes would be most of a small store's size.
        self._spares.start_small()
        self._committer.roll(shrink=self._directory.grows_in_place)
        self._spares.remove()  # a roll wants some
        self._checkpointer.run()

    def _rewrite_all(self) -> None:
        self._checkpointer.finish()
        survey = self._survey()
        failures = []
        for number, segment in sorted(self._reader.clustered.items()):
            self._live.counted(number, survey.live[number])
            if segment.payload_bytes - self._live[number] > segment.payload_bytes * DEAD_PART_MIN:
                try:
                    self._compactor.rewrite([segment], survey.needed[number])
                except Corruption as failure:
                    failures.append(failure)
        if failures:
            raise failures[0]

    def _survey(self) -> Survey:
        """From the states that differ from their rows, and from the rows of all others."""
        survey = Survey()
        changed = {state.number: state for state in self._catalog.changed()}
        for state in changed.values():
            survey.add(state.number, places_of(state.index), 0 if state.forks else state.first)
        for count, row in enumerate(self._rows()):
            if not row.tombstone and row.number not in changed:
                needed = needed_of(row.payload)
                survey.add(row.number, places_of(needed.places), needed.first)
            if count % ROWS_AT_ONCE == 0:
                pause()
        return survey

    def _rows(self) -> Iterator[Row]:
        """The newest row of each name."""
        runs = self._catalog.runs
        if len(runs) > 1:
            # They could not be merged; of a name that several of them have, only the newest may count.
            raise Corruption(runs[0].file.name, 0, "the runs of the catalog could not be merged")
        return runs[0].rows() if runs else iter(())
