"""Appends over HTTP, one POST a token of 60 bytes or a batch, and catching up. Load comes from a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.contest import Contest
from benchmarks.generator import LoadFailed, load
from benchmarks.peers import Bare
from benchmarks.servers import BARE, CONTESTANTS, Contestant, Server

ONE = "HTTP, 1 stream, 1 connection"
MANY = "HTTP, 64 streams, 64 connections"
BATCHES = "HTTP, JSON batches of 100 messages, 16 connections"
CATCH_UP = "HTTP, catch-up of 100 MB on one connection"
AGAINST_LOAD = "HTTP, latency against load, 64 connections"
RATES = (250, 500, 1000, 2000, 4000, 8000, 16000, 24000)
PATIENCE_US = 1e6
"""A server whose median latency is above this does not keep up, and is asked no more of."""

TOKEN = b"x" * 60
SERVERS = pytest.mark.parametrize("contestant", CONTESTANTS, ids=str)


@pytest.fixture
def server(contest: Contest, folder: Path, contestant: Contestant) -> Iterator[Server]:
    with contest.opened(lambda: Server(contestant, folder)) as server:
        yield server


def appends(contest: Contest, server: Server, case: str, unit: str, **options: float) -> None:
    """Measure a closed loop: as many as the server takes, and how long each waits."""
    seconds = contest.size(5, 1) / contest.size(1, 10)
    found = contest.run(lambda: load("append", server.port, warm_up=seconds / 5, seconds=seconds, **options))
    contest.tell(case, server.name, [found[f"{unit}_per_second"]], f"{unit}/s")
    for percentile in ("p50", "p99"):
        contest.tell(f"{case}: {percentile}", server.name, [found["latency_us"][percentile]], "µs", better="less")


@SERVERS
def test_one_connection(contest: Contest, server: Server) -> None:
    appends(contest, server, ONE, "requests", connections=1, streams=1)


@pytest.mark.parametrize("contestant", [Bare], ids=lambda peer: peer.name)
def test_bare_syncs(contest: Contest, folder: Path, contestant: type[Bare]) -> None:
    """What one connection cannot do without."""
    times: list[float] = []

    def syncs() -> None:
        for _ in range(contest.size(3000, 20)):
            started = time.perf_counter()
            bare.append(0, TOKEN)
            times.append((time.perf_counter() - started) * 1e6)

    with contest.opened(lambda: contestant(folder)) as bare:
        contest.run(syncs)
    times.sort()
    for percentile, share in (("p50", 0.5), ("p99", 0.99)):
        value = times[int(share * len(times))]
        contest.tell(f"{ONE}: {percentile}", contestant.name, [value], "µs", better="less")


@SERVERS
def test_many_connections(contest: Contest, server: Server) -> None:
    appends(contest, server, MANY, "requests", connections=64, streams=64)


@SERVERS
def test_json_batches(contest: Contest, server: Server) -> None:
    appends(contest, server, BATCHES, "messages", connections=16, streams=16, messages=100)


@SERVERS
def test_catch_up(contest: Contest, server: Server) -> None:
    size = contest.size(100_000_000, 1_000_000)
    load("fill", server.port, bytes=size)
    read: list[float] = []

    def catch_up() -> None:
        read.append(load("catch-up", server.port, bytes=size)["bytes_per_second"])

    contest.run(catch_up, rounds=contest.size(3, 1), warm=True)
    contest.tell(CATCH_UP, server.name, read[1:], "B/s")


@pytest.mark.parametrize("contestant", [each for each in CONTESTANTS if each.name != BARE], ids=str)
def test_latency_against_load(contest: Contest, server: Server) -> None:
    """On a schedule that does not wait: what a request waits for counts, too."""
    seconds = contest.size(3, 1) / contest.size(1, 5)

    def rates() -> None:
        for rate in RATES[: contest.size(len(RATES), 1)]:
            path = f"/v1/stream/at-{rate}-"
            options = {"connections": 64, "streams": 64, "rate": rate, "warm_up": seconds / 3, "seconds": seconds}
            try:
                found = load("append", server.port, path, **options)["latency_us"]
            except LoadFailed as failure:
                if "does not keep up" not in str(failure):
                    raise
                return
            if found["p50"] > PATIENCE_US:
                return
            for percentile in ("p50", "p99", "p99.9"):
                contest.tell(
                    AGAINST_LOAD, server.name, [found[percentile]], "µs", better="less", series=percentile, at=rate
                )  # fmt: skip

    contest.run(rates)
