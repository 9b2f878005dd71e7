"""Both faces behind one: the asyncio face on a loop of its own thread, called as if it were the sync one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from twins import PATIENCE_SECONDS

from durable_log import aio
from durable_log.store import Store, Stream


class Loop:
    """A running event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_SECONDS)

    def close(self) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self.loop.close()


class LoopStream:
    """An ``AsyncStream`` with the methods of ``Stream``."""

    def __init__(self, loop: Loop, stream: aio.AsyncStream) -> None:
        self._loop, self._stream = loop, stream
        self.name = stream.name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *arguments, **named: self._loop.run(getattr(self._stream, method)(*arguments, **named))

    def follow(self, offset: int = 0, **named: Any) -> Iterator[Any]:
        chunks = self._stream.follow(offset, **named)

        async def following() -> Any:
            return await anext(chunks, None)

        try:
            while (chunk := self._loop.run(following())) is not None:
                yield chunk
        finally:
            self._loop.run(chunks.aclose())


class LoopStore:
    """An ``AsyncStore`` with the methods of ``Store``."""

    def __init__(self, loop: Loop, store: Store) -> None:
        self._loop, self._store, self._face = loop, store, aio.AsyncStore.of(store)
        self.engine = store.engine

    def create(self, name: str, **named: Any) -> LoopStream:
        return LoopStream(self._loop, self._loop.run(self._face.create(name, **named)))

    def stream(self, name: str) -> LoopStream:
        return LoopStream(self._loop, self._face.stream(name))

    def delete(self, name: str) -> None:
        self._loop.run(self._face.delete(name))

    def names(self, prefix: str = "") -> list[str]:
        return self._loop.run(self._face.names(prefix))

    def stats(self) -> dict[str, Any]:
        return self._face.stats()

    def compact(self) -> None:
        self._loop.run(self._face.compact())

    def backup(self, directory: Any, **named: Any) -> Any:
        return self._loop.run(self._face.backup(directory, **named))

    def close(self) -> None:
        self._loop.run(self._face.close())


AnyStore = Store | LoopStore
AnyStream = Stream | LoopStream
