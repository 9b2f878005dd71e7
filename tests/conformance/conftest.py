"""A server as its users start it, and the npm packages that judge it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from front_ends import running
from packages import installed


@pytest.fixture(scope="session")
def node_modules() -> Path:
    return installed(Path(__file__).parent)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running("durable-log serve", tmp_path_factory.mktemp("served")) as server:
        yield server.url
