"""The clients of one store, which outlive its servers: writers, viewers, and those who create, close, fork and delete.

All of them ask again until they are answered, but for plain appends, which nobody can send again safely. What they are
told goes into the ledger; what must not be said at all ends the torture.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime, timezone
from typing import Any

from torture_client import ROOT, Connection, Event, Gone, Response, token
from torture_ledger import CONTENT_TYPES, Ledger, Stream, Violation, Writer

SIZES = (0, 20, 60, 200, 700, 700, 2000, 4000, 15_000, 30_000)
LEADERS, POLLERS, LISTENERS, READERS = 4, 2, 2, 1
KEPT = 40
"""So many streams that nobody writes to any more are kept."""
LIVE_SECONDS_MAX = 1.5
LEAVING_SECONDS_MAX = 30.0
PRODUCER_EPOCHS = 2


def page_of(kind: str, response: Response) -> bytes:
    """What a response holds, as it is stored."""
    if kind != "json":
        return response.body
    return response.body[1:-1] + b"," if response.body != b"[]" else b""


def event_data(kind: str, event: Event) -> bytes:
    if kind == "binary":
        return base64.b64decode(event.data)
    return event.data[1:-1].encode() + b"," if kind == "json" else event.data.encode()


class Crowd:
    """Everybody at work on one store. ``failure`` is the first thing that must not be."""

    def __init__(self, port: int, ledger: Ledger, seed: str) -> None:
        self.ledger, self.counts = ledger, Counter[str]()
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self.stopping = self._leaving = False
        self._port, self._seed, self._names = port, seed, iter(range(10**9))
        self._finished: list[Stream] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        work = [self._lead] * LEADERS + [self._poll] * POLLERS + [self._listen] * LISTENERS + [self._look] * READERS
        for number, act in enumerate([*work, self._come_and_go, self._expire, self._outlive]):
            self._tasks.append(asyncio.ensure_future(self._guarded(act, f"{self._seed}/{number}")))

    async def stop(self) -> None:
        self._leaving = True  # before Python 3.12, wait_for may forget that it was cancelled
        for task in self._tasks:
            task.cancel()
        _, staying = await asyncio.wait(self._tasks, timeout=LEAVING_SECONDS_MAX)
        assert not staying, staying

    async def _guarded(self, act: Callable[[random.Random, Connection], Awaitable[None]], seed: str) -> None:
        chance, connection = random.Random(seed), Connection(self._port)
        try:
            while not self._leaving:
                await act(chance, connection)
        except Exception as error:  # noqa: BLE001 - it is what the torture looks for
            self.failure = self.failure or error
            self.failed.set()
        finally:
            connection.close()

    # --- asking ---------------------------------------------------------------------------------------------------

    async def _once(self, connection: Connection, method: str, stream: Stream, *more: Any, **named: Any) -> Response:
        """One attempt. Raises :class:`Gone`."""
        response = await connection.ask(method, stream.name, *more, **named)
        if response.status == 503 and self.stopping:
            raise Gone
        if response.status >= 500:
            raise Violation(f"{method} {stream.name}: {response.status} {response.body!r}")
        return response

    async def _ask(
        self, connection: Connection, method: str, stream: Stream, *more: Any, **named: Any
    ) -> tuple[Response, bool]:
        """As many attempts as it takes, and whether there was more than one."""
        again = False
        while True:
            try:
                return await self._once(connection, method, stream, *more, **named), again
            except Gone:
                again = True
                self.counts["retries"] += 1

    def _unexpected(self, what: str, stream: Stream, response: Response) -> None:
        raise Violation(f"{what} {stream.name}: {response.status} {response.headers} {response.body[:200]!r}")

    # --- those who lead streams -----------------------------------------------------------------------------------

    async def _lead(self, chance: random.Random, connection: Connection) -> None:
        """A stream from its creation to its close, or until it is left open."""
        name = f"s{next(self._names)}"
        sources = [stream for stream in self.ledger.living() if stream.expires_at is None]
        if sources and chance.random() < 0.4:
            stream = self._fork(name, chance.choice(sources), chance)
        else:
            stream = self.ledger.open(name, chance.choice(list(CONTENT_TYPES)))
        headers = {"stream-ttl": "3600"} if chance.random() < 0.25 else {}
        if not await self._create(stream, chance, connection, headers):
            return
        count = int(10 ** chance.uniform(0.3, 1.8))
        works = [self._produce, self._write, self._write_in_order, self._produce_side_by_side]
        await asyncio.gather(
            *(self._write_by(work, stream, f"w{number}", count, chance)
              for number, work in enumerate(chance.sample(works, chance.randint(1, 3))))
        )  # fmt: skip
        if chance.random() < 0.6:
            await self._close(stream, chance, connection)
        self._finished.append(stream)
        while len(self._finished) > KEPT:
            await self._delete(self._finished.pop(chance.randrange(len(self._finished))), connection)

    def _fork(self, name: str, source: Stream, chance: random.Random) -> Stream:
        base = max(end for end in [*chance.choices(source.ends, k=3), source.base] if end <= len(source.history))
        if source.kind != "json" and chance.random() < 0.5:
            base = chance.randint(0, len(source.history))
        return self.ledger.open(name, source.kind, source, base)

    async def _create(
        self, stream: Stream, chance: random.Random, connection: Connection, headers: dict[str, str]
    ) -> bool:
        """Whether it is there; a fork whose source was deleted meanwhile is not."""
        headers = {**headers, "content-type": CONTENT_TYPES[stream.kind]}
        if stream.source is not None:
            headers |= {"stream-forked-from": ROOT + stream.source.name, "stream-fork-offset": token(stream.base)}
        first = stream.writer("first", exact=True) if chance.random() < 0.4 else None
        body = first.ask(0, chance.choice(SIZES)) if first else b""
        response, again = await self._ask(connection, "PUT", stream, headers, body)
        if response.status in (404, 409, 410) and stream.source is not None and stream.source.deleting:
            stream.deleting = stream.deleted = True
            return False
        if response.status != 201 and not (again and response.status == 200):
            self._unexpected("PUT", stream, response)
        stream.created = True
        stream.know_length(response.next_offset)
        if first:
            first.acknowledge(0, response.next_offset if response.status == 201 else None)
        self.counts["created"] += 1
        self.counts["forked"] += stream.source is not None
        return True

    async def _close(self, stream: Stream, chance: random.Random, connection: Connection) -> None:
        """By a last append or without one; then nothing can be appended any more."""
        stream.closing = True
        headers, body, writer = {"stream-closed": "true"}, b"", None
        if chance.random() < 0.5:
            writer = stream.writer("last", exact=True)
            headers |= self._claim(stream, "last", 0, 0)
            body = writer.ask(0, chance.choice(SIZES))
        response, _ = await self._ask(connection, "POST", stream, headers, body)
        if response.status not in ((200, 204) if writer else (204,)) or not response.closed:
            self._unexpected("closing", stream, response)
        if writer:
            self._acknowledged(writer, 0, response)
        stream.know_closed(response.next_offset)
        self.counts["closed"] += 1
        await self._try_closed(stream, connection)

    async def _try_closed(self, stream: Stream, connection: Connection) -> None:
        headers = {"content-type": CONTENT_TYPES[stream.kind]}
        response, _ = await self._ask(connection, "POST", stream, headers, b'"late"')
        if response.status in (404, 410) and stream.deleting:
            return
        if response.status != 409 or not response.closed or response.next_offset != stream.closed_at:
            self._unexpected("an append to the closed", stream, response)

    async def _delete(self, stream: Stream, connection: Connection) -> None:
        """For good."""
        stream.deleting = True
        response, again = await self._ask(connection, "DELETE", stream)
        expired = stream.expires_at is not None and time.time() >= stream.expires_at
        if response.status != 204 and not (response.status in (404, 410) and (again or expired)):
            self._unexpected("DELETE", stream, response)
        stream.deleted = True
        response, _ = await self._ask(connection, "HEAD", stream)
        if response.status not in (404, 410):
            self._unexpected("HEAD of the deleted", stream, response)
        self.counts["deleted"] += 1

    # --- those who write ------------------------------------------------------------------------------------------

    async def _write_by(self, work: Any, stream: Stream, name: str, count: int, chance: random.Random) -> None:
        connection = Connection(self._port)
        try:
            await work(stream, name, count, chance, connection)
        finally:
            connection.close()

    def _claim(self, stream: Stream, producer: str, epoch: int, seq: int) -> dict[str, str]:
        return {
            "content-type": CONTENT_TYPES[stream.kind],
            "producer-id": producer, "producer-epoch": str(epoch), "producer-seq": str(seq),
        }  # fmt: skip

    def _acknowledged(self, writer: Writer, seq: int, response: Response) -> None:
        """An idempotent producer's append: 200 tells where it ends, 204 that it had been there."""
        if response.status not in (200, 204):
            self._unexpected("a producer's append to", writer.stream, response)
        duplicate = response.status == 204
        writer.acknowledge(seq, None if duplicate else response.next_offset)
        writer.stream.know_length(response.next_offset)
        self.counts["duplicates"] += duplicate
        self.counts["acks"] += 1

    async def _produce(
        self, stream: Stream, name: str, count: int, chance: random.Random, connection: Connection
    ) -> None:
        """An idempotent producer, and its successor, which fences it off."""
        for epoch in range(PRODUCER_EPOCHS):
            writer = stream.writer(f"{name}e{epoch}", exact=True)
            for seq in range(count):
                body = writer.ask(seq, chance.choice(SIZES))
                response, _ = await self._ask(connection, "POST", stream, self._claim(stream, name, epoch, seq), body)
                self._acknowledged(writer, seq, response)
        late = self._claim(stream, name, 0, count)
        response, _ = await self._ask(connection, "POST", stream, late, b'"late"')
        if response.status != 403:
            self._unexpected("a fenced producer's append to", stream, response)

    async def _produce_side_by_side(
        self, stream: Stream, name: str, count: int, chance: random.Random, _connection: Connection
    ) -> None:
        """An idempotent producer whose requests overtake one another."""
        writer, waiting = stream.writer(name, exact=True), iter(range(count))
        bodies = [writer.ask(seq, chance.choice(SIZES)) for seq in range(count)]

        async def send(connection: Connection) -> None:
            for seq in waiting:
                while True:
                    claim = self._claim(stream, name, 0, seq)
                    response, _ = await self._ask(connection, "POST", stream, claim, bodies[seq])
                    if response.status != 409 or b"sequence_gap" not in response.body:
                        break
                    self.counts["gaps"] += 1  # the one before it was lost with a server and is on its way again
                self._acknowledged(writer, seq, response)

        connections = [Connection(self._port) for _ in range(3)]
        try:
            await asyncio.gather(*(send(connection) for connection in connections))
        finally:
            for connection in connections:
                connection.close()

    async def _write(
        self, stream: Stream, name: str, count: int, chance: random.Random, connection: Connection
    ) -> None:
        """Plain appends, each sent once."""
        writer, headers = stream.writer(name, exact=False), {"content-type": CONTENT_TYPES[stream.kind]}
        for seq in range(count):
            body = writer.ask(seq, chance.choice(SIZES))
            try:
                response = await self._once(connection, "POST", stream, headers, body)
            except Gone:
                self.counts["unknown"] += 1
                continue
            if response.status != 204:
                self._unexpected("an append to", stream, response)
            writer.acknowledge(seq, response.next_offset)
            self.counts["acks"] += 1

    async def _write_in_order(
        self, stream: Stream, name: str, count: int, chance: random.Random, connection: Connection
    ) -> None:
        """Appends with a Stream-Seq: what is refused when it is sent again has been there."""
        writer = stream.writer(name, exact=True)
        for seq in range(count):
            body = writer.ask(seq, chance.choice(SIZES))
            headers = {"content-type": CONTENT_TYPES[stream.kind], "stream-seq": f"{seq:08}"}
            response, again = await self._ask(connection, "POST", stream, headers, body)
            conflict = response.status == 409 and b"sequence_conflict" in response.body
            if response.status != 204 and not (again and conflict):
                self._unexpected("an append in order to", stream, response)
            writer.acknowledge(seq, None if conflict else response.next_offset)
            self.counts["duplicates"] += conflict
            self.counts["acks"] += 1

    # --- those who read -------------------------------------------------------------------------------------------

    def _place(self, chance: random.Random) -> tuple[Stream, int | None] | None:
        """A stream, and where to begin with it: at its beginning, where a record ends, anywhere, or now."""
        streams = self.ledger.living()[-20:] if chance.random() < 0.8 else self.ledger.living()
        if not streams:
            return None
        stream = chance.choice(streams)
        places: list[int | None] = [0, None, chance.choice(stream.ends)]
        if stream.kind == "binary":
            places.append(chance.randint(0, stream.length))
        return stream, chance.choice(places)

    async def _poll(self, chance: random.Random, connection: Connection) -> None:
        """Follow a stream by long-polls for a while."""
        await self._follow(chance, connection, self._poll_from)

    async def _listen(self, chance: random.Random, connection: Connection) -> None:
        """Follow a stream by its events for a while."""
        await self._follow(chance, connection, self._listen_from)

    async def _follow(
        self, chance: random.Random, connection: Connection,
        follow: Callable[[Connection, Viewer], Awaitable[None]],
    ) -> None:  # fmt: skip
        place = self._place(chance)
        if place is None:
            await asyncio.sleep(0.01)
            return
        viewer = Viewer(self, *place)
        try:
            await asyncio.wait_for(viewer.run(follow, connection), chance.uniform(0.01, LIVE_SECONDS_MAX))
        except asyncio.TimeoutError:
            connection.close()

    async def _poll_from(self, connection: Connection, viewer: Viewer) -> None:
        stream, start = viewer.stream, viewer.position
        query = f"?offset={'now' if start is None else token(start)}&live=long-poll"
        response = await self._once(connection, "GET", stream, query=query)
        if response.status == 204:
            viewer.told(response.next_offset, response.closed)
        elif response.status == 200:
            data = page_of(stream.kind, response)
            viewer.saw(data, response.next_offset - len(data))
            viewer.told(response.next_offset, response.closed)
        else:
            viewer.refused(response)

    async def _listen_from(self, connection: Connection, viewer: Viewer) -> None:
        stream, start = viewer.stream, viewer.position
        query = f"?offset={'now' if start is None else token(start)}&live=sse"
        async with aclosing(connection.events(stream.name, query)) as events:
            async for event in events:
                if isinstance(event, Response):
                    if event.status == 503 and self.stopping:
                        raise Gone
                    viewer.refused(event)
                elif event.name == "data":
                    assert viewer.position is not None
                    viewer.saw(event_data(stream.kind, event), viewer.position)
                else:
                    control = json.loads(event.data)
                    viewer.told(int(control["streamNextOffset"][17:]), "streamClosed" in control)

    async def _look(self, chance: random.Random, connection: Connection) -> None:
        """One look at a stream: what HEAD says of it, a page from anywhere, or whether it is still closed."""
        place = self._place(chance)
        if place is None:
            await asyncio.sleep(0.01)
            return
        stream, start = place
        least, closed = stream.length, stream.closed_at is not None
        if closed and chance.random() < 0.2:
            await self._try_closed(stream, connection)
            return
        if start is None:
            response, _ = await self._ask(connection, "HEAD", stream)
        else:
            response, _ = await self._ask(connection, "GET", stream, query=f"?offset={token(start)}")
        if response.status != 200:
            if response.status not in (404, 410) or not stream.deleting:
                self._unexpected("a look at", stream, response)
            return
        if start is not None:
            data = page_of(stream.kind, response)
            if response.next_offset != start + len(data):
                self._unexpected("a page of another length from", stream, response)
            stream.know(start, data, "a reader")
            self.counts["seen"] += len(data)
        at_tail = start is None or "stream-up-to-date" in response.headers
        if at_tail and response.next_offset < least:
            self._unexpected(f"a tail below {least} of", stream, response)
        if at_tail and closed and not response.closed:
            self._unexpected("an open tail of the closed", stream, response)
        if response.closed:
            stream.know_closed(response.next_offset)

    # --- those who see streams come and go ------------------------------------------------------------------------

    async def _come_and_go(self, chance: random.Random, connection: Connection) -> None:
        """One name with one life after the other."""
        stream = self.ledger.open("again", chance.choice(list(CONTENT_TYPES)))
        stream.private = True
        await self._create(stream, chance, connection, {})
        await self._produce(stream, "w", chance.randint(1, 3), chance, connection)
        response, _ = await self._ask(connection, "GET", stream, query="?offset=-1")
        stream.check(page_of(stream.kind, response), closed=response.closed)
        await self._delete(stream, connection)

    async def _expire(self, chance: random.Random, connection: Connection) -> None:
        """A stream with a fixed end: there before, gone after."""
        stream = self.ledger.open(f"expiring{next(self._names)}", "text")
        stream.private, stream.expires_at = True, round(time.time() + chance.uniform(1.0, 2.0), 3)
        end = datetime.fromtimestamp(stream.expires_at, timezone.utc).isoformat(timespec="milliseconds")
        if not await self._create_in_time(stream, chance, connection, {"stream-expires-at": end}):
            return
        while True:
            asked = time.time()
            response, _ = await self._ask(connection, "GET", stream)
            if response.status not in (200, 404, 410):
                self._unexpected("a stream that expires,", stream, response)
            if (response.status == 200 and asked > stream.expires_at) or (
                response.status != 200 and time.time() < stream.expires_at - 0.001
            ):
                self._unexpected(f"at {time.time()}, a stream that expires at {stream.expires_at},", stream, response)
            if response.status != 200:
                stream.deleting = stream.deleted = True
                self.counts["expired"] += 1
                return
            stream.know(0, page_of(stream.kind, response), "a reader")
            await asyncio.sleep(chance.uniform(0, 0.2))

    async def _create_in_time(
        self, stream: Stream, chance: random.Random, connection: Connection, headers: dict[str, str]
    ) -> bool:
        """Whether it is known to be there; one whose creation took longer than its life may have been refused."""
        try:
            await self._create(stream, chance, connection, headers)
        except Violation:
            if stream.expires_at is None or time.time() < stream.expires_at:
                raise
        return stream.created

    async def _outlive(self, chance: random.Random, connection: Connection) -> None:
        """A stream that lives for a second from its last use: never less."""
        stream = self.ledger.open(f"sliding{next(self._names)}", "text")
        stream.private, stream.expires_at = True, time.time() + 1.0
        if not await self._create_in_time(stream, chance, connection, {"stream-ttl": "1"}):
            return
        for _ in range(chance.randint(1, 12)):
            used = time.time()
            response, _ = await self._ask(connection, "GET", stream)
            if response.status != 200:
                if time.time() < stream.expires_at:
                    self._unexpected(f"a stream that lives until {stream.expires_at},", stream, response)
                break
            stream.expires_at = used + 1.0
            stream.know(0, page_of(stream.kind, response), "a reader")
            self.counts["outlived"] += 1
            await asyncio.sleep(chance.uniform(0, 0.3))
        await self._delete(stream, connection)


class Viewer:
    """Somebody who follows a stream over kills. ``position`` is the offset up to which it has seen everything."""

    def __init__(self, crowd: Crowd, stream: Stream, position: int | None) -> None:
        self._crowd, self.stream, self.position = crowd, stream, position
        self._done = False

    async def run(self, follow: Any, connection: Connection) -> None:
        while not self._done:
            try:
                await follow(connection, self)
            except Gone:
                self._crowd.counts["viewers' returns"] += 1

    def saw(self, data: bytes, at: int) -> None:
        if self.position is not None and at != self.position:
            self.stream.violation(self.position, "a viewer's next bytes", b"", data)
        self.stream.know(at, data, "a viewer")
        self._crowd.counts["seen"] += len(data)
        self.position = at + len(data)

    def told(self, offset: int, closed: bool) -> None:
        if self.position is not None and offset != self.position:
            self.stream.violation(self.position, "a viewer's next offset", b"%d" % self.position, b"%d" % offset)
        self.position = offset
        self.stream.know_length(offset)
        if closed:
            self.stream.know_closed(offset)
            self._done = True

    def refused(self, response: Response) -> None:
        if response.status not in (404, 410) or not self.stream.deleting:
            raise Violation(f"following {self.stream.name}: {response.status} {response.body[:200]!r}")
        self._done = True
