"""The web applications among the examples, as their first lines say to run them: each answers once, to any viewer, and
ends what it began, whatever happens to the model and to the server.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import json
import re
import shlex
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from documents import ROOT, blocks, text_of

import durable_log

sys.path += [str(ROOT / "tests" / "conformance"), str(ROOT / "tests" / "http")]

from front_ends import Server
from serving import PATIENCE_SECONDS, EventClient

EXAMPLES = ["aiohttp", "django", "fastapi", "flask", "starlette", "wsgi"]
GUARDED = ["django", "fastapi", "flask", "starlette", "wsgi"]
PORT = "8000"
PATH = "/v1/stream/chat/42"
ANSWER = "You asked: Why streams? Because an answer should outlive its connection. "
LONG_PROMPT = " ".join(str(number) for number in range(1000))
"""Takes ten seconds to answer, unless something comes between."""
INTERRUPTED = "\n[the answer was interrupted]"
QUICKLY_SECONDS = 5
CROWD = 16


def test_every_web_application_is_tested():
    found = sorted(path.name.removesuffix("_app.py") for path in (ROOT / "examples").glob("*_app.py"))
    assert found == EXAMPLES


@pytest.fixture(params=EXAMPLES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def example(name: str) -> str:
    return text_of(f"examples/{name}_app.py")


def command_of(example: str) -> str:
    command = re.search(r"^(?:python -m )?((?:uvicorn|gunicorn|aiohttp).*)$", example, re.MULTILINE)[1]
    command = command.replace("--app-dir examples", f"--app-dir {ROOT / 'examples'}")
    return command.replace(PORT, "{port}") if PORT in command else command + " --port {port}"


@pytest.fixture
def server(example: str, tmp_path: Path):
    made = Server(command_of(example), tmp_path, ROOT / "examples")
    made.start()
    yield made
    made.stop()


def watched(server: Server) -> str:
    """What a viewer sees of the answer until it ends."""
    text = ""
    with EventClient(server.port, PATH, {"offset": "-1", "live": "sse"}) as viewer:
        while event := viewer.event():
            if event.name == "data":
                text += event.data
            elif event.control.get("streamClosed"):
                return text
    raise AssertionError(f"the viewer was left behind after {text!r}")


def begun(server: Server) -> None:
    """A long answer is under way."""
    assert httpx.post(f"{server.url}/chats/42", content=LONG_PROMPT).status_code == 201
    with EventClient(server.port, PATH, {"offset": "-1", "live": "sse"}) as viewer:
        text = ""
        while "3 " not in text:
            event = viewer.event()
            text += event.data * (event.name == "data")


def is_interrupted(text: str) -> bool:
    """Whether it is the beginning of the long answer, and says that it is no more."""
    half = text.removesuffix(INTERRUPTED)
    return half != text and half.startswith("You asked: 0 1 2 3 ") and f"You asked: {LONG_PROMPT} ".startswith(half)


def test_an_answer_is_started_once_watched_to_its_end_and_read_again(example: str, server: Server):
    for line in re.findall(r"^    (curl .*)$", example, re.MULTILINE):
        shown = subprocess.run(
            [*shlex.split(line.replace(PORT, str(server.port))), "--silent", "--fail"],
            capture_output=True,
            timeout=20,
            check=True,
        ).stdout.decode()
    events = [block.split("\n") for block in shown.strip().split("\n\n")]
    words = [line.removeprefix("data:") for kind, line in events if kind == "event: data"]
    controls = [json.loads(line.removeprefix("data:")) for kind, line in events if kind == "event: control"]
    assert "".join(words) == ANSWER
    assert controls[-1]["streamClosed"] is True
    assert httpx.post(f"{server.url}/chats/42", content="again").status_code == 200
    assert httpx.get(f"{server.url}{PATH}?offset=-1").text == ANSWER
    seven = f"{0:016}_{7:016}"
    assert httpx.get(f"{server.url}{PATH}?offset={seven}").text == ANSWER[7:]


def test_of_many_who_ask_at_once_one_starts_the_answer(server: Server):
    together = threading.Barrier(CROWD)

    def ask(_: int) -> int:
        with httpx.Client() as client:
            client.get(f"{server.url}{PATH}")  # connected, so that what follows is at once
            together.wait(PATIENCE_SECONDS)
            return client.post(f"{server.url}/chats/42", content="Why streams?").status_code

    with ThreadPoolExecutor(CROWD) as crowd:
        statuses = sorted(crowd.map(ask, range(CROWD)))
    assert statuses == [200] * (CROWD - 1) + [201]
    assert watched(server) == ANSWER


@pytest.mark.parametrize("name", ["fastapi", "starlette"])
def test_an_application_may_have_several_lives_in_one_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def life(number: int) -> None:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        async with app.router.lifespan_context(app), client:
            url = (await client.post(f"/chats/{number}", content="Why streams?")).json()["url"]
            assert (await client.get(f"{url}?offset=-1&live=sse")).is_success
            assert (await client.get(f"{url}?offset=-1")).text == ANSWER

    monkeypatch.setenv("DURABLE_LOG_DATA", str(tmp_path))
    monkeypatch.syspath_prepend(ROOT / "examples")
    app = importlib.import_module(f"{name}_app").app
    for number in range(2):
        asyncio.run(life(number))


def test_viewers_of_an_answer_whose_server_was_killed_see_that_it_was_interrupted(server: Server, tmp_path: Path):
    begun(server)
    server.kill()
    with (tmp_path / "data" / "LOCK").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # gunicorn's worker is gone, too
    server.start()
    assert is_interrupted(watched(server))
    assert httpx.post(f"{server.url}/chats/42", content="again").status_code == 200


def test_viewers_of_an_answer_whose_model_fails_see_that_it_was_interrupted(name: str, example: str, tmp_path: Path):
    is_async = "async def generate" in example
    (tmp_path / "failing.py").write_text(f"""
import sys
sys.path.append({str(ROOT / "examples")!r})
import {name}_app
from {name}_app import *

{"async " * is_async}def generate(prompt):
    yield "half an "
    yield ""
    yield "answer"
    raise RuntimeError("the model is tired")

{name}_app.generate = generate
""")
    server = Server(command_of(example).replace(f"{name}_app:", "failing:"), tmp_path, tmp_path)
    server.start()
    try:
        assert httpx.post(f"{server.url}/chats/42", content="Why?").status_code == 201
        assert watched(server) == "half an answer" + INTERRUPTED
    finally:
        server.stop()
    assert "the model is tired" in (tmp_path / "server.log").read_text()


def ends_in_order(server: Server, path: str) -> None:
    """A viewer gets the end of its response when the server is told to end, and the server ends quickly."""
    with httpx.stream("GET", f"{server.url}{path}?offset=-1&live=sse", timeout=PATIENCE_SECONDS) as viewer:
        parts = viewer.iter_raw()
        assert next(parts)
        assert server.stop() < QUICKLY_SECONDS
        rest = b"".join(parts)  # raises unless the last chunk is there
    assert not rest or rest.endswith(b"\n\n")


def test_a_server_that_is_told_to_end_ends_its_viewers_and_its_answers_in_order(
    name: str, example: str, tmp_path: Path
):
    command = re.sub(r"(-timeout|-shutdown) \d", r"\1 9", command_of(example))  # too late for what follows
    server = Server(command, tmp_path, ROOT / "examples")
    server.start()
    begun(server)
    ends_in_order(server, PATH)
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert "Cancel" not in log
    assert "SIGKILL" not in log
    with durable_log.open(tmp_path / "data") as store:
        assert store.report.records == 0  # as it was closed in good order
        answer = store.stream("chat/42")
        assert answer.info().closed
        assert is_interrupted(answer.read().text)


def test_the_application_of_the_readme_ends_its_viewers_in_order(tmp_path: Path):
    [block] = [block for block in blocks("python") if block.page == "README.md" and "Starlette(" in block.text]
    (tmp_path / "mounted.py").write_text(block.text)
    server = Server("uvicorn mounted:app --port {port} --timeout-graceful-shutdown 9", tmp_path, tmp_path)
    server.start()
    httpx.put(f"{server.url}/v1/stream/a", content="text", headers={"Content-Type": "text/plain"}).raise_for_status()
    ends_in_order(server, "/v1/stream/a")
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert "Cancel" not in log


def test_streams_are_created_appended_to_read_and_followed_unless_they_are_guarded(name: str, server: Server):
    text = {"Content-Type": "text/plain"}
    url = f"{server.url}/v1/stream/a%2Fb"
    created = httpx.put(url, headers=text)
    if name in GUARDED:
        assert created.status_code == 403
        return
    assert (created.status_code, created.headers["location"].replace("%2F", "/")) == (201, url.replace("%2F", "/"))
    with EventClient(server.port, "/v1/stream/a/b", {"offset": "-1", "live": "sse"}) as viewer:
        viewer.control()
        for word in ("one ", "two"):
            assert httpx.post(url, content=word, headers=text).status_code == 204
            assert viewer.pair()[0] == word
        assert httpx.post(url, headers={"Stream-Closed": "true"}).status_code == 204
        assert viewer.control()["streamClosed"] is True
        assert viewer.event() is None
    assert httpx.get(url).text == "one two"
    assert httpx.get(f"{url}?offset=wrong").status_code == 400
    assert httpx.head(url).headers["stream-closed"] == "true"
    assert httpx.get(f"{url}?offset=now&live=long-poll").status_code == 204
    assert httpx.delete(url).status_code == 204
    assert httpx.get(url).status_code == 404
