"""The web applications among the examples, as their first lines say to run them: each answers once, to any viewer."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from documents import ROOT, text_of

sys.path += [str(ROOT / "tests" / "conformance"), str(ROOT / "tests" / "http")]

from front_ends import Server
from serving import EventClient

EXAMPLES = ["aiohttp", "django", "fastapi", "flask", "wsgi"]
PORT = "8000"
ANSWER = "You asked: Why streams? Because an answer should outlive its connection. "


def test_every_web_application_is_tested():
    found = sorted(path.name.removesuffix("_app.py") for path in (ROOT / "examples").glob("*_app.py"))
    assert found == sorted([*EXAMPLES, "starlette"])


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> str:
    return text_of(f"examples/{request.param}_app.py")


@pytest.fixture
def server(example: str, tmp_path: Path):
    command = re.search(r"^(?:python -m )?((?:uvicorn|gunicorn|aiohttp).*)$", example, re.MULTILINE)[1]
    made = Server(command.replace(PORT, "{port}"), tmp_path, ROOT / "examples")
    made.start()
    yield made
    made.stop()


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
    assert httpx.get(f"{server.url}/v1/stream/42?offset=-1").text == ANSWER
    seven = f"{0:016}_{7:016}"
    assert httpx.get(f"{server.url}/v1/stream/42?offset={seven}").text == ANSWER[7:]


def test_streams_are_created_appended_to_read_and_followed(server: Server):
    text = {"Content-Type": "text/plain"}
    url = f"{server.url}/v1/stream/a%2Fb"
    created = httpx.put(url, headers=text)
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
