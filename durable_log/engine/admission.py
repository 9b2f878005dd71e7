"""May this append happen?

Law of this room: pure decisions, ``(stream state, request) → verdict``. Nothing is changed, written or waited for; no
clock, no threads. The order of the checks is PROTOCOL.md §5.2 (error precedence) and §5.2.1: a duplicate of what was
accepted before is found first, then closure, content type, the producer's claim, ``Stream-Seq``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from durable_log.engine.format import stored_time
from durable_log.errors import (
    ContentTypeMismatch,
    InvalidProducer,
    OffsetOutOfRange,
    SequenceConflict,
    SequenceGap,
    StaleEpoch,
    StreamClosed,
    StreamExists,
    StreamGone,
)
from durable_log.model import Append, Appended, Create, Created, Producer, media_type

if TYPE_CHECKING:
    from durable_log.engine.state import ProducerState, StreamState


def admit_append(state: StreamState, request: Append) -> Appended | None:
    """None: append it. An :class:`Appended`: it is there already. Raises what refuses it."""
    if request.producer is not None:
        duplicate = _duplicate(state, request.producer)
        if duplicate is not None:
            return duplicate
    if state.closed:
        if request.close and not request.data and request.producer is None:
            return Appended(state.tail, state.tail, True, True)
        raise StreamClosed(state.name, state.tail)
    if request.content_type not in (None, state.config.content_type) and request.data:
        _check_content_type(state, request.content_type)
    if request.producer is not None:
        _check_claim(state, request.producer)
    if request.seq is not None and state.last_seq is not None and not _follows(request.seq, state.last_seq):
        raise SequenceConflict(state.name, state.last_seq, request.seq)
    return None


def admit_create(state: StreamState, request: Create) -> Created:
    """The stream exists: is it what the request asks for? Raises :class:`StreamExists` if not (PROTOCOL.md §5.1)."""
    asked, has, fork = request.config, state.config, state.fork
    inherits = request.fork_of is not None and asked.ttl is None and asked.expires_at is None
    for what, wanted, found in (
        ("content type", media_type(asked.content_type), media_type(has.content_type)),
        ("TTL", has.ttl if inherits else asked.ttl, has.ttl),
        ("expiry", has.expires_at if inherits else stored_time(asked.expires_at), has.expires_at),
        ("closed", request.closed, state.closed),
        ("source", request.fork_of, None if fork is None else fork.source.name),
        ("fork offset", request.fork_at, None if fork is None or request.fork_at is None else fork.base),
    ):
        if wanted != found:
            raise StreamExists(state.name, what, found, wanted)
    return Created(True, state.tail, state.closed, has.content_type)


def admit_fork(source: StreamState, request: Create) -> int:
    """The offset at which the fork leaves ``source``. Raises what refuses it (PROTOCOL.md §4.2)."""
    if source.deleted:
        raise StreamGone(source.name)
    asked, has = request.config.content_type, source.config.content_type
    if media_type(asked) != media_type(has):
        raise ContentTypeMismatch(source.name, has, asked)
    at = source.tail if request.fork_at is None else request.fork_at
    if not source.trimmed <= at <= source.tail:
        raise OffsetOutOfRange(source.name, at, source.trimmed, source.tail)
    return at


def _producer(state: StreamState, producer: Producer) -> ProducerState | None:
    return None if state.producers is None else state.producers.get(producer.id)


def _duplicate(state: StreamState, producer: Producer) -> Appended | None:
    known = _producer(state, producer)
    if known is None or producer.epoch != known.epoch or producer.seq > known.seq:
        return None
    return Appended(state.tail, state.tail, True, state.closed, known.seq)


def _check_content_type(state: StreamState, received: str) -> None:
    expected = state.config.content_type
    if media_type(received) != media_type(expected):
        raise ContentTypeMismatch(state.name, expected, received)


def _check_claim(state: StreamState, producer: Producer) -> None:
    known = _producer(state, producer)
    if known is not None and producer.epoch < known.epoch:
        raise StaleEpoch(state.name, producer.id, known.epoch, producer.epoch)
    if known is not None and producer.epoch == known.epoch:
        if producer.seq != known.seq + 1:
            raise SequenceGap(state.name, producer.id, known.seq + 1, producer.seq)
    elif producer.seq != 0:
        if known is None:
            raise SequenceGap(state.name, producer.id, 0, producer.seq)
        raise InvalidProducer(
            f"stream {state.name!r}: producer {producer.id!r} starts epoch {producer.epoch} with sequence "
            f"{producer.seq}; a new epoch starts with sequence 0"
        )


def _follows(seq: str, last: str) -> bool:
    return seq.encode("utf-8", "surrogatepass") > last.encode("utf-8", "surrogatepass")
