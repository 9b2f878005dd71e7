"""The log is ahead of its clustering: appends are slowed down, never refused, and not longer than that lasts."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

import pytest
from twins import SMALL, Clock, Task, TwinDirectory, no_space, open_store, until

from durable_log import aio
from durable_log.engine import pace
from durable_log.engine.pace import Pace
from durable_log.errors import InvalidOption
from durable_log.model import Options

CALM = replace(
    SMALL, sweep_seconds=3600.0, cluster_segments=10**6, cluster_seconds=1e9, preallocate=False, log_bytes_max=10**6
)


@pytest.fixture
def slow(monkeypatch) -> None:
    """A kilobyte takes a hundredth of a second."""
    monkeypatch.setattr("durable_log.engine.upkeep.RATE_MIN", 100 * 1024)


def behind(store) -> None:
    """More of the log waits than may."""
    stream = store.create("a")
    while store.engine.upkeep.checkpointer.debt() <= CALM.log_bytes_max or store.stats()["append_rate_max"] is None:
        stream.append(bytes(30_000))


def seconds_of(append) -> float:
    began = time.monotonic()
    for _ in range(4):
        append()
    return time.monotonic() - began


def test_appends_are_slowed_down_while_too_much_waits_and_no_longer(slow, caplog):
    with open_store(TwinDirectory(), CALM, Clock()) as store:
        behind(store)
        stream = store.stream("a")
        assert store.stats()["append_rate_max"] == 100 * 1024
        assert "slowed down" in caplog.text
        assert seconds_of(lambda: stream.append(bytes(10_000))) > 0.25
        store.engine.upkeep._checkpoint()
        assert store.stats()["append_rate_max"] is None
        time.sleep(store.engine._committer.pace.left())
        assert seconds_of(lambda: stream.append(bytes(10_000))) < 0.25


def test_asyncio_appends_are_slowed_down_too_and_the_loop_is_not(slow):
    store = open_store(TwinDirectory(), CALM, Clock())
    behind(store)

    async def appending() -> tuple[float, int]:
        stream, turns, done = aio.AsyncStore.of(store).stream("a"), 0, False

        async def appends() -> None:
            nonlocal done
            for _ in range(4):
                await stream.append(bytes(10_000))
            done = True

        began = time.monotonic()
        task = asyncio.ensure_future(appends())
        while not done:
            await asyncio.sleep(0.001)
            turns += 1
        await task
        return time.monotonic() - began, turns

    seconds, turns = Task(lambda: asyncio.run(appending())).result()
    store.close()
    assert seconds > 0.25
    assert turns > 50


def test_written_data_is_synced_in_time_while_appends_are_slowed_down(slow):
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        behind(store)
        tail = store.stream("a").append(bytes(30_000), durability="written").next_offset
        began = time.monotonic()
        until(lambda: store.stream("a").info().tail == tail, "the sync")
        assert time.monotonic() - began < 0.2


def test_a_store_that_cannot_be_clustered_takes_appends_for_ever(slow, monkeypatch):
    monkeypatch.setattr(pace, "WAIT_SECONDS_MAX", 0.01)
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        behind(store)
        twin.hooks["create"] = lambda proceed: (
            no_space(proceed) if twin.calls[-1][1].endswith(".seg.tmp") else proceed()
        )
        for _ in range(20):
            store.stream("a").append(bytes(30_000))
        twin.hooks.clear()


def test_a_wait_is_never_longer_than_its_bound_and_none_comes_without_a_rate(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    paced = Pace()
    paced.spend(10**9)
    assert paced.left() == 0
    paced.rate = 1000.0
    paced.spend(500)
    assert paced.left() == 0.5
    paced.spend(10**9)
    assert paced.left() == pace.WAIT_SECONDS_MAX
    now[0] += 2
    assert paced.left() == 0


def test_the_bound_is_an_option_with_limits(caplog):
    caplog.set_level(logging.WARNING)
    with pytest.raises(InvalidOption, match="log_bytes_max"):
        Options(log_bytes_max=0)
