"""Streams that leave memory, and all that is kept of them beside the catalog.

Law of this room: with the commit lock held, so that nobody appends to a stream while it goes. Whoever reads one at that
moment goes on with what he has in hand: its bytes lie in files, and where these are gone, he looks the stream up again.
"""

from __future__ import annotations

from durable_log.engine.catalog import Catalog
from durable_log.engine.commit import Committer


def let_go(catalog: Catalog, committer: Committer) -> bool:
    """Let go of idle streams beyond the bound, a slice of them. False if none went."""
    gone, used = catalog.evict()
    for state in gone:
        committer.recent.drop(state)
        committer.expiries.removed(state)
    for state in used:
        committer.save_use(state)
    return bool(gone)
