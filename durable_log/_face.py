"""What both faces do to a caller's values before the engine sees them, and to its answers afterwards.

Law of this room: pure functions; no I/O, no clock, no threads. Here text becomes bytes, JSON becomes its stored form,
and arguments are checked, so that the sync and the asyncio face cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from durable_log.errors import InvalidData, InvalidOption, OffsetOutOfRange, RecordTooLarge, StreamExists
from durable_log.model import (
    EARLIEST,
    EXPIRES_AT_MAX,
    EXPIRES_AT_MIN,
    SEQ_BYTES_MAX,
    Append,
    Chunk,
    Create,
    Created,
    Durability,
    Options,
    Producer,
    StreamConfig,
    check_name,
    is_json,
    is_text,
)
from durable_log.protocol import json_mode

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
Data = bytes | bytearray | memoryview | str
Read = Callable[[str, int, int, int | None], Chunk | None]
RecordBounds = Callable[[str, int, int | None], tuple[int, int]]
CONTENT_TYPE_BYTES_MAX: Final = 256
TTL_SECONDS_MAX: Final = 2**53
BOUNDARY_BYTES: Final = 4096
"""How much is read to see that an offset is one: most messages are shorter."""


def stored(data: Data, content_type: str) -> bytes:
    """``data`` as the stream keeps it. Raises :class:`InvalidData`."""
    raw = _raw(data, content_type)
    return json_mode.split(raw)[0] if is_json(content_type) else raw


def stored_many(items: Iterable[Data], content_type: str) -> bytes:
    """All ``items`` together as the stream keeps them. Raises :class:`InvalidData`."""
    many: list[Any] = list(items)
    together = json_mode.split_many if is_json(content_type) else b"".join
    try:
        return together(many)
    except TypeError:  # not all of them are bytes
        return together(_raws(many, content_type))


def _raws(items: list[Any], content_type: str) -> list[bytes]:
    if is_text(content_type):
        with suppress(TypeError, UnicodeEncodeError):  # which of them is no text is told below
            return list(map(str.encode, items))
    return [_raw(item, content_type) for item in items]


def _raw(data: Data, content_type: str) -> bytes:
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        return _encoded(data, content_type)
    try:
        return bytes(memoryview(data))
    except TypeError as error:
        raise InvalidData(f"data is bytes or str, not {type(data).__name__}") from error


def _encoded(text: str, content_type: str) -> bytes:
    if not is_text(content_type):
        raise InvalidData(f"a stream of {content_type!r} takes bytes, not str; encode the text")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidData(f"the text has a lone surrogate at character {error.start}") from error


def stored_values(values: Sequence[Any], content_type: str) -> bytes:
    """Python values as messages of a JSON stream. Raises :class:`InvalidData`."""
    if not is_json(content_type):
        raise InvalidData(f"append_json needs a stream of application/json, not {content_type!r}")
    try:
        array = _ENCODER.encode(values).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidData(f"a value has no JSON form: {error}") from error
    return array[1:-1] + b"," if values else b""


def check_created(created: Created, name: str, exist_ok: bool) -> None:
    """Raises :class:`StreamExists` if the stream was there and may not have been."""
    if created.existed and not exist_ok:
        raise StreamExists(name)


def create_request(
    name: str, content_type: str, ttl: float | None, expires_at: float | datetime | None, closed: bool, data: Data,
    fork: tuple[str | None, int | None], options: Options,
) -> Create:  # fmt: skip
    """The request that creates a stream. Raises :class:`InvalidName`, :class:`InvalidOption`, :class:`InvalidData`."""
    if not (content_type.isascii() and content_type.isprintable() and 0 < len(content_type) <= CONTENT_TYPE_BYTES_MAX):
        raise InvalidOption(
            f"a content type is 1 to {CONTENT_TYPE_BYTES_MAX} printable ASCII characters, not {content_type[:40]!r}"
        )
    if ttl is not None and expires_at is not None:
        raise InvalidOption("a stream has a ttl or an expires_at, not both")
    if ttl is not None and not (0 <= ttl <= TTL_SECONDS_MAX and ttl == int(ttl)):
        raise InvalidOption(f"a ttl is whole seconds from 0 to 2^53, not {ttl!r}")
    if isinstance(expires_at, datetime):
        expires_at = expires_at.timestamp()
    if expires_at is not None and not EXPIRES_AT_MIN <= expires_at <= EXPIRES_AT_MAX:
        raise InvalidOption(f"expires_at is seconds since the epoch, in the years 1 to 9999 of UTC, not {expires_at!r}")
    config = StreamConfig(content_type, None if ttl is None else int(ttl), expires_at)
    raw = stored(data, content_type) if data else b""
    fork_of, fork_at = fork
    if fork_of is None and fork_at is not None:
        raise InvalidOption(f"fork_at is {fork_at} but fork_of does not say of which stream; give both")
    if fork_at is not None and fork_at < 0:
        raise InvalidOption(f"fork_at is an offset from 0 on, not {fork_at}; leave it out to fork at the tail")
    if len(raw) > options.record_bytes_max:
        _check_size(raw, content_type, options)
    return Create(check_name(name), config, raw, closed, fork_of, fork_at)


def append_request(
    name: str, raw: bytes, content_type: str | None, producer: Producer | None, seq: str | None, close: bool,
    durability: Durability | None, options: Options,
) -> Append:  # fmt: skip
    """The request that appends ``raw``, the stored form for streams of ``content_type``. Raises what it deserves."""
    if not raw and not close:
        raise InvalidData("an append needs data, unless it closes the stream")
    if producer is not None:
        producer.check()
    if seq is not None and len(seq.encode("utf-8", "surrogatepass")) > SEQ_BYTES_MAX:
        raise InvalidOption(f"a sequence is at most {SEQ_BYTES_MAX} bytes, not {len(seq)} characters")
    if durability is None:
        durability = options.durability
    elif durability not in ("sync", "written"):
        raise InvalidOption(f"durability is 'sync' or 'written', not {durability!r}")
    if len(raw) > options.record_bytes_max:
        _check_size(raw, content_type, options)
    return Append(name, raw, producer, seq, close, durability, content_type)


def check_offset(offset: int, limit: int | None) -> None:
    """Raise unless a caller's offset and limit can be meant."""
    if offset < EARLIEST:
        raise InvalidOption(f"an offset is an int from 0 on, NOW or EARLIEST, not {offset!r}")
    if limit is not None and limit < 1:
        raise InvalidOption(f"a limit is 1 byte or more, not {limit}")


def read_chunk(
    read: Read, record_bounds: RecordBounds, name: str, offset: int, limit: int, number: int | None
) -> Chunk | None:
    """A chunk by the engine's ``read``; on JSON streams one of whole messages, longer than ``limit`` if one message is.

    None as soon as ``read`` gives None. Raises :class:`OffsetOutOfRange` for an offset inside a JSON message.
    """
    while True:
        chunk = read(name, offset, limit, number)
        if chunk is None or not chunk.data or not is_json(chunk.content_type):
            return chunk
        try:
            return _messages_from(read, record_bounds, name, chunk, limit, number)
        except OffsetOutOfRange:
            if offset != EARLIEST:
                raise
            # It is never out of range: a trim came between two looks at the stream.


def _messages_from(
    read: Read, record_bounds: RecordBounds, name: str, chunk: Chunk, limit: int, number: int | None
) -> Chunk | None:
    start = record_bounds(name, chunk.offset, number)[0]
    if start != chunk.offset:
        before = read(name, start, chunk.offset - start, number)
        if before is None:
            return None
        if json_mode.page(before.data, len(before.data)) != chunk.offset - start:
            raise OffsetOutOfRange(name, chunk.offset, start, chunk.next_offset)
    return _whole_messages(read, name, chunk, limit, number)


def _whole_messages(
    read: Callable[[str, int, int, int | None], Chunk | None], name: str, chunk: Chunk, limit: int, number: int | None
) -> Chunk | None:
    reach = limit
    while not chunk.up_to_date or len(chunk.data) > limit:
        end = json_mode.page(chunk.data, limit)
        if end:
            whole = end == len(chunk.data)
            return chunk._replace(
                data=chunk.data[:end], next_offset=chunk.offset + end, up_to_date=chunk.up_to_date and whole,
                closed=chunk.closed and whole,
            )  # fmt: skip
        reach *= 2
        longer = read(name, chunk.offset, reach, number)
        if longer is not None and longer.next_offset == chunk.next_offset:
            # The message goes on where bytes can't be read; a part of one is no message. This raises the reason.
            longer = read(name, chunk.next_offset, reach, number)
            if longer is not None:
                longer = longer._replace(data=chunk.data + longer.data, offset=chunk.offset)
        if longer is None:
            return None
        chunk = longer
    return chunk


def check_boundary(read: Read, record_bounds: RecordBounds, name: str, offset: int, number: int | None) -> None:
    """Raise :class:`OffsetOutOfRange` for an offset inside of a JSON message: no stream is cut there. With ``number``,
    another life of the name is :class:`StreamGone`.

    Nothing is read where a record begins, so that a stream can be cut before bytes that are damaged. What was trimmed
    meanwhile is for the commit to judge.
    """
    if record_bounds(name, offset, number)[0] < offset:
        read_chunk(read, record_bounds, name, offset, BOUNDARY_BYTES, number)


def fork_point(
    read: Read, record_bounds: RecordBounds, name: str, anchor: int, sub_offset: int, number: int | None
) -> int:
    """The offset that lies ``sub_offset`` bytes, on JSON streams messages, past ``anchor``: within the first record
    behind it (PROTOCOL.md §4.2). Raises :class:`InvalidOption` if it is not, :class:`OffsetOutOfRange` for an
    anchor to which nothing can be added.
    """
    if not sub_offset:
        check_boundary(read, record_bounds, name, anchor, number)
        return anchor
    end = record_bounds(name, anchor, number)[1]
    chunk = read_chunk(read, record_bounds, name, anchor, max(end - anchor, 1), number)
    assert chunk is not None
    at = 0
    if is_json(chunk.content_type):
        at = json_mode.end_of_message(chunk.data, sub_offset)
    elif sub_offset <= len(chunk.data):
        at = sub_offset
    if not at:
        raise InvalidOption(
            f"stream {name!r}: {sub_offset} past offset {anchor} is beyond the append there, which ends at {end}; "
            "give a smaller sub-offset"
        )
    return anchor + at


def _check_size(raw: bytes, content_type: str | None, options: Options) -> None:
    size = len(raw)
    if content_type is not None and is_json(content_type):
        size -= 1  # the comma behind the last message is the store's
    if size > options.record_bytes_max:
        raise RecordTooLarge(size, options.record_bytes_max)
