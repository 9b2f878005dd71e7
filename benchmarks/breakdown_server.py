"""`durable-log serve`, watched: when each step of an append begins and ends.

python -m benchmarks.breakdown_server PORT FOLDER

Law of this room: it looks at the calls between the rooms, changes nothing, and prints what it saw as JSON when it is
ended. A step takes a microsecond or two more for being watched.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from itertools import pairwise
from time import perf_counter
from typing import Any

import durable_log
from durable_log._cli import serve
from durable_log._http.at_once import AtOnce
from durable_log.engine.commit import Committer
from durable_log.engine.writer import LogWriter

STEPS: tuple[tuple[Any, str, str], ...] = (
    (AtOnce, "begin", "request"), (Committer, "_commit_group", "group"), (LogWriter, "write", "write"),
    (AtOnce, "_end", "answer"),
)  # fmt: skip
Moment = tuple[float, str]


def watch(owner: Any, name: str, step: str, moments: list[Moment]) -> None:
    """Note when calls of that method begin and when they have ended."""
    call = getattr(owner, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        moments.append((perf_counter(), step))
        try:
            return call(*arguments, **options)
        finally:
            moments.append((perf_counter(), f"{step} done"))

    setattr(owner, name, watched)


def medians(pairs: list[tuple[Moment, Moment]]) -> dict[str, float]:
    """From one moment to the next, by what they are, in µs."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for (begun, before), (ended, after) in pairs:
        found[f"{before} > {after}"].append((ended - begun) * 1e6)
    return {key: statistics.median(times) for key, times in found.items()}


def main() -> None:
    """Serve until a signal comes; then print."""
    port, folder = int(sys.argv[1]), sys.argv[2]
    threads: list[list[Moment]] = []
    for owner, name, step in STEPS:
        threads.append([])
        watch(owner, name, step, threads[-1])
    with durable_log.open(folder) as store, serve.listen("127.0.0.1", port) as listener:
        serve.serve_store(store, listener, serve.Settings())
    later = [moments[len(moments) // 4 * 2 :] for moments in threads]  # without what warms up
    alone = [pair for moments in later for pair in pairwise(moments) if pair[1][1] == f"{pair[0][1]} done"]
    together = sorted(moment for moments in later for moment in moments)
    print(json.dumps({"steps": medians(alone), "ways": medians(list(pairwise(together)))}))


if __name__ == "__main__":
    main()
