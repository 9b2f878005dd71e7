"""The viewers of the demonstration: threads with HTTP connections of their own.

Law of this room: a viewer remembers a text and an offset, and moves both together, so that after any interruption it
goes on from the offset. Its thread alone writes its fields; the main thread reads them to show them.
"""

from __future__ import annotations

import threading
from typing import Final, Literal

from durable_log._cli.remote import AWAY, START, Page, Refused, RemoteStream
from durable_log._cli.verdict import Outcome
from durable_log.protocol.tokens import parse_offset

RETRY_SECONDS: Final = 0.05
UNAVAILABLE: Final = 503

Way = Literal["sse", "long-poll"]


class Viewer(threading.Thread):
    """Reads the stream at ``url`` from ``offset`` to its end, whatever happens to the connection.

    ``drop_seconds``: how often it cuts its own connection, 0 for never.
    """

    def __init__(self, name: str, url: str, way: Way, offset: str = START, drop_seconds: float = 0) -> None:
        super().__init__(name=name, daemon=True)
        self._url, self._way, self._offset, self._drop_seconds = url, way, offset, drop_seconds
        self._stopping = threading.Event()
        self._stream = RemoteStream(url)
        self.text = b""
        self.joined: int | None = 0 if offset == START else None
        self.connected = self.finished = False
        self.resumed = 0
        self.trouble: str | None = None

    def outcome(self) -> Outcome:
        """What it holds by now."""
        return Outcome(self.name, self.joined, self.text, self.resumed, self.finished)

    def stop(self) -> None:
        """Have it give up. Any thread."""
        self._stopping.set()
        self._stream.hang_up()

    def run(self) -> None:
        """Watch to the end."""
        while not self.finished and not self._stopping.is_set():
            try:
                self._watch()
            except Refused as refused:
                if refused.status != UNAVAILABLE:
                    self.trouble = str(refused)
                    return
            except AWAY:
                pass
            self.connected = False
            self._stopping.wait(RETRY_SECONDS)

    def _watch(self) -> None:
        """One connection, to its end or the stream's."""
        stream = self._stream = RemoteStream(self._url)
        timer = threading.Timer(self._drop_seconds, stream.hang_up)
        if self._drop_seconds:
            timer.start()
        try:
            if self.joined is None:
                self._join(stream.read(self._offset))
            if self._way == "sse":
                for page in stream.events(self._offset):
                    self._take(page)
            else:
                while not self.finished and not self._stopping.is_set():
                    self._take(stream.read(self._offset, wait=True))
        finally:
            timer.cancel()
            stream.close()

    def _join(self, page: Page) -> None:
        self.joined = parse_offset(page.next_offset)
        self._take(page)

    def _take(self, page: Page) -> None:
        if not self.connected:
            self.connected = True
            self.resumed += bool(self.text)
        self.text += page.data
        self._offset = page.next_offset
        self.finished = page.closed
