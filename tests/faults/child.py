"""The process in which system calls fail: all faults of a workload, or exactly one. ``run.py`` starts it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from fault_workloads import WORKLOADS
from injection import Injection, Watchdog, all_faults, faults_in_ci
from sabotage import SABOTAGES
from shim import APPLICABLE, MANNERS, Fault

FAILURES_TOLD = 10
RUN = Path(__file__).with_name("run.py")


def command(name: str, fault: Fault, killed: bool) -> str:
    """How to run exactly that."""
    call, error, times, step, manner = fault
    words = f"--call {call} --error '{error}' --times {times} --step {step} --manner {manner}"
    return f"{sys.executable} {RUN} {name} {words}{' --killed' if killed else ''}"


def run_all(injection: Injection, *, long: bool, first_only: bool) -> int:
    """Every fault of a workload. Says what failed, and how much there was."""
    watchdog, started, counts = Watchdog(), time.monotonic(), dict[str, int]()
    failures = dict[str, list[str]]()
    name = injection.name
    watchdog.expect(f"{name} with nothing failing")
    calls = injection.calls()
    for number, fault in enumerate((all_faults if long else faults_in_ci)(calls)):
        killed = number % 2 == 1
        watchdog.expect(command(name, fault, killed))
        try:
            hit = injection.run(fault, killed=killed, twice=long or number % 4 > 1)
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is what a test is there to find
            told = traceback.format_exception(failure)
            alike = failures.setdefault("".join(told[-2:]), [])
            alike.append(f"{''.join(told)}{name}, {fault}; once more:\n{command(name, fault, killed)}\n")
            if first_only:
                break
        else:
            counts[fault.error] = counts.get(fault.error, 0) + bool(hit)
    for alike in list(failures.values())[:FAILURES_TOLD]:
        sys.stderr.write(f"{alike[0]}and {len(alike) - 1} like it\n\n")
    hits = ", ".join(f"{count} {error}" for error, count in counts.items())
    print(f"{name}: {len(calls)} calls, {sum(counts.values())} runs ({hits}), {time.monotonic() - started:.1f} s")
    return 1 if failures else 0


def run_one(injection: Injection, fault: Fault | None, *, killed: bool, trace: bool) -> None:
    """One fault, or none. Raises what does not hold."""
    Watchdog().expect(str(fault))
    try:
        injection.run(fault, killed=killed)
    finally:
        if trace:
            for number, call in enumerate(injection.made, 1):
                print(f"{number:5} {call.kind:15} {call.name:30} {os.strerror(call.error) if call.error else ''}")


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A store whose system calls fail.")
    parser.add_argument("workload", nargs="?", choices=WORKLOADS, help="all of them, with nothing failing, if none")
    parser.add_argument("--long", action="store_true", help="all errors, once and for ever")
    parser.add_argument("--trace", action="store_true", help="tell the calls that were made")
    parser.add_argument("--call", type=int, help="which of the calls that the error applies to, counted from 1")
    parser.add_argument("--error", choices=APPLICABLE, default="EIO")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--manner", choices=MANNERS, default="nothing")
    parser.add_argument("--killed", action="store_true", help="check what a kill at the end leaves, too")
    parser.add_argument("--sabotage", choices=SABOTAGES, help="put a bug into the engine that has to be found")
    return parser.parse_args()


def main() -> int:
    options = asked()
    logging.disable(logging.CRITICAL)
    if options.sabotage:
        SABOTAGES[options.sabotage]()
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as scratch:
        if options.workload is None:
            for name, workload in WORKLOADS.items():
                injection = Injection(name, Path(scratch))
                run_one(injection, None, killed=True, trace=False)
                kind, ending = workload.proof
                assert any(call.kind == kind and call.name.endswith(ending) for call in injection.made), name
                print(name)
            return 0
        injection = Injection(options.workload, Path(scratch))
        if options.call is None and not options.trace:
            return run_all(injection, long=options.long, first_only=bool(options.sabotage))
        fault = None
        if options.call is not None:
            fault = Fault(options.call, options.error, options.times, options.step, options.manner)
        run_one(injection, fault, killed=options.killed, trace=options.trace)
    return 0


if __name__ == "__main__":
    sys.exit(main())
