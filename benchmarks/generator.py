"""The load generator: built when it is needed, run as a process of its own.

Law of this room: what it measures is in ``load/``; here is only how it is called. It says what went wrong, and that
fails the benchmark.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import percentile_case
from benchmarks.contest import Contest

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ROOT / "benchmarks" / "load"
RUN_SECONDS_MAX: Final = 620
"""More than it gives itself."""

PATH: Final = "/v1/stream/load-"
DOES_NOT_KEEP_UP: Final = "the server does not keep up"


class LoadFailed(Exception):
    """A server answered what it must not, lost bytes, or was not done in time."""


def built() -> Path:
    """The program, compiled if its sources are newer."""
    program = ROOT / "build" / "load"
    sources = sorted(SOURCES.glob("*.[ch]"))
    if not program.exists() or program.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        program.parent.mkdir(exist_ok=True)
        files = [str(source) for source in sources if source.suffix == ".c"]
        new = program.with_suffix(".new")
        subprocess.run(
            ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", *files, "-o", str(new)], check=True, timeout=60
        )  # fmt: skip
        new.replace(program)
    return program


def load(subject: str, port: int, path: str = PATH, /, **options: float) -> dict[str, Any]:
    """Put load on the server at ``port``; see ``load/main.c``. Returns what was measured. Raises :class:`LoadFailed`.

    The streams are at ``path`` and a number behind it, and must not be there yet.
    """
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done = subprocess.run(
        [str(built()), subject, f"--port={port}", f"--path={path}", *words],
        capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise LoadFailed(done.stderr.strip() or f"the load generator ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def tell_latency(contest: Contest, case: str, contestant: str, found: dict[str, Any]) -> None:
    """Record the median and the 99th percentile of what was measured."""
    for percentile in ("p50", "p99"):
        value = found["latency_us"][percentile]
        contest.tell(percentile_case(case, percentile), contestant, [value], "µs", better="less")
