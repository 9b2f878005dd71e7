"""Opening a store whose process was killed, by the size of its log; beside reading the same files.

Each opening is that of a fresh process, warm in the page cache.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.bars import PLAIN, RECOVERED, recovery_case
from benchmarks.cardinality_child import Child, open_store
from benchmarks.contest import OURS, Better, Contest
from benchmarks.filling import NO_CLUSTERING, fill_worker

PIECE = 4 * 2**20
OPTIONS = {**NO_CLUSTERING, "preallocate": False}
"""No zeroing of spares while something is measured."""


class Crashed(NamedTuple):
    """What a killed process left: where, the bytes of its log that count, and how many records are in them."""

    megabytes: int
    record: str
    path: Path
    log_bytes: int
    records: int


RECORDS = dict(zip(RECOVERED, [(64 * 2**10, True), (100, True), (100, False)], strict=True))
"""How long they are, and whether their streams were there before the log began, as after a checkpoint."""
SHAPES = [(megabytes, record) for record in RECORDS for megabytes in (8, 32, 128)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    shapes = SHAPES[:: len(SHAPES) // 2] if metafunc.config.getoption("--quick") else SHAPES
    ids = [f"{megabytes}-MB-{record}" for megabytes, record in shapes]
    metafunc.parametrize("crashed", shapes, ids=ids, indirect=True, scope="module")


@pytest.fixture(scope="module")
def crashed(request: pytest.FixtureRequest, shared_folder: Path) -> Crashed:
    """A store of up to 1,000 streams, killed when its log was so large."""
    megabytes, record = request.param
    path, (record_bytes, known) = shared_folder / f"{megabytes}-{record}", RECORDS[record]
    records = (2 if request.config.getoption("--quick") else megabytes) * 10**6 // (record_bytes + 24)
    arguments = {"streams": min(1000, records // 10 + 1), "records": records, "record_bytes": record_bytes}
    with Child() as child:
        child.call(open_store, path=str(path), options=OPTIONS)
        filled = child.call(fill_worker, **arguments, known=known)
    return Crashed(megabytes, record, path, filled["bytes_written"], filled["records"])


def open_seconds(store: Crashed) -> float:
    """Seconds that a fresh process takes to open it, before it is killed as well."""
    with Child() as child:
        told = child.call(open_store, path=str(store.path), options=OPTIONS)
    assert told["records"] >= store.records, f"{told['records']} of {store.records} records came back"
    return float(told["seconds"])


def read_log(store: Crashed) -> float:
    """Seconds to read the bytes of the log that count."""
    left, started = store.log_bytes, time.perf_counter()
    for path in sorted(store.path.glob("*.log")):
        with path.open("rb", buffering=0) as file:
            while left > 0 and (data := file.read(min(PIECE, left))):
                left -= len(data)
    return time.perf_counter() - started


@pytest.mark.parametrize("contestant", [OURS, PLAIN])
def test_open_after_a_crash(contest: Contest, crashed: Crashed, contestant: str) -> None:
    measure = read_log if contestant == PLAIN else open_seconds
    rounds = contest.size(5, 1)
    seconds = contest.run(lambda: [measure(crashed) for _ in range(rounds + 1)])[1:]

    def tell(what: str, values: list[float], unit: str, better: Better = "more") -> None:
        case = recovery_case(crashed.megabytes, crashed.record, what)
        contest.tell(case, contestant, values, unit, better=better, series=crashed.record, at=crashed.log_bytes)

    tell("time", seconds, "s", "less")
    tell("bytes", [crashed.log_bytes / each for each in seconds], "bytes/s")
    if contestant == OURS:
        tell("records", [crashed.records / each for each in seconds], "records/s")
