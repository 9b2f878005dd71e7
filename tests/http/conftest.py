"""One server for the tests that need nothing special of it, and a name that no other test uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import CONNECTIONS, Served, serving


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    with serving(long_poll_seconds=0.2, cache_control="public") as running:
        yield running


@pytest.fixture(scope="session", params=CONNECTIONS)
def patient(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A server whose long-polls and event streams end only for a reason."""
    http = CONNECTIONS[request.param]
    with serving(http=http, long_poll_seconds=60, sse_seconds=60, heartbeat_seconds=30) as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name.partition('[')[0]}/{id(request.node)}"
