"""A ``durable-log serve`` that is attacked: what has to be true of it after each attack, and after the last."""

from __future__ import annotations

import os
import random
import re
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from front_ends import Server
from serving import RawClient

ROOT = "/v1/stream"
PATIENCE_SECONDS = 20.0
"""For an answer or the end of a connection; far more than either takes on a busy machine."""

COMMAND = "durable_log.cli serve --port {port} --data {data} --metrics --long-poll-timeout 0.5 --client-timeout 2"
CLIENT_SECONDS = 2
LAST = b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
LONG = os.environ.get("DURABLE_LOG_HOSTILE") == "long"
SEED = int(os.environ.get("DURABLE_LOG_HOSTILE_SEED", "20260131"))


def seeded(what: str) -> random.Random:
    """The same numbers each time; the seed is shown with a failure."""
    print(f"DURABLE_LOG_HOSTILE_SEED={SEED} ({what})")
    return random.Random(f"{SEED} {what}")


class Attacked(Server):
    """The process, its streams and its log."""

    def __init__(self, directory: Path, command: str = COMMAND) -> None:
        super().__init__(command, directory)
        self.http = httpx.Client(base_url=self.url + ROOT, timeout=PATIENCE_SECONDS, verify=False)

    def raw(self, text: bytes = b"") -> RawClient:
        client = RawClient(self.port, b"")
        client.socket.settimeout(PATIENCE_SECONDS)
        client.send(text)
        return client

    def replies(self, text: bytes) -> list[int]:
        """The statuses of everything that is answered until the server ends the connection, as it has to: the last
        request, a sound one, asks for it, and whoever swallows that one as a body waits for more in vain.
        """
        with self.raw() as client:
            with suppress(OSError):  # the server has ended it, which may be the answer
                client.send(text + LAST)
            return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", client.rest())]

    def figures(self) -> dict[str, float]:
        """What the store holds and has taken; the same again if nothing has changed."""
        shown = self.metrics()
        return {name: shown[f"durable_log_{name}"] for name in ("streams", "appends_total", "appended_bytes_total")}

    def viewers(self) -> float:
        """Live responses at the moment."""
        return sum(value for name, value in self.metrics().items() if name.startswith("durable_log_viewers{"))

    def metrics(self) -> dict[str, float]:
        text = httpx.get(self.url + "/metrics", timeout=PATIENCE_SECONDS).text
        return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)}

    def put(self, name: str, body: bytes = b"", content_type: str = "text/plain") -> httpx.Response:
        return self.http.put(f"/{name}", content=body, headers={"content-type": content_type})

    def read(self, name: str) -> bytes:
        response = self.http.get(f"/{name}")
        assert response.status_code == 200, response.text
        return response.content

    def serves(self) -> None:
        """It answers another client, and says that it is well."""
        answer = httpx.get(self.url + "/healthz", timeout=PATIENCE_SECONDS)
        assert (answer.status_code, answer.text) == (200, '{"status":"ok"}\n')

    def log(self) -> str:
        return (self._directory / "server.log").read_text()

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def sockets(self) -> int:
        """Its connections and a few of its own."""
        found = 0
        for descriptor in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found += str(descriptor.readlink()).startswith("socket:")
        return found

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def attacked(directory: Path, command: str = COMMAND) -> Iterator[Attacked]:
    server = Attacked(directory, command)
    server.start()
    try:
        yield server
        server.serves()
        assert "Traceback" not in server.log(), server.log()
        assert "ERROR" not in server.log(), server.log()
    finally:
        server.http.close()
        server.stop()


class Neighbour:
    """A client that asks for something small all the while, and knows how long it has waited at most."""

    def __init__(self, server: Attacked) -> None:
        self._server, self._over = server, threading.Event()
        self.asked, self.longest_seconds = 0, 0.0
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        with httpx.Client(timeout=PATIENCE_SECONDS, verify=False) as http:
            while not self._over.is_set():
                began = time.monotonic()
                assert http.get(self._server.url + "/healthz").status_code == 200
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
                self.asked += 1

    def __enter__(self) -> Neighbour:  # noqa: PYI034 - Self came with Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def may_open(descriptors: int) -> None:
    """Let this process open so many at least, or fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= descriptors, f"{descriptors} descriptors, allowed are {hard}"
    if soft < descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
