"""Messages of a JSON stream of which a part can't be read any more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twins import SMALL, Clock, open_store

from durable_log.engine.files import MemoryDirectory
from durable_log.errors import Corruption


def test_a_message_that_is_damaged_in_its_middle_is_not_returned_in_part():
    """Its first pages verify; but a part of a message is no message."""
    directory, options = MemoryDirectory(), replace(SMALL, sweep_seconds=3600.0)
    with open_store(directory, options, Clock()) as store:
        stream = store.create("a", content_type="application/json")
        stream.append_json("first")
        stream.append_json("x" * 20_000, "last")
    (segment,) = [name for name in directory.names() if name.endswith(".seg")]
    directory.files[segment]._bytes[4096 + 3 * 4096] ^= 1
    with open_store(directory, options, Clock()) as store:
        chunk = store.stream("a").read()
        assert chunk.items == ["first"]
        for limit in (None, 1, 5000):
            with pytest.raises(Corruption, match=segment):
                store.stream("a").read(chunk.next_offset, limit=limit)
