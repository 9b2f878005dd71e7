"""Streams of which there is much to know: a row of the catalog may be larger than any page or buffer was made for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twins import SMALL, Clock, copy_of, open_store

from durable_log.engine.files import MemoryDirectory
from durable_log.errors import StaleEpoch
from durable_log.model import Producer

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)
PRODUCERS = 25_000


def claims(count: int) -> list[Producer]:
    return [Producer(f"producer-{at:06}-of-some-fleet", 7, 0) for at in range(count)]


def test_a_stream_with_25000_producers_does_not_keep_the_log_from_being_clustered():
    """Its row was larger than a mebibyte, and every checkpoint failed while it lived."""
    directory = MemoryDirectory()
    with open_store(directory, CALM, Clock()) as store:
        stream, other = store.create("much"), store.create("other", data=b"x")
        for claim in claims(PRODUCERS):
            stream.append(b"x", producer=claim)
        store.engine.upkeep.cluster()
        assert store.stats()["clustering_debt_bytes"] == 0
        other.append(b"y")
        store.engine.upkeep.compact()
        assert store.engine._catalog.runs[0].pages > 0
        assert max(length for _, length in map(store.engine._catalog.runs[0].extent, range(2))) > 2**20
        assert [problem for run in store.engine._catalog.runs for problem in run.verify()] == []
        killed = copy_of(directory)
    with open_store(killed, CALM, Clock()) as store:
        stream = store.stream("much")
        assert stream.read().data == b"x" * PRODUCERS
        for claim in claims(PRODUCERS)[::1000]:
            assert stream.append(b"x", producer=claim).duplicate
            with pytest.raises(StaleEpoch):
                stream.append(b"x", producer=claim._replace(epoch=6))
        assert store.stream("other").read().data == b"xy"
        store.engine.check()
