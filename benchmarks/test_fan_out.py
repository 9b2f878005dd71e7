"""One writer and many viewers of its stream by server-sent events, each of whom gets every token once."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.bars import CROWD, PACED, VIEWER
from benchmarks.contest import Contest
from benchmarks.generator import tell_latency
from benchmarks.servers import CONTESTANTS, Server

SERVERS = pytest.mark.parametrize("contestant", CONTESTANTS, ids=str)


def seconds_of(contest: Contest) -> float:
    return 0.2 if contest.quick else 3


@SERVERS
def test_a_crowd(contest: Contest, server: Server) -> None:
    """The writer waits for each token to be acknowledged."""
    seconds = seconds_of(contest)
    found = server.measured(contest, lambda: server.load("viewers", viewers=50, warm_up=seconds / 5, seconds=seconds))
    contest.tell(CROWD, server.name, [found["deliveries_per_second"]], "deliveries/s")
    tell_latency(contest, CROWD, server.name, found)


@SERVERS
def test_a_thousand_viewers(contest: Contest, server: Server) -> None:
    """A model writes at its own pace: every token has the time of 20 ms."""
    seconds, viewers = seconds_of(contest), contest.size(1000, 20)
    memory: list[int] = []

    def paced() -> dict[str, Any]:
        server.load("viewers", "/v1/stream/first-", viewers=1, seconds=0.2)
        memory.append(server.memory())
        server.forget_memory_max()
        return server.load("viewers", viewers=viewers, rate=50, warm_up=seconds / 5, seconds=seconds)

    found = server.measured(contest, paced)
    tell_latency(contest, PACED, server.name, found)
    contest.tell(VIEWER, server.name, [(server.memory_max() - memory[0]) / viewers], "bytes", better="less")


@SERVERS
def test_more_and_more_viewers(contest: Contest, server: Server) -> None:
    seconds = seconds_of(contest)

    def crowds() -> None:
        for viewers in (1, 10, 100, 1000)[: contest.size(4, 2)]:
            path = f"/v1/stream/of-{viewers}-"
            found = server.load("viewers", path, viewers=viewers, warm_up=seconds / 5, seconds=seconds)
            case, value = f"1 writer, {viewers:,} viewers", [found["deliveries_per_second"]]
            contest.tell(case, server.name, value, "deliveries/s", series="viewers", at=viewers)

    server.measured(contest, crowds)
