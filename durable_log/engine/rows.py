"""A stream's state as a row of the catalog, and back.

Law of this room: pure functions. A row says everything that is durable of a stream at its LSN, but where the log has
its bytes: what the log holds from there on comes on top, and what lies below is asked only where it lies. The streams
that a fork descends from are the caller's business. Called by the holder of the commit lock (encode) and by whoever
loads a stream (decode).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from durable_log.engine.ancestry import Fork
from durable_log.engine.index import load_index, without_log
from durable_log.engine.run_format import NEVER, TOMBSTONE, encode_row, head_of_row
from durable_log.engine.state import ProducerState, StreamState, shared_config
from durable_log.errors import Corruption
from durable_log.model import StreamConfig

_HEAD: Final = struct.Struct("<QQQQqqQIIIHHHB")
_PRODUCER: Final = struct.Struct("<IQQH")
_PAIR: Final = struct.Struct("<QQ")
_CLOSED, _DELETED = 1, 2
_NO_SEQ: Final = 0xFFFF
_NO_CLAIM: Final = 2**64 - 1
"""The epoch and the sequence of a producer that was introduced by a record whose claim is lost."""
_NO_EXPIRY: Final = -(2**63)


class Loaded(NamedTuple):
    """A state out of a row, and the LSN up to which it knows the log."""

    state: StreamState
    lsn: int


def deadline_ms(state: StreamState) -> int:
    """When to see whether the stream has expired: its deadline, rounded down, as looking early does no harm."""
    return NEVER if state.deadline == math.inf else min(max(0, math.floor(state.deadline * 1000)), NEVER - 1)


def encode_stream(state: StreamState, lsn: int) -> bytes:
    """The row of a stream whose state is durable up to ``lsn``."""
    payload = encode_state(state, lsn)
    return encode_row(state.name, state.number, payload, hidden=state.gone, deadline=deadline_ms(state))


def encode_state(state: StreamState, lsn: int) -> bytes:
    """The row's payload for a stream whose state is durable up to ``lsn``."""
    config, fork, producers = state.config, state.fork, state.producers or {}
    content_type = config.content_type.encode()
    seq = b"" if state.last_seq is None else state.last_seq.encode("utf-8", "surrogatepass")
    index = without_log(state.index)
    head = _HEAD.pack(
        lsn,
        state.created_ms,
        state.durable,
        state.first,
        -1 if config.ttl is None else config.ttl,
        _NO_EXPIRY if config.expires_at is None else round(config.expires_at * 1000),
        0 if state.expiry is None else int(state.expiry.touched * 1000),
        state.forks,
        len(index),
        len(producers),
        0 if fork is None else len(fork.ancestors) + 1,
        _NO_SEQ if state.last_seq is None else len(seq),
        len(content_type),
        _CLOSED * state.durable_closed + _DELETED * state.gone,
    )
    parts = [head, content_type, seq, index]
    for producer_id, producer in producers.items():
        name = b"" if isinstance(producer_id, int) else producer_id.encode("utf-8", "surrogatepass")
        epoch, claimed = producer.epoch & _NO_CLAIM, producer.seq & _NO_CLAIM
        parts += (_PRODUCER.pack(producer.number, epoch, claimed, len(name)), name)
    if fork is not None:
        parts.append(_PAIR.pack(fork.source.number, fork.base))
        parts += [_PAIR.pack(owner.number, end) for owner, end in fork.ancestors]
    return b"".join(parts)


def decode_stream(
    name: str, data: bytes, at: int, find: Callable[[int], StreamState]
) -> tuple[StreamState, int] | None:
    """The stream of the row that begins at ``at`` in bytes that were verified, and its LSN; None for a tombstone.

    Raises :class:`Corruption` if what holds is no row of a stream, and whatever ``find`` does.
    """
    number, flags, start, end = head_of_row(data, at)
    return None if flags & TOMBSTONE else _decode_whole(name, number, data, start, end, find)


def decode_state(name: str, number: int, payload: bytes, find: Callable[[int], StreamState]) -> Loaded:
    """The stream of a row. ``find`` gives the streams that it descends from, by number. Raises as above."""
    return Loaded(*_decode_whole(name, number, payload, 0, len(payload), find))


def _no_row(reason: object, name: str | None = None) -> Corruption:
    return Corruption("a run of the catalog", 0, f"a row that holds can't be understood: {reason}", name=name)


def _decode_whole(
    name: str, number: int, data: bytes, at: int, end: int, find: Callable[[int], StreamState]
) -> tuple[StreamState, int]:
    try:
        state, lsn, stop = _decode(name, number, data, at, find)
    except (struct.error, ValueError) as error:
        raise _no_row(error, name) from error
    if stop != end:
        raise _no_row(f"it takes {stop - at} bytes and has {end - at}", name)
    return state, lsn


def _decode(
    name: str, number: int, data: bytes, at: int, find: Callable[[int], StreamState]
) -> tuple[StreamState, int, int]:
    (lsn, created_ms, tail, first, ttl, expires_ms, touched_ms, forks, index_length, producers, ancestors, seq_length,
     type_length, flags) = _HEAD.unpack_from(data, at)  # fmt: skip
    at += _HEAD.size
    config, at = _config(data[at : at + type_length], ttl, expires_ms), at + type_length
    last_seq = None
    if seq_length != _NO_SEQ:
        last_seq, at = data[at : at + seq_length].decode("utf-8", "surrogatepass"), at + seq_length
    index, at = load_index(data[at : at + index_length]), at + index_length
    state = StreamState(number, name, config, created_ms, index=index)
    state.last_seq = last_seq
    if producers:
        at = _decode_producers(state, data, at, producers)
    if ancestors:
        pairs = [_PAIR.unpack_from(data, at + pair * _PAIR.size) for pair in range(ancestors)]
        owners = tuple((find(owner), end) for owner, end in pairs[1:])
        state.fork = Fork(find(pairs[0][0]), pairs[0][1], owners)
        at += ancestors * _PAIR.size
    state.tail = state.durable = tail
    state.trimmed = state.first = first
    state.forks = forks
    if flags:
        state.closed = state.durable_closed = bool(flags & _CLOSED)
        state.deleted = state.gone = bool(flags & _DELETED)
    if state.expiry is not None and touched_ms:
        state.expiry.renew(touched_ms / 1000)
        state.expiry.saved = state.expiry.touched
    return state, lsn, at


@lru_cache(maxsize=1024)
def _config(content_type: bytes, ttl: int, expires_ms: int) -> StreamConfig:
    return shared_config(
        content_type.decode(), None if ttl < 0 else ttl, None if expires_ms == _NO_EXPIRY else expires_ms / 1000
    )


def _decode_producers(state: StreamState, data: bytes, at: int, count: int) -> int:
    known: dict[str | int, ProducerState] = {}
    state.producers = known
    for _ in range(count):
        number, epoch, seq, length = _PRODUCER.unpack_from(data, at)
        at += _PRODUCER.size
        producer_id, at = data[at : at + length].decode("utf-8", "surrogatepass"), at + length
        known[producer_id or number] = ProducerState(number, *(-1 if one == _NO_CLAIM else one for one in (epoch, seq)))
    return at


class Needed(NamedTuple):
    """What a row says of the bytes of its stream: where they lie, and the first that is needed."""

    places: bytearray
    first: int


def needed_of(payload: bytes) -> Needed:
    """What a row says of its stream's bytes, without decoding all of it. Raises :class:`Corruption`."""
    if len(payload) < _HEAD.size:
        raise _no_row(f"it has {len(payload)} bytes")
    head = _HEAD.unpack_from(payload)
    first, forks, index_length, seq_length, type_length = head[3], head[7], head[8], head[11], head[12]
    at = _HEAD.size + type_length + (0 if seq_length == _NO_SEQ else seq_length)
    try:
        return Needed(load_index(payload[at : at + index_length]), 0 if forks else first)
    except ValueError as error:
        raise _no_row(error) from error


def source_of(payload: bytes, number: int) -> int:
    """The number of the stream, an older one, that stream ``number`` was forked from by its row; 0 if it is no fork.

    Raises as above.
    """
    if len(payload) < _HEAD.size:
        raise _no_row(f"it has {len(payload)} bytes")
    room = int(_HEAD.unpack_from(payload)[10]) * _PAIR.size
    if room > len(payload) - _HEAD.size:
        raise _no_row(f"it has {len(payload)} bytes, {room} of them for ancestors")
    source = int(_PAIR.unpack_from(payload, len(payload) - room)[0]) if room else 0
    if source >= number:
        raise _no_row(f"stream number {number} can't be a fork of number {source}")
    return source


def encode_tombstone(lsn: int) -> bytes:
    """The row's payload for a stream that was removed before ``lsn``."""
    return struct.pack("<Q", lsn)


def lsn_of_row(payload: bytes) -> int:
    """Up to where a row knows the log. Raises :class:`Corruption`."""
    if len(payload) < 8:
        raise _no_row(f"it has {len(payload)} bytes")
    return int(struct.unpack_from("<Q", payload)[0])
