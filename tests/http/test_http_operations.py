"""Health, readiness and metrics: what they say, to whom, and what they cost."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from serving import Served, serving, until

import durable_log
from durable_log import aio, asgi
from durable_log.access import Allow, Deny, Request
from durable_log.errors import InvalidOption, StoreUnreadable
from durable_log.operations import Operations, collector


def beside(streams: asgi.App) -> Any:
    """The streams, and the pages at ``/ops``, below a mount point of their own."""
    operations = Operations(streams, metrics=True)

    async def outer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/ops/"):
            await operations({**scope, "root_path": "/ops"}, receive, send)
        else:
            await streams(scope, receive, send)

    return outer


@pytest.fixture
def served():
    with serving(wrap=beside, long_poll_seconds=10, stall_seconds=0.2) as running:
        yield running


def figures(served: Served, **headers: str) -> dict[str, float]:
    """All samples, by name and labels."""
    response = served.http.get("/ops/metrics", headers=headers)
    assert response.status_code == 200
    return parsed(response.text)


def parsed(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_are_counted_by_action_and_status(served: Served):
    served.put("s", b"first")
    served.post("s", b"more")
    served.post("s", b"more")
    served.post("missing", b"more")
    served.http.get("/s?offset=-1")
    served.http.get("/s?offset=wrong")
    found = figures(served)
    name = "durable_log_http_requests_total"
    assert {key: value for key, value in found.items() if key.startswith(name)} == {
        f"{name} action=create status=201": 1,
        f"{name} action=append status=204": 2,
        f"{name} action=append status=404": 1,
        f"{name} action=read status=200": 1,
        f"{name} action=none status=400": 1,
    }
    assert found["durable_log_http_received_bytes_total"] == 17
    assert found["durable_log_appends_total"] == 3
    assert found["durable_log_appended_bytes_total"] == 13
    assert found["durable_log_streams"] == 1


def test_durations_are_cumulative_and_leave_live_responses_out(served: Served):
    served.put("s", b"text")
    served.close("s")
    served.http.get("/s")
    with served.http.stream("GET", "/s?offset=-1&live=sse") as response:
        response.read()
    read = "durable_log_http_requests_total action=read status=200"
    until(lambda: figures(served)[read] == 2, "the count of a live response that its client saw the end of")
    found = figures(served)
    name = "durable_log_http_request_seconds"
    classes = [value for key, value in found.items() if key.startswith(f"{name}_bucket action=read")]
    assert classes == sorted(classes)
    assert classes[-1] == found[f"{name}_count action=read"] == 1
    assert 0 < found[f"{name}_sum action=read"] < 10


def test_viewers_are_counted_while_they_are_there(served: Served):
    served.put("s", b"text")
    assert figures(served)["durable_log_viewers mode=sse"] == 0
    with served.events("s") as one, served.events("s") as other:
        one.pair()
        other.pair()
        found = figures(served)
        assert (found["durable_log_viewers mode=sse"], found["durable_log_viewers mode=long-poll"]) == (2, 0)
    until(lambda: served.app.live_responses == 0, "their departure")
    assert figures(served)["durable_log_viewers mode=sse"] == 0


def test_a_viewer_that_takes_nothing_is_counted(served: Served):
    served.put("s", b"x" * 16 * 2**20)
    with served.raw(b"GET /s?offset=-1&live=sse HTTP/1.1\r\nHost: x\r\n\r\n"):
        until(lambda: served.app.parts.live.cut_off == 1, "the cut")
    assert figures(served)["durable_log_viewers_cut_off_total"] == 1


def test_no_label_grows_with_the_names_of_streams(served: Served):
    for number in range(20):
        served.put(f"name{number}", b"text")
        served.http.request(f"VERB{number}", f"/name{number}")
        served.http.get(f"/missing{number}?offset={number}")
    text = served.http.get("/ops/metrics").text
    assert "name1" not in text
    assert "missing1" not in text
    assert "VERB" not in text
    labels = set(re.findall(r'(\w+)="', text))
    assert labels == {"action", "status", "mode", "le"}


def test_syncs_are_a_histogram_that_agrees_with_its_counters(tmp_path):
    with durable_log.open(tmp_path / "store") as store:
        stream = store.create("s")
        for _ in range(20):
            stream.append(b"text")
        stream.append(b"text", durability="written")
        found = parsed(exposed(asgi.app(store)))
        stats = store.stats()
    classes = [value for key, value in found.items() if key.startswith("durable_log_sync_seconds_bucket")]
    assert classes == sorted(classes)
    assert classes[-1] == found["durable_log_sync_seconds_count"] == stats["syncs"] == 21
    assert found["durable_log_sync_seconds_sum"] == stats["sync_seconds"] > 0
    assert found["durable_log_commits_total"] == 22
    assert found["durable_log_disk_free_bytes"] > 0


def exposed(streams: asgi.App) -> str:
    """What a registry of the application around it says."""
    registry = CollectorRegistry()
    registry.register(collector(streams))
    return generate_latest(registry).decode()


def test_figures_of_requests_outlive_the_store(tmp_path):
    store = durable_log.open(tmp_path / "store")
    streams = asgi.app(store)
    store.close()
    assert "durable_log_viewers" in exposed(streams)


def test_a_store_that_cannot_tell_leaves_its_figures_out():
    streams = asgi.app(SimpleStore({}, StoreUnreadable("x", OSError())))  # type: ignore[arg-type]
    assert "durable_log_viewers" in exposed(streams)
    assert "durable_log_streams" not in exposed(streams)


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    with durable_log.open(":memory:") as store:
        streams = asgi.app(store)
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        Operations(streams)
        for construct in (lambda: Operations(streams, metrics=True), lambda: collector(streams)):
            with pytest.raises(InvalidOption, match=r"pip install 'durable-log\[metrics\]'"):
                construct()


@pytest.mark.parametrize(("answer", "status"), [(Deny(401), 401), (Deny(403), 403), (Deny(404), 404), (Allow(), 200)])
def test_metrics_ask_the_hook_and_health_does_not(answer: Allow | Deny, status: int):
    asked: list[Request] = []

    def hook(request: Request) -> Allow | Deny:
        asked.append(request)
        return answer

    with serving(wrap=beside, authorize=hook) as served:
        assert served.http.get("/ops/metrics").status_code == status
        assert [(request.action, request.name) for request in asked] == [("metrics", "")]
        assert served.http.get("/ops/healthz").status_code == 200
        assert served.http.get("/ops/readyz").status_code == 200
    assert len(asked) == 1


def test_the_pages_are_for_looking_only(served: Served):
    for page in ("healthz", "readyz", "metrics"):
        assert served.http.head(f"/ops/{page}").content == b""
        refused = served.http.post(f"/ops/{page}")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert served.http.get(f"/ops/{page}").headers["cache-control"] == "no-store"
    assert served.http.get("/ops/other").status_code == 404


def test_they_take_no_name_from_the_streams(served: Served):
    assert served.put("healthz", b"a stream").status_code == 201
    assert served.http.get("/healthz").text == "a stream"


class SimpleStore(aio.AsyncStore):
    """A store that says of itself what a test wants."""

    def __init__(self, stats: dict[str, Any], error: Exception | None = None) -> None:
        self._stats, self._error = stats, error
        self.options = durable_log.Options()

    def stats(self) -> dict[str, Any]:
        if self._error is not None:
            raise self._error
        return self._stats


def ask(streams: asgi.App, page: str) -> tuple[int, str]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": page, "query_string": b"", "headers": []}
    asyncio.run(Operations(streams)(scope, None, send))  # type: ignore[arg-type]
    return sent[0]["status"], sent[1]["body"].decode()


def unavailable(reason: str) -> tuple[int, str]:
    return 503, f'{{"status":"unavailable","reason":"{reason}"}}\n'


OK = (200, '{"status":"ok"}\n')


@pytest.mark.parametrize(
    ("stats", "healthy", "ready"),
    [
        ({"failure": None, "disk_free_bytes": 2**40}, OK, OK),
        ({"failure": None, "disk_free_bytes": None}, OK, OK),
        ({"failure": None, "disk_free_bytes": 64 * 2**20 - 1}, OK, unavailable("disk_full")),
        (
            {"failure": "/data/00000001.log: Input/output error", "disk_free_bytes": 2**40},
            unavailable("store_failed"),
            unavailable("store_failed"),
        ),
    ],
)
def test_health_is_about_a_restart_and_readiness_about_requests(
    stats: dict[str, Any], healthy: tuple[int, str], ready: tuple[int, str]
):
    streams = asgi.app(SimpleStore(stats))
    assert ask(streams, "/healthz") == healthy
    assert ask(streams, "/readyz") == ready


def test_a_directory_that_cannot_be_looked_at_is_a_reason():
    streams = asgi.app(SimpleStore({}, StoreUnreadable("/data", OSError())))
    assert ask(streams, "/readyz") == unavailable("store_unreadable")


def test_a_closed_store_is_not_ready(tmp_path):
    store = durable_log.open(tmp_path / "store")
    streams = asgi.app(store)
    assert ask(streams, "/readyz") == OK
    store.close()
    assert ask(streams, "/readyz") == ask(streams, "/healthz") == unavailable("store_failed")


def test_a_server_that_is_about_to_end_is_not_ready_but_alive():
    with durable_log.open(":memory:") as store:
        streams = asgi.app(store)
        streams.begin_shutdown()
        assert ask(streams, "/readyz") == unavailable("shutting_down")
        assert ask(streams, "/healthz") == OK


def test_the_pages_run_as_an_application_of_their_own():
    sent: list[str] = []
    received = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(received)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    with durable_log.open(":memory:") as store:
        operations = Operations(asgi.app(store))
        asyncio.run(operations({"type": "lifespan"}, receive, send))
        asyncio.run(operations({"type": "websocket"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
