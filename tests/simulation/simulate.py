"""Seeds by the thousand: ``make simulate SEEDS=10000``; or one, told in full: ``make simulate SEED=123``."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / room) for room in ("engine", "disk", "model", "simulation")]

import logging

from simulation import Failed, Simulation

logging.getLogger("durable_log").setLevel(logging.CRITICAL)


def simulate(seed: int) -> tuple[int, str, Counter[str], int, str]:
    """One seed: its trace, what occurred, its steps, and what was wrong with it."""
    simulation = Simulation(seed)
    try:
        simulation.run()
    except Failed as failed:
        return seed, "", simulation.counts, simulation.steps, told(simulation, failed)
    return seed, simulation.trace.hexdigest(), simulation.counts, simulation.steps, ""


def told(simulation: Simulation, failed: Failed) -> str:
    """A failure, for whoever has to mend it."""
    where = f"seed {simulation.seed}, generation {simulation.generation}, step {simulation.steps}"
    lines = [f"{where}: {failed}", *(f"    {line}" for line in simulation.last)]
    lines.append(f"  again: make simulate SEED={simulation.seed}")
    return "\n".join(lines)


def shortest(seed: int) -> int:
    """The least number of steps of a seed after which something is wrong."""
    def fails(steps: int) -> bool:
        try:
            Simulation(seed, steps).run()
        except Failed:
            return True
        return False

    simulation = Simulation(seed)
    try:
        simulation.run()
    except Failed:
        pass
    low, high = 0, simulation.steps
    while low < high:
        middle = (low + high) // 2
        if fails(middle):
            high = middle
        else:
            low = middle + 1
    return low


def one(seed: int, steps: int | None) -> int:
    """Tell a seed in full."""
    logging.getLogger("durable_log").setLevel(logging.DEBUG)
    simulation = Simulation(seed, steps, print)
    try:
        simulation.run()
    except Failed as failed:
        traceback.print_exception(failed.__cause__)
        print(told(simulation, failed))
        if steps is None:
            logging.getLogger("durable_log").setLevel(logging.CRITICAL)
            print(f"  shortest: make simulate SEED={seed} STEPS={shortest(seed)}")
        return 1
    print(f"seed {seed}: {simulation.steps} steps, trace {simulation.trace.hexdigest()}")
    return 0


def many(first: int, count: int, jobs: int) -> int:
    """Simulate seeds, on so many processes."""
    begun, counts, steps, failures = time.monotonic(), Counter[str](), 0, 0
    with ProcessPoolExecutor(jobs) as pool:
        for done, (_, _, counted, stepped, wrong) in enumerate(pool.map(simulate, range(first, first + count), chunksize=4), 1):
            counts += counted
            steps += stepped
            if wrong:
                failures += 1
                print(wrong, flush=True)
            if done % 500 == 0:
                print(f"{done} seeds, {steps} steps, {failures} failures, {time.monotonic() - begun:.0f} s", flush=True)
    for what, number in sorted(counts.items()):
        print(f"{number:10} {what}")
    seconds = time.monotonic() - begun
    print(f"{count} seeds, {steps} steps, {failures} failures, {seconds:.0f} s, {count / seconds:.1f} seeds a second")
    return 1 if failures else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--from", type=int, default=1, dest="first")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return one(chosen.seed, chosen.steps)
    return many(chosen.first, chosen.seeds, chosen.jobs)


if __name__ == "__main__":
    sys.exit(main())
