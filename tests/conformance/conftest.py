"""What the suite and the clients of npm found on each front-end, and the clients that see every byte."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import vitest
from front_ends import FRONT_ENDS, KILLED, restarts, running
from packages import installed

sys.path.append(str(Path(__file__).resolve().parent.parent / "http"))


SUITE_GROUPS = 34


@pytest.fixture(scope="session")
def node_modules() -> Path:
    return installed(Path(__file__).parent)


@pytest.fixture(scope="session")
def found(
    request: pytest.FixtureRequest, node_modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[list[vitest.Result]]]]:
    """By front-end; as many run at a time as there are processors, since most of a run is waiting."""
    asked = {item.callspec.params.get("front_end") for item in request.session.items if hasattr(item, "callspec")}

    def run(front_end: str, directory: Path) -> list[vitest.Result]:
        if front_end == KILLED:
            with running("durable-log serve", directory) as server, restarts(server) as url:
                results = vitest.run(node_modules, server.url, directory, DURABLE_LOG_RESTART=url)
                assert server.lives > SUITE_GROUPS
                return results
        with running(front_end, directory) as server:
            return vitest.run(node_modules, server.url, directory)

    names = [name for name in (KILLED, *FRONT_ENDS) if name in asked]
    with ThreadPoolExecutor(os.cpu_count()) as lanes:
        yield {name: lanes.submit(run, name, tmp_path_factory.mktemp("run")) for name in names}
        lanes.shutdown(cancel_futures=True)
