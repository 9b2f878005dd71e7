"""Webhooks of tests: HTTP servers on this machine that keep what they get and answer what they are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from serving import until

Answer = Callable[[int, BaseHTTPRequestHandler], None]
"""Given the number of the request, from 0 on, and what it can be answered through."""


class Delivery(NamedTuple):
    """One request, byte by byte."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def wake(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.raw)
        return parsed

    def stream(self, path: str) -> dict[str, Any]:
        (found,) = [each for each in self.wake["streams"] if each["path"] == path]
        return found


def answering(*statuses: int, body: object = None) -> Answer:
    """The statuses one after the other, the last of them for ever."""

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        raw = json.dumps({} if body is None else body).encode()
        handler.send_response(statuses[min(number, len(statuses) - 1)])
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    return answer


DONE = answering(200, body={"done": True})


class Receiver:
    """A webhook."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.deliveries: list[Delivery] = []
        self._answer = answer or answering(200)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {key.lower(): value for key, value in self.headers.items()}
                receiver.deliveries.append(Delivery(self.path, headers, raw))
                receiver._answer(len(receiver.deliveries) - 1, self)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the interface
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A server that was killed, or that gave up, has left."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def __enter__(self) -> Receiver:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def delivery(self, number: int = 0) -> Delivery:
        """The request of that number, as soon as it is there."""
        until(lambda: len(self.deliveries) > number, f"delivery number {number}")
        return self.deliveries[number]


class Hanging(Receiver):
    """A webhook that answers 500 to all that it was asked as soon as it is let go on."""

    def __init__(self) -> None:
        self._go_on = threading.Event()
        super().__init__(self._hang)

    def _hang(self, number: int, handler: BaseHTTPRequestHandler) -> None:
        self._go_on.wait(60)
        answering(500)(number, handler)

    def go_on(self) -> None:
        self._go_on.set()

    def __exit__(self, *details: object) -> None:
        self.go_on()
        super().__exit__(*details)
