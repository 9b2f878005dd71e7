"""A guard of the hot paths that does not look at the clock: how many instructions each takes, counted by valgrind.

python -m benchmarks.instructions [--update] [--only PATH …] [--file FILE]

Law of this room: a path is gone in two processes, a few times and many times; the difference of their counts, by the
times, is the path's, and what starting costs is gone. Counts hold for one build of Python and of the C core only, so
the file keeps them by build, and a build that it does not know is not checked and does not pass.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import ROOT

FILE = ROOT / "benchmarks" / "instructions.json"
TOLERANCE = 0.03
"""Counts of the same code differed by up to 1.3 percent between runs on a busy machine."""
TIMES: dict[str, tuple[int, int]] = {
    "append": (50, 1050),
    "append_many 1000": (20, 220),
    "append_many 1000 JSON": (20, 220),
    "read 64 KiB in the log": (20, 80),
    "read 64 KiB clustered": (20, 1220),
    "iterate 1000": (20, 120),
    "iterate 1000 as bytes": (20, 420),
    "asyncio commit of 64": (20, 100),
    "open after a crash": (3, 13),
    "64 POSTs at a server": (20, 100),
    "ASGI POST": (30, 530),
    "ASGI GET": (30, 1030),
    "ASGI SSE to 50": (10, 90),
}
"""How often each path of ``hot_paths`` is gone in either process."""
PASSED, GREW, UNKNOWN = 0, 1, 2


class Change(NamedTuple):
    """A path's count, and the one that is known."""

    path: str
    known: float | None
    now: float

    @property
    def growth(self) -> float:
        """By how much it has grown; 0 if nothing is known."""
        return self.now / self.known - 1 if self.known else 0.0

    def line(self, tolerance: float) -> str:
        """As it is printed."""
        known = f"{self.known:14,.0f}" if self.known else f"{'not known':>14}"
        verdict = "GREW" if self.growth > tolerance else "less: --update holds it" if self.growth < -tolerance else ""
        return f"{self.path:<26}{known}{self.now:14,.0f}{self.growth:+8.1%}  {verdict}".rstrip()


def build() -> str:
    """What counts depend on beside the code."""
    asked = [os.environ.get("CC", "cc"), "-dumpfullversion"]
    compiler = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    python = f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})"
    libc = " ".join(platform.libc_ver())
    return f"{python}, cc {compiler}, {libc}, {platform.machine()}"


def each(few: int, many: int, count: Callable[[int], int]) -> float:
    """Instructions each time, by the counts of a process that goes the path few times and one that goes it many."""
    return (count(many) - count(few)) / (many - few)


def counted(path: str, times: int) -> int:
    """Instructions of a process that goes the path so many times."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={folder}/counts"]
        python = [sys.executable, "-m", "benchmarks.hot_paths", path, str(times), folder]
        done = subprocess.run(
            [*valgrind, *python], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    found = re.search(r"I +refs: +([\d,]+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"{path}, {times} times, failed under valgrind:\n{done.stderr}")
    return int(found[1].replace(",", ""))


def measure(paths: list[str]) -> dict[str, float]:
    """The counts of paths, as many at a time as there are processors."""
    (ROOT / "build").mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda path: each(*TIMES[path], lambda times: counted(path, times)), paths)
        return dict(zip(paths, found, strict=True))


def check(known: Mapping[str, float], now: Mapping[str, float], tolerance: float = TOLERANCE) -> int:
    """Print both, and return what the process exits with."""
    changes = [Change(path, known.get(path), count) for path, count in now.items()]
    print(f"{'instructions':<26}{'known':>14}{'now':>14}{'':>8}")
    for change in changes:
        print(change.line(tolerance))
    if any(change.growth > tolerance for change in changes):
        print(f"more than {tolerance:.0%} above what is known; if that has to be, run it with --update")
        return GREW
    missing = [change.path for change in changes if change.known is None]
    if missing:
        print(f"no counts of {', '.join(missing)}: run --update")
        return UNKNOWN
    return PASSED


def load(file: Path) -> dict[str, dict[str, float]]:
    """Counts by build."""
    found: dict[str, dict[str, float]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found


def main() -> int:
    """Check the counts, or write them anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write what is counted to the file")
    parser.add_argument("--only", choices=list(TIMES), nargs="+", default=list(TIMES), metavar="PATH")
    parser.add_argument("--file", type=Path, default=FILE)
    asked = parser.parse_args()
    known, this = load(asked.file), build()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (Debian: apt-get install valgrind): nothing is checked")
        return UNKNOWN
    if this not in known and not asked.update:
        print(f"no counts for this build: run --update\n  this: {this}")
        print("\n".join(f"  known: {one}" for one in known))
        return UNKNOWN
    now = measure(asked.only)
    if not asked.update:
        return check(known[this], now)
    known[this] = {**known.get(this, {}), **{path: round(count) for path, count in now.items()}}
    asked.file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
    check(known[this], now)
    return PASSED


if __name__ == "__main__":
    sys.exit(main())
