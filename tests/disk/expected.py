"""What a store has to hold after each of a row of operations, in plain Python; and what a real one holds.

Law of this room: a world is all streams at one moment. Requests lead from one to the next; only such that are accepted,
found stored already, or found as they were asked for. Nothing of the engine but the shapes of its requests is used to
say what is expected. What a real store holds is told as a world, too, so that both can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from durable_log.model import Append, Create, Delete, Producer, Request, Trim
from durable_log.store import Store


@dataclass(frozen=True, slots=True)
class Life:
    """One stream. ``content``: its bytes from ``first`` on. ``forks``: how many descend from it directly."""

    content: bytes = b""
    first: int = 0
    closed: bool = False
    content_type: str = ""
    ttl: int | None = None
    expires_at: float | None = None
    fork_of: str | None = None
    fork_at: int | None = None
    seq: str | None = None
    producers: tuple[Producer, ...] = ()
    forks: int = 0
    deleted: bool = False

    @property
    def tail(self) -> int:
        return self.first + len(self.content)

    def claim_of(self, producer_id: str) -> Producer | None:
        return next((known for known in self.producers if known.id == producer_id), None)


World = Mapping[str, Life]
NOBODY: World = {}


def after(world: World, request: Request) -> World:
    """The world once that request is committed."""
    if isinstance(request, Append):
        return {**world, request.name: _appended(world[request.name], request)}
    if isinstance(request, Create):
        return _created(world, request)
    if isinstance(request, Trim):
        life = world[request.name]
        first = max(life.first, request.before)
        return {**world, request.name: replace(life, first=first, content=life.content[first - life.first :])}
    return _deleted(world, request)


def is_duplicate(world: World, request: Append) -> bool:
    """Whether the stream has that append already, by its claim."""
    claim = request.producer
    known = None if claim is None else world[request.name].claim_of(claim.id)
    return claim is not None and known is not None and claim.epoch == known.epoch and claim.seq <= known.seq


def _appended(life: Life, request: Append) -> Life:
    producers, claim = life.producers, request.producer
    if claim is not None:
        known = life.claim_of(claim.id)
        if known is not None and claim.epoch == known.epoch and claim.seq <= known.seq:
            return life
        producers = (*(other for other in producers if other.id != claim.id), claim)
    return replace(
        life,
        content=life.content + request.data,
        closed=life.closed or request.close,
        seq=life.seq if request.seq is None else request.seq,
        producers=tuple(sorted(producers)),
    )


def _created(world: World, request: Create) -> World:
    if request.name in world:
        return world
    config = request.config
    life = Life(request.data, 0, request.closed, config.content_type, config.ttl, config.expires_at, request.fork_of)
    if request.fork_of is None:
        return {**world, request.name: life}
    source = world[request.fork_of]
    at = source.tail if request.fork_at is None else request.fork_at
    life = replace(
        life, content=source.content[: at - source.first] + request.data, first=source.first, fork_at=at,
        ttl=config.ttl if config.ttl or config.expires_at else source.ttl,
        expires_at=config.expires_at if config.ttl or config.expires_at else source.expires_at,
    )  # fmt: skip
    return {**world, request.fork_of: replace(source, forks=source.forks + 1), request.name: life}


def _deleted(world: World, request: Delete) -> World:
    left = dict(world)
    life = left[request.name] = buried(left[request.name])
    name: str | None = request.name
    while name is not None and life.deleted and not life.forks:
        del left[name]
        name = life.fork_of
        if name is not None:
            life = left[name] = replace(left[name], forks=left[name].forks - 1)
    return left


def buried(life: Life) -> Life:
    """What can be told of a stream that was deleted and is kept for its forks."""
    return Life(deleted=True, forks=life.forks, fork_of=life.fork_of, fork_at=life.fork_at)


def found_in(store: Store, names: Iterable[str]) -> World:
    """What a store holds under these names. Reading counts as a use."""
    found = {}
    for name in names:
        state = store.engine._catalog.get(name)
        if state is None:
            continue
        fork = state.fork
        life = Life(
            b"", state.first, state.durable_closed, state.config.content_type, state.config.ttl,
            state.config.expires_at, fork and fork.source.name, fork and fork.base, state.last_seq,
            tuple(sorted(Producer(str(key), known.epoch, known.seq) for key, known in (state.producers or {}).items())),
            state.forks, state.deleted,
        )  # fmt: skip
        if state.deleted:
            found[name] = buried(life)
            continue
        chunk = store.stream(name).read(state.first, limit=2**22)
        assert (chunk.offset, chunk.next_offset) == (state.first, state.tail) == (state.first, state.durable), name
        assert chunk.closed == state.closed, name
        found[name] = replace(life, content=chunk.data)
    return found


def differences(found: World, expected: World) -> str:
    """In which streams two worlds differ, and how, for people."""
    told = []
    for name in sorted({*found, *expected}):
        have, want = found.get(name), expected.get(name)
        if have != want:
            told.append(f"  {name}: found {_told(have)}\n  {' ' * len(name)}  not   {_told(want)}")
    return "\n".join(told)


def _told(life: Life | None) -> str:
    if life is None:
        return "nothing"
    content = life.content if len(life.content) < 40 else life.content[:20] + b"..." + life.content[-17:]
    return f"{len(life.content)} bytes, {replace(life, content=content)}"
