"""What every benchmark is given: rounds of a contestant's work, timed, and the figures that come of them.

Law of this room: it knows no contestant by name, and no subject. A figure names its case and its contestant; figures of
one case are compared with each other, within one pass over all contestants, since the machine drifts between passes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import pytest

from benchmarks.peers.base import Absent

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

OURS = "durable_log"
ROUND_SECONDS = 0.3
"""A round takes so long, or up to twice as long."""
Better = Literal["more", "less"]
Result = TypeVar("Result")


class Contestant(Protocol):
    """What is measured: open until it is closed."""

    @property
    def name(self) -> str:
        """As the tables call it."""

    @property
    def how(self) -> str:
        """How it is used, in a line."""

    def version(self) -> str:
        """Which version of it this is."""

    def close(self) -> None:
        """Close it."""


Opened = TypeVar("Opened", bound=Contestant)


class Figure(NamedTuple):
    """What was measured of one contestant in one case, once for each round. ``at`` is where it lies on the axis of a
    plot (writers, streams, bytes), and ``series`` which of several lines of the contestant it belongs to.
    """

    case: str
    contestant: str
    unit: str
    better: Better
    values: list[float]
    series: str = ""
    at: float | None = None


class Contest:
    """One test's way to rounds and figures; the fixture ``contest``."""

    def __init__(self, request: pytest.FixtureRequest, *, quick: bool) -> None:
        self._request = request
        self.quick = quick

    def size(self, full: int, quick: int) -> int:
        """How much work to do: as much as makes a steady figure, or as little as shows that it runs."""
        return quick if self.quick else full

    @contextmanager
    def opened(self, make: Callable[[], Opened]) -> Iterator[Opened]:
        """A contestant, until the end of the block. One that is absent skips the test, and the tables say why."""
        try:
            contestant = make()
        except Absent as absent:
            pytest.skip(str(absent))
        about = {"version": contestant.version(), "how": contestant.how}
        self._benchmark.extra_info.setdefault("contestants", {})[contestant.name] = about
        try:
            yield contestant
        finally:
            contestant.close()

    def race(
        self,
        case: str,
        contestant: str,
        work: Callable[[int], float | None],
        *,
        amount: float,
        unit: str,
        rounds: int = 3,
        series: str = "",
        at: float | None = None,
    ) -> None:
        """Rounds of ``work``, as ``amount`` of ``unit`` for each time that it is done.

        It is given how many times it is to be done: as often as fills a round, which is found out by doubling, and
        warms up. Work that is not to be timed whole returns the seconds that count.
        """

        def seconds(times: int) -> float:
            started = time.perf_counter()
            told = work(times)
            return time.perf_counter() - started if told is None else told

        times, found = 1, list[float]()
        while seconds(times) < ROUND_SECONDS and not self.quick:
            times *= 2
        self.run(lambda: found.append(seconds(times)), rounds=1 if self.quick else rounds)
        self.tell(case, contestant, [times * amount / each for each in found], f"{unit}/s", series=series, at=at)

    def run(self, work: Callable[[], Result], *, rounds: int = 1, warm: bool = False) -> Result:
        """Rounds of ``work``, whose own figures are told one by one. Returns what the last round returned."""
        if not self.quick:
            os.sync()  # nobody pays for what the one before left to be written
        pedantic: Any = self._benchmark.pedantic
        result: Result = pedantic(work, rounds=rounds, warmup_rounds=int(warm))
        return result

    def tell(
        self,
        case: str,
        contestant: str,
        values: Sequence[float],
        unit: str,
        *,
        better: Better = "more",
        series: str = "",
        at: float | None = None,
    ) -> None:
        """Record a figure."""
        figure = Figure(case, contestant, unit, better, list(values), series, at)
        self._benchmark.extra_info.setdefault("figures", []).append(figure._asdict())

    @property
    def _benchmark(self) -> BenchmarkFixture:
        fixture: BenchmarkFixture = self._request.getfixturevalue("benchmark")  # made where it is used: else it warns
        return fixture


def missing(item: Any, report: pytest.TestReport) -> dict[str, str] | None:
    """What a test that has no figures says about its contestant, if it says anything."""
    if not (report.skipped or report.failed):
        return None
    asked = getattr(item, "callspec", None)
    contestant = asked.params.get("contestant", "") if asked is not None else ""
    if report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "skipped"
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = f"failed: {(crash.message if crash else report.longreprtext).strip().splitlines()[0]}"
    return {
        "subject": subject_of(item.path),
        "contestant": str(getattr(contestant, "name", contestant) or item.name),
        "reason": reason,
    }


def subject_of(path: Path) -> str:
    """What a file is about."""
    return path.stem.removeprefix("test_")
