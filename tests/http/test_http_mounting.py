"""The application by itself, below other applications, with lifespan events and without."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from serving import Served, serving, token
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import durable_log
from durable_log import access, aio, asgi
from durable_log.errors import InvalidOption


def starlette(inner: Any) -> Any:
    home = Route("/", lambda _: PlainTextResponse("home"))
    return Starlette(routes=[home, Mount("/deep", routes=[Mount("/streams", app=inner)])])


def stripping(raw: bool) -> Callable[[Any], Any]:
    """A mount that takes its own part off the path, as older servers do, off the raw one too or not."""

    def wrap(inner: Any) -> Any:
        async def outer(scope: dict[str, Any], receive: Any, send: Any) -> None:
            path = scope["path"].removeprefix("/deep/streams")
            raw_path = scope["raw_path"].removeprefix(b"/deep/streams") if raw else scope["raw_path"]
            await inner({**scope, "root_path": "/deep/streams", "path": path, "raw_path": raw_path}, receive, send)

        return outer

    return wrap


def without_raw_path(inner: Any) -> Any:
    async def outer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope = {key: value for key, value in scope.items() if key != "raw_path"}
        await inner({**scope, "root_path": "/deep/streams"}, receive, send)

    return outer


MOUNTS: dict[str, dict[str, Any]] = {
    "starlette": {"wrap": starlette},
    "starlette with lifespan": {"wrap": starlette, "lifespan": "on"},
    "path stripped": {"wrap": stripping(raw=False)},
    "path and raw path stripped": {"wrap": stripping(raw=True)},
    "no raw path": {"wrap": without_raw_path},
    "prefix": {"prefix": "/deep/streams"},
    "prefix with lifespan": {"prefix": "/deep/streams/", "lifespan": "on"},
}


@pytest.fixture(params=list(MOUNTS))
def mounted(request: pytest.FixtureRequest):
    with serving(**MOUNTS[request.param]) as running:
        yield running


def test_streams_are_where_the_application_is_mounted(mounted: Served):
    created = mounted.put("deep/streams/chat/4%202", b"one")
    assert created.status_code == 201
    assert created.headers["location"] == f"{mounted.url}/deep/streams/chat/4%202"
    assert mounted.post("deep/streams/chat/4%202", b"two").headers["stream-next-offset"] == token(6)
    assert mounted.http.get("/deep/streams/chat%2F4%202").content == b"onetwo"
    with mounted.events("deep/streams/chat/4%202") as viewer:
        assert viewer.pair()[0] == "onetwo"
    assert mounted.http.get("/deep/streams/").status_code == 404
    assert mounted.http.get("/deep/streams/__ds/x").json()["error"]["code"] == "reserved"


def test_the_source_of_a_fork_is_where_the_application_is_mounted(mounted: Served):
    mounted.put("deep/streams/chat/4%202", b"one")
    named = {"stream-forked-from": "/deep/streams/chat%2F4%202"}
    assert mounted.put("deep/streams/fork", b"two", **named).status_code == 201
    assert mounted.http.get("/deep/streams/fork").content == b"onetwo"
    elsewhere = {"stream-forked-from": "/deep/streams"}
    assert mounted.put("deep/streams/other", **elsewhere).status_code == 404


def told(root_path: str) -> Callable[[Any], Any]:
    """A server that names what a proxy took off the path, and leaves the path as it came, as hypercorn's does."""

    def wrap(inner: Any) -> Any:
        async def outer(scope: dict[str, Any], receive: Any, send: Any) -> None:
            await inner({**scope, "root_path": root_path}, receive, send)

        return outer

    return wrap


def fastapi(inner: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a root path of the application is deprecated, and in use
        outer = FastAPI(root_path="/out/side")
    outer.mount("/deep/streams", inner)
    return outer


def starlette_at(path: str, root_path: str) -> Callable[[Any], Any]:
    return lambda inner: told(root_path)(Starlette(routes=[Mount(path, app=inner)]))


PROXIED: dict[str, dict[str, Any]] = {
    "FastAPI is told": {"wrap": fastapi},
    "Starlette below a server that is told": {"wrap": starlette_at("/deep/streams", "/out/side")},
    "a slash at the end": {"wrap": starlette_at("/deep/streams", "/out/side/")},
    "a parameter in the mount": {"wrap": starlette_at("/{tenant}/streams", "/out/side")},
    "mounted everywhere": {"wrap": starlette_at("/", "/out/side"), "prefix": "/deep/streams"},
    "no framework": {"wrap": told("/out/side"), "prefix": "/deep/streams"},
    "the server puts it before the path": {"wrap": starlette, "root_path": "/out/side"},
}


@pytest.mark.parametrize("settings", PROXIED.values(), ids=PROXIED)
def test_a_proxy_that_takes_the_beginning_off_the_path_changes_no_names(settings: dict[str, Any]):
    asked: list[str | None] = []

    def authorize(request: access.Request) -> access.Allow:
        asked.append(request.name)
        return access.Allow()

    with serving(**settings, authorize=authorize) as running:
        created = running.put("deep/streams/chat/4%202", b"one")
        assert created.headers["location"] == f"{running.url}/out/side/deep/streams/chat/4%202"
        source = {"stream-forked-from": "/out/side/deep/streams/chat/4%202"}
        assert running.put("deep/streams/fork", b"two", **source).status_code == 201
        assert running.http.get("/deep/streams/fork").content == b"onetwo"
        assert running.http.get("/deep/streams/__ds/x").json()["error"]["code"] == "reserved"
        assert asked == ["chat/4 2", "fork", "chat/4 2", "fork"]


def test_a_location_leads_to_the_stream_however_the_mount_point_was_escaped():
    with serving(wrap=starlette) as running:
        created = running.put("%64eep/streams%2Fchat/7", b"abc")
        assert created.headers["location"] == f"{running.url}/deep/streams/chat/7"
        assert running.http.get("/deep/streams/chat/7").content == b"abc"


def test_a_server_behind_a_proxy_that_strips_a_prefix_names_the_address_outside():
    with serving(root_path="/outside") as running:
        created = running.put("s", b"abc")
        assert created.headers["location"] == f"{running.url}/outside/s"
        assert running.http.get("/s").content == b"abc"


def test_the_rest_of_the_application_around_it_goes_on():
    with serving(wrap=starlette) as running:
        assert running.http.get("/").text == "home"


def test_lifespan_events_are_answered():
    sent = asyncio.run(_lifespan())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def _lifespan() -> list[str]:
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": next(events)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async with aio.open(":memory:") as store:
        await asgi.app(store)({"type": "lifespan"}, receive, send)
    return sent


@contextlib.asynccontextmanager
async def living(app: asgi.App) -> AsyncIterator[httpx.AsyncClient]:
    """One life of an application, from startup to shutdown, and a client that needs no server."""
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    answered: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan"}, told.get, answered.put))
    await told.put({"type": "lifespan.startup"})
    assert (await answered.get())["type"] == "lifespan.startup.complete"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client
    await told.put({"type": "lifespan.shutdown"})
    assert (await answered.get())["type"] == "lifespan.shutdown.complete"
    await task


async def poll_until(app: asgi.App, client: httpx.AsyncClient, event: Callable[[], Any]) -> httpx.Response:
    """The answer to a long-poll at the tail, during which something happens."""
    poll = asyncio.create_task(client.get("/s?offset=now&live=long-poll"))
    while not app.live_responses and not poll.done():  # noqa: ASYNC110 - nobody tells that somebody waits
        await asyncio.sleep(0)
    event()
    return await poll


def test_viewers_wait_for_news_in_every_life_of_an_application():
    async def life(number: int) -> None:
        async with living(app) as client:
            response = await poll_until(app, client, lambda: stream.append(b"%d" % number))
            assert (response.status_code, response.content) == (200, b"%d" % number)

    with durable_log.open(":memory:") as store:
        app, stream = asgi.app(store, long_poll_seconds=60), store.create("s")
        for number in range(3):
            asyncio.run(life(number))


def test_a_signal_before_the_startup_ends_viewers_all_the_same():
    async def life() -> None:
        async with living(app) as client:
            assert (await client.get("/s?offset=now&live=long-poll")).status_code == 204

    with durable_log.open(":memory:") as store:
        app = asgi.app(store, long_poll_seconds=60)
        store.create("s")
        app.begin_shutdown()
        asyncio.run(life())


def test_a_websocket_is_turned_away():
    assert asyncio.run(_websocket()) == ["websocket.close"]


async def _websocket() -> list[str]:
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async with aio.open(":memory:") as store:
        await asgi.app(store)({"type": "websocket"}, receive, send)
    return sent


@pytest.mark.parametrize(
    "settings",
    [
        {"prefix": "v1"},
        {"long_poll_seconds": 0},
        {"sse_seconds": -1},
        {"heartbeat_seconds": float("nan")},
        {"stall_seconds": 0},
        {"gap_seconds": -1},
        {"cache_control": "no-store"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any]):
    with pytest.raises(InvalidOption, match=next(iter(settings)).split("_", maxsplit=1)[0]):
        asgi.app(None, **settings)  # type: ignore[arg-type]
