"""Appends over HTTP, one POST a token of 60 bytes or a batch, and catching up. Load comes from a process of its own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.bars import CATCH_UP, JSON_BATCHES, MANY, ONE, percentile_case
from benchmarks.contest import Contest
from benchmarks.generator import DOES_NOT_KEEP_UP, LoadFailed, load, tell_latency
from benchmarks.peers import Bare
from benchmarks.servers import CONTESTANTS, Server

RATES = (250, 500, 1000, 2000, 4000, 8000, 16000)
TOKEN = b"x" * 60
SERVERS = pytest.mark.parametrize("contestant", CONTESTANTS, ids=str)


def appends(contest: Contest, server: Server, case: str, unit: str, **options: float) -> None:
    """Measure a closed loop: as many as the server takes, and how long each waits."""
    seconds = 0.1 if contest.quick else 3
    found = server.measured(contest, lambda: server.load("append", warm_up=seconds / 5, seconds=seconds, **options))
    contest.tell(case, server.name, [found[f"{unit}_per_second"]], f"{unit}/s")
    tell_latency(contest, case, server.name, found)


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
    found = {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}
    tell_latency(contest, ONE, contestant.name, {"latency_us": found})


@SERVERS
def test_many_connections(contest: Contest, server: Server) -> None:
    appends(contest, server, MANY, "requests", connections=64, streams=64)


@SERVERS
def test_json_batches(contest: Contest, server: Server) -> None:
    appends(contest, server, JSON_BATCHES, "messages", connections=16, streams=16, messages=100)


@SERVERS
def test_catch_up(contest: Contest, server: Server) -> None:
    size = contest.size(100_000_000, 1_000_000)
    read: list[float] = []

    def catch_up() -> None:
        if not read:
            server.load("fill", bytes=size)
        read.append(server.load("catch-up", bytes=size)["bytes_per_second"])

    server.measured(contest, catch_up, rounds=contest.size(3, 1), warm=True)
    contest.tell(CATCH_UP, server.name, read[1:], "bytes/s")


@SERVERS
def test_latency_against_load(contest: Contest, server: Server) -> None:
    """On a schedule that does not wait: what a request waits for counts, too."""
    seconds = 0.2 if contest.quick else 2

    def rates() -> None:
        for rate in RATES[: contest.size(len(RATES), 1)]:
            options = {"connections": 64, "streams": 64, "rate": rate, "warm_up": seconds / 3, "seconds": seconds}
            try:
                found = load("append", server.port, f"/v1/stream/at-{rate}-", **options)["latency_us"]
            except LoadFailed as failure:
                if DOES_NOT_KEEP_UP not in str(failure):
                    raise
                return
            for percentile in ("p50", "p99"):
                case = percentile_case(f"{rate:,} requests/s on a schedule, 64 connections", percentile)
                value = [found[percentile]]
                contest.tell(case, server.name, value, "µs", better="less", series=percentile, at=rate)

    server.measured(contest, rates)
