"""An application with subscriptions on a thread of its own, and its clients; a server process that can be killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from serving import PATIENCE_SECONDS, Clock, Served, until

from durable_log import asgi
from durable_log._subscriptions.machine import State
from durable_log._subscriptions.manager import Manager
from durable_log._subscriptions.records import Stored, fold
from durable_log.aio import AsyncStore
from durable_log.store import Store

JSON = {"content-type": "application/json"}


class Api:
    """A client of the subscription API at a base URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(timeout=PATIENCE_SECONDS, verify=False)

    def close(self) -> None:
        self.http.close()

    def path(self, name: str, *more: str) -> str:
        return "/".join((self.url, "__ds/subscriptions", name, *more))

    def subscribe(self, name: str, **config: Any) -> httpx.Response:
        return self.http.put(self.path(name), json=config)

    def pull(self, name: str, *, pattern: str = "events/*", **config: Any) -> httpx.Response:
        return self.subscribe(name, type="pull-wake", pattern=pattern, wake_stream=f"wake/{name}", **config)

    def hook(self, name: str, url: str, *, pattern: str = "events/*", **config: Any) -> httpx.Response:
        return self.subscribe(name, type="webhook", pattern=pattern, webhook={"url": url}, **config)

    def get(self, name: str) -> dict[str, Any]:
        response = self.http.get(self.path(name))
        assert response.status_code == 200, response.text
        parsed: dict[str, Any] = response.json()
        return parsed

    def cursors(self, name: str) -> dict[str, int]:
        return {each["path"]: int(each["acked_offset"][17:]) for each in self.get(name)["streams"]}

    def action(self, name: str, action: str, body: object, token: str | None = None) -> httpx.Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return self.http.post(self.path(name, action), json=body, headers=headers)

    def claim(self, name: str, worker: str = "w") -> httpx.Response:
        return self.action(name, "claim", {"worker": worker})

    def claimed(self, name: str, worker: str = "w") -> dict[str, Any]:
        response = self.claim(name, worker)
        assert response.status_code == 200, response.text
        parsed: dict[str, Any] = response.json()
        return parsed

    def put(self, path: str, *values: object) -> httpx.Response:
        body = json.dumps(list(values)).encode() if values else b""
        response = self.http.put(f"{self.url}/{path}", content=body, headers=JSON)
        assert response.status_code in (200, 201), response.text
        return response

    def post(self, path: str, value: object = 1) -> httpx.Response:
        response = self.http.post(f"{self.url}/{path}", json=value)
        assert response.status_code == 204, response.text
        return response

    def read(self, path: str) -> Any:
        return self.http.get(f"{self.url}/{path}").json()

    def delete(self, path: str) -> None:
        assert self.http.delete(f"{self.url}/{path}").status_code == 204


def ack_of(claim: dict[str, Any], *, done: bool = True, acks: dict[str, str] | None = None) -> dict[str, Any]:
    """The body that acknowledges everything that a claim or a wake tells of, or what is given."""
    if acks is None:
        acks = {each["path"]: each["tail_offset"] for each in claim["streams"]}
    told = [{"stream": path, "offset": offset} for path, offset in acks.items()]
    return {"wake_id": claim["wake_id"], "generation": claim["generation"], "acks": told, "done": done}


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return response.status_code, response.json()["error"]["code"]


class World(Api):
    """An application in this process, on a store in memory, with a clock that stands still."""

    def __init__(self, served: Served, store: AsyncStore, clock: Clock) -> None:
        super().__init__(served.url)
        self.served, self.clock, self.store = served, clock, Store(store.engine)

    @property
    def manager(self) -> Manager:
        task = self.served.app._subscriptions._manager
        found: Manager = task.result()
        return found

    def state(self, name: str) -> State:
        """What the subscription's next decision will look at."""
        return self.manager.get(name).state

    def stored(self, name: str) -> Stored:
        """What a server that starts now would go on with."""
        found = fold(self.store.stream(f"__ds/subscriptions/{name}").read().items)
        assert found is not None
        return found

    def later(self, seconds: float) -> None:
        """Move the clock, and have it noticed."""
        self.at(int(1000 * (self.clock.now + seconds)))

    def at(self, moment_ms: int) -> None:
        """Set the clock to a moment, and have it noticed."""
        self.clock.now = (moment_ms + 0.5) / 1000
        manager = self.manager
        for active in tuple(manager._by_id.values()):
            manager.loop.call_soon_threadsafe(active.stir)


@contextmanager
def world(*, app: dict[str, Any] | None = None, clock: Clock | None = None, **options: Any) -> Iterator[World]:
    clock, stores = clock or Clock(), list[AsyncStore]()
    subscriptions = asgi.Subscriptions(**{"webhook_development": True, **options})
    served = Served(
        clock=clock, lifespan="on", subscriptions=subscriptions, store=lambda store: stores.append(store) or store,
        **(app or {}),
    )  # fmt: skip
    running = World(served, stores[0], clock)
    try:
        yield running
    finally:
        running.close()
        served.stop()


class Process(Api):
    """``durable-log serve`` on a directory."""

    def __init__(self, data: Path, *more: str) -> None:
        command = [sys.executable, "-m", "durable_log.cli", "serve", "--port", "0", "--data", str(data), *more]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        deadline = threading.Timer(2 * PATIENCE_SECONDS, self._process.kill)
        deadline.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        deadline.cancel()
        found = re.search(r"http://\S+", line)
        assert found, (line, self._process.communicate())
        super().__init__(found[0].rstrip("/"))

    def kill(self) -> str:
        """As nobody expects it; what it wrote to stderr."""
        return self._end(signal.SIGKILL)

    def stop(self) -> str:
        """As an operator does it."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> str:
        self.close()
        self._process.send_signal(number)
        _, errors = self._process.communicate(timeout=PATIENCE_SECONDS)
        return errors

    def end_anyway(self) -> None:
        """For tests that have failed: nothing of it stays."""
        if self._process.poll() is None:
            self.kill()


Serve = Callable[..., Process]
"""Starts a server on a directory of the test's, with more options if need be."""


def soon(condition: Callable[[], Any], what: str) -> Any:
    """The first answer that counts as one."""
    found: list[Any] = []

    def ask() -> bool:
        found[:] = [condition()]
        return bool(found[0])

    until(ask, what)
    return found[0]


def milliseconds() -> int:
    return int(time.time() * 1000)
