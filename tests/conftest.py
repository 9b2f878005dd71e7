"""In which order tests run, and what runs side by side where there are several processes (``make test``).

Law of this room: without pytest-xdist it changes only the order. Tests of one file share what they set up, so they stay
in one process; but for the files that have little to share and take long, whose tests go to whoever is free.
"""

from __future__ import annotations

import pytest

ALONE = (
    "tests/sabotage/test_sabotage.py",
    "tests/fuzz/test_fuzz_for_long.py",
    "tests/disk/test_crash_images.py",
    "tests/faults/test_faults.py",
)
"""Files of long tests. The longest come first, or one process would be left with them at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort, and group for ``--dist loadgroup``."""
    files = {item: item.nodeid.partition("::")[0] for item in items}
    for item, file in files.items():
        if file not in ALONE:
            item.add_marker(pytest.mark.xdist_group(file))
    items.sort(key=lambda item: ALONE.index(files[item]) if files[item] in ALONE else len(ALONE))
