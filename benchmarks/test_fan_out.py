"""One writer and many viewers of its stream by server-sent events, each of whom gets every token once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.contest import Contest
from benchmarks.generator import load
from benchmarks.servers import CONTESTANTS, Contestant, Server

CROWD = "HTTP, 1 writer, 50 viewers"
PACED = "HTTP, 1 writer at 50 tokens/s, 1,000 viewers"
MEMORY = "HTTP, memory of a viewer"
AGAINST_VIEWERS = "HTTP, deliveries against viewers"
SERVERS = pytest.mark.parametrize("contestant", CONTESTANTS, ids=str)


@pytest.fixture
def server(contest: Contest, folder: Path, contestant: Contestant) -> Iterator[Server]:
    with contest.opened(lambda: Server(contestant, folder)) as server:
        yield server


def seconds_of(contest: Contest) -> float:
    return contest.size(5, 1) / contest.size(1, 5)


@SERVERS
def test_a_crowd(contest: Contest, server: Server) -> None:
    """The writer waits for each token to be acknowledged."""
    seconds = seconds_of(contest)
    found = contest.run(lambda: load("viewers", server.port, viewers=50, warm_up=seconds / 5, seconds=seconds))
    contest.tell(CROWD, server.name, [found["deliveries_per_second"]], "deliveries/s")
    for percentile in ("p50", "p99"):
        contest.tell(f"{CROWD}: {percentile}", server.name, [found["latency_us"][percentile]], "µs", better="less")


@SERVERS
def test_a_thousand_viewers(contest: Contest, server: Server) -> None:
    """A model writes at its own pace: every token has the time of 20 ms."""
    seconds, viewers = seconds_of(contest), contest.size(1000, 20)
    load("viewers", server.port, "/v1/stream/first-", viewers=1, seconds=0.2)
    before = server.memory()
    server.forget_memory_max()
    found = contest.run(
        lambda: load("viewers", server.port, viewers=viewers, rate=50, warm_up=seconds / 5, seconds=seconds)
    )
    for percentile in ("p50", "p99"):
        contest.tell(f"{PACED}: {percentile}", server.name, [found["latency_us"][percentile]], "µs", better="less")
    contest.tell(MEMORY, server.name, [(server.memory_max() - before) / viewers], "B", better="less")


@SERVERS
def test_more_and_more_viewers(contest: Contest, server: Server) -> None:
    seconds = seconds_of(contest) / 2

    def crowds() -> None:
        for viewers in (1, 10, 100, 1000)[: contest.size(4, 2)]:
            path = f"/v1/stream/of-{viewers}-"
            found = load("viewers", server.port, path, viewers=viewers, warm_up=seconds / 5, seconds=seconds)
            contest.tell(AGAINST_VIEWERS, server.name, [found["deliveries_per_second"]], "deliveries/s", at=viewers)

    contest.run(crowds)
