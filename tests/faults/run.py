"""System calls that fail, in a process of its own: all of a workload, or exactly one.

    python tests/faults/run.py WORKLOAD [--long]
    python tests/faults/run.py WORKLOAD --call 17 --error EIO --times 1 --step 1 --manner done [--killed]
    python tests/faults/run.py --list

Without the shim in it, it builds the shim and starts again with it. Exit code 1: something does not hold; it says what,
and how to see exactly that once more.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "engine"))

from injection import Injection, Watchdog, all_faults, faults_in_ci
from shim import APPLICABLE, MANNERS, Fault, compiled
from workloads import WORKLOADS

FAILURES_TOLD = 10


def command(name: str, fault: Fault, killed: bool) -> str:
    """How to run exactly that."""
    call, error, times, step, manner = fault
    words = f"--call {call} --error '{error}' --times {times} --step {step} --manner {manner}"
    return f"{sys.executable} {Path(__file__)} {name} {words}{' --killed' if killed else ''}"


def run_all(name: str, injection: Injection, *, long: bool) -> int:
    """Every fault of a workload. Says what failed, and how much there was."""
    watchdog, started, counts, failures = Watchdog(), time.monotonic(), {}, {}
    watchdog.expect(f"{name} with nothing failing")
    calls = injection.calls()
    for number, fault in enumerate((all_faults if long else faults_in_ci)(calls)):
        killed = number % 2 == 1
        watchdog.expect(command(name, fault, killed))
        try:
            hit = injection.run(fault, killed=killed)
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is what a test is there to find
            same = failures.setdefault(traceback.format_exception(failure)[-2:][0] + str(failure), [])
            same.append(f"{''.join(traceback.format_exception(failure))}once more: {command(name, fault, killed)}\n")
        else:
            counts[fault.error] = counts.get(fault.error, 0) + bool(hit)
    for same in list(failures.values())[:FAILURES_TOLD]:
        sys.stderr.write(f"{same[0]}and {len(same) - 1} like it\n\n")
    hits = ", ".join(f"{count} {error}" for error, count in counts.items())
    print(f"{name}: {len(calls)} calls, {sum(counts.values())} runs ({hits}), {time.monotonic() - started:.1f} s")
    return 1 if failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", nargs="?", choices=WORKLOADS)
    parser.add_argument("--list", action="store_true", help="the names of all workloads")
    parser.add_argument("--long", action="store_true", help="all errors, once and for ever")
    parser.add_argument("--trace", action="store_true", help="tell the calls that were made")
    parser.add_argument("--call", type=int, help="which of the calls that the error applies to, counted from 1")
    parser.add_argument("--error", choices=APPLICABLE, default="EIO")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--manner", choices=MANNERS, default="nothing")
    parser.add_argument("--killed", action="store_true", help="check what a kill at the end leaves, too")
    asked = parser.parse_args()
    if asked.list or asked.workload is None:
        print(*WORKLOADS, sep="\n")
        return 0
    if "LD_PRELOAD" not in os.environ:
        library = compiled(Path(os.environ.get("DURABLE_LOG_SHIM", HERE.parent.parent / "build" / "faults")))
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "LD_PRELOAD": str(library)})
    logging.disable(logging.CRITICAL)
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as scratch:
        injection = Injection(asked.workload, Path(scratch))
        if asked.call is None and not asked.trace:
            return run_all(asked.workload, injection, long=asked.long)
        Watchdog().expect("this")
        fault = None
        if asked.call is not None:
            fault = Fault(asked.call, asked.error, asked.times, asked.step, asked.manner)
        try:
            injection.run(fault, killed=asked.killed)
        finally:
            if asked.trace:
                for number, call in enumerate(injection.made, 1):
                    print(f"{number:5} {call.kind:15} {call.name:30} {os.strerror(call.error) if call.error else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
