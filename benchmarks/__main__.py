"""All benchmarks, several passes over all contestants, and what came of it as JSON and as a page of tables.

python -m benchmarks [--passes 5] [--only SUBJECT …] [--dir DIR] [--results DIR] [--streams N] [--quick]

Within a pass the contestants of a case follow each other; a figure is the median over the passes, and a ratio that of
the ratios within each pass. Subjects that have rounds of their own, in which sides take turns, are in the first alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, results, tables
from benchmarks.bars import STREAMS
from benchmarks.contest import subject_of

FOLDER = machine.ROOT / "benchmarks"
FILES = {subject_of(path): path for path in sorted(FOLDER.glob("test_*.py"))}
IN_ONE_PASS = {"cardinality"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--passes", type=int, default=None, help="5, or 1 with --quick")
    parser.add_argument("--only", choices=list(FILES), nargs="+", default=list(FILES), metavar="SUBJECT")
    parser.add_argument("--dir", type=Path, default=None, help="where contestants write (default: build/benchmarks)")
    parser.add_argument("--results", type=Path, default=None, help="where the results go (default: benchmarks/results)")
    parser.add_argument("--streams", type=int, default=STREAMS, help="of how many streams cardinality is")
    parser.add_argument("--quick", action="store_true", help="so little that nothing is measured, only run")
    return parser.parse_args()


def one_pass(subjects: list[str], options: list[str], report: Path) -> tuple[dict[str, Any], int]:
    """What pytest-benchmark writes of one pass, and its exit code."""
    files = [str(FILES[subject]) for subject in subjects]
    plugins = ["-p", "no:cacheprovider", "-p", "no:xdist", "--benchmark-quiet"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, f"--benchmark-json={report}", *options, *files]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    code = subprocess.run(command, cwd=machine.ROOT, env=environment, check=False).returncode
    if not report.exists():
        raise SystemExit(f"pytest measured nothing and ended with {code}: {shlex.join(command)}")
    return json.loads(report.read_text("utf-8")), code


def main() -> int:
    """Run the passes and write the results. Returns what the process exits with."""
    asked = arguments()
    build = machine.ROOT / "build" / "benchmarks"
    where = asked.dir or build
    into = asked.results or (build if asked.quick else FOLDER / "results")
    where.mkdir(parents=True, exist_ok=True)
    into.mkdir(parents=True, exist_ok=True)
    passes = asked.passes or (1 if asked.quick else 5)
    options = [f"--where={where}", f"--streams={asked.streams}", *(["--quick"] if asked.quick else [])]
    reports, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        for number in range(passes):
            subjects = [subject for subject in asked.only if number == 0 or subject not in IN_ONE_PASS]
            if not subjects:
                break
            print(f"pass {number + 1} of {passes}: {', '.join(subjects)}", flush=True)
            report, code = one_pass(subjects, options, Path(folder) / f"pass-{number}.json")
            reports.append(report)
            failed |= code != 0
    origin = {
        "command": f"python -m benchmarks {shlex.join(sys.argv[1:])}".strip(),
        "revision": machine.revision(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine.describe(where),
    }
    write(into / machine.slug(), results.merge(reports, origin))
    return int(failed)


def write(path: Path, measured: dict[str, results.Subject]) -> None:
    """The results of a machine: what was measured now replaces what it was before, and the rest stays."""
    data, page = path.with_suffix(".json"), path.with_suffix(".md")
    known = results.load(data) if data.exists() else {}
    results.save(data, {**known, **measured})
    page.write_text(tables.page(results.load(data)), "utf-8")
    print(tables.page(measured))
    print(f"written to {data} and {page.name}")


if __name__ == "__main__":
    sys.exit(main())
