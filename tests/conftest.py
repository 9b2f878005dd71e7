"""In which order tests run, and what runs side by side where there are several processes (``make test``).

Law of this room: without pytest-xdist it changes nothing. Tests of one file share what they set up, so they stay in
one process; but for the files that have little to share and take long, whose tests go to whoever is free.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.register_assert_rewrite("runs")  # a run that is not what it should be is shown beside what it should be

FUZZED = "tests/fuzz/test_fuzz_for_long.py"
LANES = 2
"""So many decoders are fuzzed at a time, with what others leave of the processors, as long as there is heavy work."""
FIRST = (
    FUZZED,
    "tests/conformance/test_conformance.py",
    "tests/sabotage/test_sabotage.py",
    "tests/disk/test_crash_images.py",
    "tests/faults/test_faults.py",
    "tests/repair/test_repair_random.py",
    "tests/engine/test_run_flipped_bytes.py",
)
"""Files that take long. They come first, or one process would be left with them at the end."""
DIVIDED = FIRST[2:]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have to tell beside that they pass, by ``record_property``: numbers of one name are added up."""
    told: dict[str, Any] = {}
    for report in [report for some in terminalreporter.stats.values() for report in some]:
        for what, figure in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
            told[what] = told.get(what, 0) + figure if isinstance(figure, int) else figure
    if told:
        terminalreporter.section("what was counted")
    for what, figure in sorted(told.items()):
        terminalreporter.write_line(f"{what}: {figure:,}" if isinstance(figure, int) else f"{what}: {figure}")


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return
    files = {item: file_of(item.nodeid) for item in items}
    items.sort(key=lambda item: FIRST.index(files[item]) if files[item] in FIRST else len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    lanes: dict[str, int] = {}

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = file_of(nodeid)
            if file == FUZZED:
                return f"{file}::{lanes.setdefault(nodeid, len(lanes) % LANES)}"
            return nodeid if file in DIVIDED else file

    return ByFile(config, log)
