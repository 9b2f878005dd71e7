"""A WSGI application, called as a server with threads calls it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults

from serving import Clock

import durable_log
from durable_log import wsgi
from durable_log.model import Options

LIMIT = 2**16


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    parts: Iterator[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class Called:
    """An application on a store in memory."""

    def __init__(self, clock: Clock | None = None, **settings: Any) -> None:
        self.clock = clock or Clock()
        self.store = durable_log.open(":memory:", options=Options(record_bytes_max=LIMIT), clock=self.clock)
        self.app = wsgi.app(self.store, **settings)

    def __call__(
        self, method: str, path: str, body: bytes = b"", *, query: str = "", mount: str = "", **more: str
    ) -> Answer:
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "SCRIPT_NAME": mount, "PATH_INFO": path}
        environ |= {"QUERY_STRING": query, "wsgi.input": io.BytesIO(body), "HTTP_HOST": "logs.example:81", **more}
        if body and "CONTENT_LENGTH" not in more:
            environ["CONTENT_LENGTH"] = str(len(body))
        environ.setdefault("CONTENT_TYPE", "text/plain")
        setup_testing_defaults(environ)
        told: list[Any] = []
        parts = self.app(environ, lambda *status_and_headers: told.extend(status_and_headers))
        return Answer(int(told[0].split(" ")[0]), {name.lower(): value for name, value in told[1]}, iter(parts))
