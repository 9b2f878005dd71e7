"""Real processes of the command line, each ended by its own number."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import signal
import sys
from urllib.parse import urlsplit

SECONDS_MAX = 30
SETTINGS = ("DURABLE_LOG_DATA", "DURABLE_LOG_TOKEN", "OPENAI_API_KEY")
"""What of the environment would change what commands do."""
COMMAND = [sys.executable, "-m", "durable_log.cli"]


def environment(**more):
    kept = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    return kept | {"PYTHONWARNINGS": "error", "COLUMNS": "100"} | more


class Served:
    """A server process."""

    def __init__(self, process, line):
        self.process, self.line = process, line
        self.url = line.split()[-1]
        self.port = urlsplit(self.url).port

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)

    def request(self, method, path, body=None, headers=()):
        connection = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def put(self, name, body=b"", content_type="text/plain"):
        return self.request("PUT", f"/v1/stream/{name}", body, {"Content-Type": content_type})[0]

    def post(self, name, body, content_type="text/plain", **headers):
        return self.request("POST", f"/v1/stream/{name}", body, {"Content-Type": content_type} | headers)[0]

    def get(self, name, query=""):
        return self.request("GET", f"/v1/stream/{name}{query}")[2]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(SECONDS_MAX)


def first_line(process):
    readable, _, _ = select.select([process.stdout], [], [], SECONDS_MAX)
    assert readable, "the process said nothing in time"
    return process.stdout.readline().decode()
