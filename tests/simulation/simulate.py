"""Seeds by the thousand: ``make simulate SEEDS=10000 FROM=1 JOBS=2``; or one, told in full: ``make simulate SEED=123``.

Law of this room: it starts simulations, on as many processes as it is told, and says what came of them.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / room) for room in ("engine", "disk", "model", "simulation")]

from simulation import Failed, Simulation  # noqa: E402 - where it is found is said above

TOLD_EVERY = 500


class Outcome(NamedTuple):
    """What came of one seed. ``failure`` is empty if nothing was wrong."""

    seed: int
    steps: int
    trace: str
    counts: Counter[str]
    failure: str


def simulate(seed: int, steps: int | None = None) -> Outcome:
    """One seed, up to its end or to so many steps."""
    log = logging.getLogger("durable_log")
    level, log.level = log.level, logging.CRITICAL + 1  # the store tells of every fault that it meets
    simulation, failure = Simulation(seed, steps), ""
    try:
        simulation.run()
    except Failed as failed:
        failure = told(simulation, failed)
    finally:
        log.setLevel(level)
    return Outcome(seed, simulation.steps, simulation.trace.hexdigest(), simulation.counts, failure)


def outcomes(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    """All of them, in order, on so many processes."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(simulate, seeds, chunksize=4)


def told(simulation: Simulation, failed: Failed) -> str:
    """A failure, for whoever has to mend it."""
    where = f"seed {simulation.seed}, generation {simulation.generation}, step {simulation.steps}"
    lines = [f"{where}: {failed}", *(f"    {line}" for line in simulation.last)]
    return "\n".join([*lines, f"  again: make simulate SEED={simulation.seed}"])


def shortest(seed: int) -> int:
    """The least number of steps of a failing seed after which something is wrong."""
    low, high = 0, simulate(seed).steps
    while low < high:
        middle = (low + high) // 2
        if simulate(seed, middle).failure:
            high = middle
        else:
            low = middle + 1
    return low


def one(seed: int, steps: int | None) -> int:
    """Tell a seed in full."""
    simulation = Simulation(seed, steps, print)
    try:
        simulation.run()
    except Failed as failed:
        traceback.print_exception(failed.__cause__)
        print(told(simulation, failed))
        if steps is None:
            print(f"  shortest: make simulate SEED={seed} STEPS={shortest(seed)}")
        return 1
    print(f"seed {seed}: {simulation.steps} steps, trace {simulation.trace.hexdigest()}")
    return 0


def many(first: int, count: int, jobs: int) -> int:
    """Simulate seeds, tell what is wrong with any, and how often everything has occurred."""
    begun, counts, steps, failures = time.monotonic(), Counter[str](), 0, 0
    for done, outcome in enumerate(outcomes(range(first, first + count), jobs), 1):
        counts += outcome.counts
        steps += outcome.steps
        if outcome.failure:
            failures += 1
            print(outcome.failure, flush=True)
        if done % TOLD_EVERY == 0:
            print(f"{done} seeds, {failures} failures, {time.monotonic() - begun:.0f} s", flush=True)
    for what, number in sorted(counts.items()):
        print(f"{number:10} {what}")
    seconds = time.monotonic() - begun
    print(f"{count} seeds, {steps} steps, {failures} failures, {seconds:.0f} s, {count / seconds:.1f} seeds a second")
    return 1 if failures else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="this one, told in full")
    parser.add_argument("--steps", type=int, help="so many steps of it")
    parser.add_argument("--seeds", type=int, default=200, help="so many")
    parser.add_argument("--from", type=int, default=1, dest="first", help="from this one on")
    parser.add_argument("--jobs", type=int, default=2, help="on so many processes")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return one(chosen.seed, chosen.steps)
    return many(chosen.first, chosen.seeds, chosen.jobs)


if __name__ == "__main__":
    sys.exit(main())
