"""When to cluster, to compact and to merge: checkpoints and compaction in their order.

Law of this room: it holds no logic but this order. Whoever has the ``turn`` clusters, nobody else: the background
thread, who asks for it, and who closes the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from durable_log.engine.catalog import Catalog
from durable_log.engine.checkpoint import Checkpointer
from durable_log.engine.commit import Committer
from durable_log.engine.compaction import Compactor
from durable_log.errors import CommitFailed, DurableLogError

_log = logging.getLogger("durable_log")


class Clustering:
    """Has the checkpointer and the compactor do what is to be done. All but ``if_due`` need the ``turn``."""

    def __init__(
        self, catalog: Catalog, committer: Committer, checkpointer: Checkpointer, compactor: Compactor
    ) -> None:
        self._catalog, self._committer = catalog, committer
        self._checkpointer, self._compactor = checkpointer, compactor
        self.turn = threading.Lock()

    def if_due(self, stopped: Callable[[], bool]) -> None:
        """Do what has to be done by now."""
        with self.turn:
            if self._committer.failure is not None:
                return
            if self._checkpointer.due():
                self._checkpointer.run()
            while not stopped() and self._compactor.step():
                pass

    def cluster(self) -> None:
        """Cluster all that is in the log. Raises ``OSError``, :class:`CommitFailed`."""
        self._committer.roll()
        self._checkpointer.run()

    def compact(self, stopped: Callable[[], bool]) -> None:
        """Give back all the space that can be given back."""
        self.cluster()
        while not stopped() and self._compactor.step(0.0):
            pass
        if not stopped():
            self._compactor.merge_all()

    def at_close(self, path: str) -> None:
        """Leave nothing to replay. What can't be clustered now is replayed and clustered later."""
        if isinstance(self._committer.failure, CommitFailed):
            return
        try:
            if self._catalog.has_changed and self._checkpointer.run(closing=True):
                while self._compactor.merge_small():
                    pass
        except (OSError, DurableLogError) as error:
            _log.warning("%s: the log was not clustered when the store was closed: %s", path, error)
