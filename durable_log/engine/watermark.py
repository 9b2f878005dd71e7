"""Durable tails, and who waits on them.

Law of this room: only the holder of the commit lock moves a watermark, and only after the sync that covers it has
returned. Anyone may watch from any thread: a watcher registers first and looks again afterwards, so that no movement
falls between. Everybody who waits at one port is told in one delivery. No I/O.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from durable_log.engine.state import StreamState

if TYPE_CHECKING:
    from typing_extensions import Self


class Port(Protocol):
    """Where results are delivered. One call a port and commit, whatever the number of results, on a foreign thread
    that holds the commit lock: it must not block and must not raise. After an interrupt, the same may come again.
    """

    def deliver(self, results: list[tuple[Any, Any]]) -> None:
        """Pairs of the token that was handed in and its result; an exception as result means failure."""


class Result(Protocol):
    """What became of something, and who is to be told."""

    port: Port
    token: Any
    result: Any


class Listener(Protocol):
    """Who is told of all streams. One call a commit, on a foreign thread that holds the commit lock: it must not block
    and must not raise, and what is done about the streams is done elsewhere.
    """

    def changed(
        self, moved: Collection[StreamState], created: Collection[StreamState], removed: Collection[StreamState]
    ) -> None:
        """What a commit has made durable. None of the collections changes any more."""


class Gates:
    """The port of synchronous callers: a token is a lock, and its release the delivery."""

    def deliver(self, results: list[tuple[Any, Any]]) -> None:
        """Let them go on."""
        for gate, _result in results:
            if gate.locked():
                gate.release()


class Crowd:
    """A port for one thread that waits for ``count`` results together, whatever they are."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._done = threading.Lock()
        self._done.acquire()

    def deliver(self, results: list[tuple[Any, Any]]) -> None:
        """Some of them have come."""
        self._left -= len(results)
        if self._left <= 0 and self._done.locked():
            self._done.release()

    def wait(self) -> None:
        """Until all have come."""
        self._done.acquire()


class Deliveries:
    """Results of one commit, by port. ``with`` them, they are sent at the end, whatever has come between."""

    def __init__(self) -> None:
        self._by_port: dict[Port, list[tuple[Any, Any]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.send()

    def add(self, port: Port, token: Any, result: Any) -> None:
        """One more result for that port."""
        results = self._by_port.get(port)
        if results is None:
            self._by_port[port] = [(token, result)]
        else:
            results.append((token, result))

    def add_all(self, results: Iterable[Result]) -> None:
        """Many of them."""
        port, pairs = None, []
        for each in results:
            if each.port is not port:
                port = each.port
                pairs = self._by_port.setdefault(port, [])
            pairs.append((each.token, each.result))

    def send(self) -> None:
        """One delivery a port; to all of them again after an interrupt, as nobody else knows who was told."""
        try:
            self._send()
        except BaseException:
            self._send()
            raise

    def _send(self) -> None:
        for port, results in self._by_port.items():
            port.deliver(results)


class Watermarks:
    """The streams that somebody waits on."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._watched: set[StreamState] = set()
        self._closed: BaseException | None = None
        self.listeners: tuple[Listener, ...] = ()
        """Who is told of every commit, watched streams or not."""

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, state: StreamState, offset: int, port: Port, token: Any) -> bool:
        """Have ``token`` delivered (result None) once the stream has durable bytes beyond ``offset``, is closed or
        is gone. False if that is so already: then nothing will be delivered.
        """
        with self._mutex:
            if self._closed is not None:
                raise self._closed
            if state.watchers is None:
                state.watchers = {}
                self._watched.add(state)
            state.watchers[port, token] = None
            if state.durable <= offset and not state.durable_closed and not state.gone:
                return True
            self._forget(state, port, token)
            return False

    def cancel(self, state: StreamState, port: Port, token: Any) -> None:
        """Stop watching; harmless if it was told already."""
        with self._mutex:
            self._forget(state, port, token)

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` of every commit that is published from here on."""
        with self._mutex:
            self.listeners = (*self.listeners, listener)

    def ignore(self, listener: Listener) -> None:
        """Tell ``listener`` no more; harmless if it was not told anyway."""
        with self._mutex:
            self.listeners = tuple(each for each in self.listeners if each is not listener)

    def tell(self, states: Iterable[StreamState], deliveries: Deliveries) -> None:
        """These streams have moved: all who watch them are told."""
        for state in states:
            if state.watchers is not None:
                self._tell(state, None, deliveries)

    def close(self, reason: BaseException, deliveries: Deliveries) -> None:
        """Nothing will move any more: everybody is told the reason."""
        with self._mutex:
            self._closed = reason
            watched = list(self._watched)
        for state in watched:
            self._tell(state, reason, deliveries)

    def _tell(self, state: StreamState, result: BaseException | None, deliveries: Deliveries) -> None:
        with self._mutex:
            for port, token in state.watchers or ():
                deliveries.add(port, token, result)
            # Last: who is forgotten by an interrupt waits for ever.
            state.watchers = None
            self._watched.discard(state)

    def _forget(self, state: StreamState, port: Port, token: Any) -> None:
        if state.watchers is None or (port, token) not in state.watchers:
            return
        del state.watchers[port, token]
        if not state.watchers:
            state.watchers = None
            self._watched.discard(state)
