"""The store as a plain-Python model: what PROTOCOL.md §4.2 and §5 say, in dictionaries, without disks or threads.

Law of this room: requests in, expected results out. A model is changed by ``apply`` alone and copied in a moment, as
lives are never changed but replaced: whoever does not know whether a request was carried out keeps both models. Lives
have the numbers that the store gives them. Whether a stream has expired is said by the caller: see :class:`Uses`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from durable_log.model import Append, Appended, Chunk, Create, Created, Delete, Producer, Request, Trim, media_type

JSON = "application/json"
GRACE_MIN = 60.0
"""A crash may take as many seconds of a sliding TTL's renewal, or an eighth of it; opening gives back as much."""


class Life(NamedTuple):
    """One life of a name. One that is deleted stays as long as forks need it."""

    number: int
    name: str
    content_type: str
    ttl: int | None
    expires_at: float | None
    recorded: float
    """When it was created or appended to last."""
    content: bytes = b""
    ends: tuple[int, ...] = ()
    """Where the messages of a JSON stream end."""
    first: int = 0
    base: int = 0
    source: int | None = None
    forks: int = 0
    closed: bool = False
    deleted: bool = False
    last_seq: str | None = None
    producers: tuple[tuple[str, int, int], ...] = ()
    """Id, epoch and sequence of each, in the order in which they came."""

    @property
    def tail(self) -> int:
        return len(self.content)

    def producer(self, producer_id: str) -> tuple[int, int] | None:
        return next((known[1:] for known in self.producers if known[0] == producer_id), None)

    def boundary(self, offset: int) -> int:
        """The last offset at or below ``offset`` at which this stream can be cut or read from."""
        return offset if self.content_type != JSON else max([end for end in (0, *self.ends) if end <= offset])

    def compare(self, chunk: Chunk, offset: int, limit: int, *, whole: bool = True) -> None:
        """Raise ``AssertionError`` unless ``chunk`` is what a read of this stream has to give. If that is not
        ``whole``, it may end early, before what could not be read.
        """
        assert chunk.offset == offset
        assert chunk.data == self.content[offset : chunk.next_offset], (self.name, offset, chunk.next_offset)
        assert chunk.data or offset == self.tail, (self.name, offset, self.tail)
        assert chunk.next_offset == offset + len(chunk.data)
        assert chunk.up_to_date == (chunk.next_offset == self.tail), (self.name, offset, chunk, self.tail)
        assert chunk.closed == (chunk.up_to_date and self.closed)
        assert chunk.content_type == self.content_type
        if self.content_type == JSON:
            assert chunk.next_offset in {0, *self.ends}
            assert len(chunk.items) == sum(offset < end <= chunk.next_offset for end in self.ends)
        elif whole:
            assert chunk.next_offset == min(self.tail, offset + limit)


class Refused(Exception):
    """A request that is refused, by the name of the error's class."""

    @property
    def kind(self) -> str:
        return str(self.args[0])


Living = Callable[[Life], bool]


class Model:
    """All lives, by number, and which of them a name leads to."""

    def __init__(self) -> None:
        self.lives: dict[int, Life] = {}
        self.names: dict[str, int] = {}
        self.next_number = 1

    def copy(self) -> Model:
        copied = Model()
        copied.lives, copied.names, copied.next_number = dict(self.lives), dict(self.names), self.next_number
        return copied

    def find(self, name: str) -> Life | None:
        """The life that the name leads to, be it over or not."""
        number = self.names.get(name)
        return None if number is None else self.lives[number]

    def readable(self, living: Living) -> dict[str, Life]:
        """What can be read, by name."""
        found = {name: self.lives[number] for name, number in sorted(self.names.items())}
        return {name: life for name, life in found.items() if not life.deleted and living(life)}

    def life(self, name: str, living: Living) -> Life:
        """The stream of that name. Raises what whoever asks for it is told."""
        life = self.find(name)
        if life is not None and life.deleted:
            raise Refused("StreamGone")
        if life is None or not living(life):
            raise Refused("StreamNotFound")
        return life

    def refusal(self, name: str, living: Living) -> str | None:
        """What whoever asks for that stream is told instead."""
        try:
            self.life(name, living)
        except Refused as refused:
            return refused.kind
        return None

    def apply(self, request: Request, now: float, living: Living) -> Any:
        """Carry the request out. Returns its result, or how it is refused."""
        try:
            if isinstance(request, Create):
                return self._create(request, now, living)
            if isinstance(request, Append):
                return self._append(self.life(request.name, living), request, now)
            if isinstance(request, Trim):
                return self._trim(self.life(request.name, living), request.before)
            return self._delete(request, living)
        except Refused as refused:
            return refused

    def delete(self, life: Life) -> None:
        """Delete a life; it, and what was kept for it, goes if nothing needs it."""
        life = self._keep(life._replace(deleted=True))
        while life.deleted and not life.forks:
            del self.lives[life.number]
            del self.names[life.name]
            if life.source is None:
                break
            source = self.lives[life.source]
            life = self._keep(source._replace(forks=source.forks - 1))

    def _keep(self, life: Life) -> Life:
        self.lives[life.number] = life
        return life

    def _create(self, request: Create, now: float, living: Living) -> Created:
        config = request.config
        present = self.find(request.name)
        if present is not None and not present.deleted:
            if living(present):
                return self._found(present, request)
            self.delete(present)
        if request.name in self.names:
            raise Refused("StreamExists")
        life = Life(0, request.name, config.content_type, config.ttl, config.expires_at, now)
        if request.fork_of is not None:
            life = self._forked(life, request, living)
        life = self._keep(life._replace(number=self.next_number))
        self.names[life.name] = life.number
        self.next_number += 1
        if request.data or request.closed:
            self._append(life, Append(life.name, request.data, close=request.closed), now)
        life = self.lives[life.number]
        return Created(False, life.tail, life.closed, life.content_type)

    def _found(self, life: Life, request: Create) -> Created:
        config = request.config
        inherits = request.fork_of is not None and config.ttl is None and config.expires_at is None
        source = None if life.source is None else self.lives[life.source].name
        asked = (
            media_type(config.content_type), life.ttl if inherits else config.ttl,
            life.expires_at if inherits else config.expires_at, request.closed, request.fork_of,
        )  # fmt: skip
        same = asked == (media_type(life.content_type), life.ttl, life.expires_at, life.closed, source)
        if not same or (request.fork_at is not None and (source is None or request.fork_at != life.base)):
            raise Refused("StreamExists")
        return Created(True, life.tail, life.closed, life.content_type)

    def _forked(self, life: Life, request: Create, living: Living) -> Life:
        assert request.fork_of is not None
        source = self.life(request.fork_of, living)
        if media_type(life.content_type) != media_type(source.content_type):
            raise Refused("ContentTypeMismatch")
        base = source.tail if request.fork_at is None else request.fork_at
        if not source.first <= base <= source.tail:
            raise Refused("OffsetOutOfRange")
        self._keep(source._replace(forks=source.forks + 1))
        if life.ttl is None and life.expires_at is None:
            life = life._replace(ttl=source.ttl, expires_at=source.expires_at)
        return life._replace(
            content=source.content[:base], ends=tuple(end for end in source.ends if end <= base), first=source.first,
            base=base, source=source.number,
        )  # fmt: skip

    def _append(self, life: Life, request: Append, now: float) -> Appended:
        claim = request.producer
        known = None if claim is None else life.producer(claim.id)
        if claim is not None and known is not None and claim.epoch == known[0] and claim.seq <= known[1]:
            return Appended(life.tail, life.tail, True, life.closed, known[1])
        if life.closed:
            if request.close and not request.data and claim is None:
                return Appended(life.tail, life.tail, True, True)
            raise Refused("StreamClosed")
        asked = life.content_type if request.content_type is None or not request.data else request.content_type
        if media_type(asked) != media_type(life.content_type):
            raise Refused("ContentTypeMismatch")
        if claim is not None:
            _check_claim(known, claim)
            others = tuple(other for other in life.producers if other[0] != claim.id)
            place = [other[0] for other in life.producers].index(claim.id) if known else len(others)
            life = life._replace(producers=(*others[:place], tuple(claim), *others[place:]))
        if request.seq is not None:
            if life.last_seq is not None and _raw(request.seq) <= _raw(life.last_seq):
                raise Refused("SequenceConflict")
            life = life._replace(last_seq=request.seq)
        start = life.tail
        life = self._keep(
            life._replace(content=life.content + request.data, closed=life.closed or request.close, recorded=now)
        )
        if request.data and life.content_type == JSON:
            self._keep(life._replace(ends=(*life.ends, *(start + end for end in _message_ends(request.data)))))
        return Appended(start, life.tail, False, life.closed, None if claim is None else claim.seq)

    def _trim(self, life: Life, before: int) -> int:
        if before > life.tail:
            raise Refused("OffsetOutOfRange")
        if before > life.first:
            life = self._keep(life._replace(first=before))
        return life.first

    def _delete(self, request: Delete, living: Living) -> None:
        if not request.expired:
            self.delete(self.life(request.name, living))
            return
        life = self.find(request.name)
        if life is not None and life.number == request.number and not life.deleted and not living(life):
            self.delete(life)


def _check_claim(known: tuple[int, int] | None, claim: Producer) -> None:
    if known is None:
        if claim.seq:
            raise Refused("SequenceGap")
    elif claim.epoch < known[0]:
        raise Refused("StaleEpoch")
    elif claim.epoch == known[0]:
        if claim.seq != known[1] + 1:
            raise Refused("SequenceGap")
    elif claim.seq:
        raise Refused("InvalidProducer")


def _raw(seq: str) -> bytes:
    return seq.encode("utf-8", "surrogatepass")


def _message_ends(data: bytes) -> list[int]:
    """Where the messages end, each with its comma. They hold no comma outside of brackets and strings."""
    ends, depth, quoted, escaped = [], 0, False, False
    for at, byte in enumerate(data):
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = byte == 0x5C, byte != 0x22
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
        elif byte in b"]}":
            depth -= 1
        elif byte == 0x2C and not depth:
            ends.append(at + 1)
    return ends


class Uses:
    """When streams with a sliding TTL were used last: at least, and at most, as far as anybody can know.

    It is known exactly while a store stays open. A crash may take uses that no record tells of, and opening gives back
    what it may have taken; so after that the answer may be that either is right.
    """

    def __init__(self) -> None:
        self._spans: dict[int, tuple[float, float]] = {}

    def use(self, number: int, now: float) -> None:
        """It was used."""
        self._spans[number] = (now, now)

    def may_use(self, number: int, now: float) -> None:
        """It was used, or not."""
        low, _ = self._spans.get(number, (now, now))
        self._spans[number] = (low, now)

    def alive(self, life: Life, now: float) -> bool | None:
        """Whether the stream has not expired; None if nobody can know."""
        if life.expires_at is not None:
            return now < life.expires_at
        if life.ttl is None:
            return True
        low, high = self._spans[life.number]
        return True if now < low + life.ttl else None if now < high + life.ttl else False

    def reopened(self, model: Model, now: float, *, crashed: bool) -> None:
        """The store was opened again, and holds this. A good end without room for its mark looks like a crash."""
        before, self._spans = self._spans, {}
        for life in model.lives.values():
            if life.ttl is not None:
                low, high = before.get(life.number, (life.recorded, life.recorded))
                if crashed:
                    low = min(low, life.recorded)
                high = max(low, life.recorded, min(now, high + max(life.ttl / 8, GRACE_MIN)))
                self._spans[life.number] = (low, high)
