"""What both faces do to a caller's values before the engine sees them, and to its answers afterwards.

Law of this room: pure functions; no I/O, no clock, no threads. Here text becomes bytes, JSON becomes its stored form,
and arguments are checked, so that the sync and the asyncio face cannot differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Final

from durable_log.errors import (
    InvalidData,
    InvalidOption,
    InvalidProducer,
    OffsetOutOfRange,
    RecordTooLarge,
    StreamExists,
)
from durable_log.model import (
    EARLIEST,
    EXPIRES_AT_MAX,
    EXPIRES_AT_MIN,
    NOW,
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
from durable_log.protocol.tokens import parse_offset

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
Place = str | os.PathLike[str]
Data = bytes | bytearray | memoryview | str
Read = Callable[[str, int, int, int | None], Chunk | None]
_ITEM: Final = (str, bytes, bytearray, memoryview)
RecordBounds = Callable[[str, int, int | None], tuple[int, int]]
CONTENT_TYPE_BYTES_MAX: Final = 256
TTL_SECONDS_MAX: Final = 2**53
_VALUES: Final = "append_json takes Python values"
_split_many: Final = partial(json_mode.split_many, advice=_VALUES)
BOUNDARY_BYTES: Final = 4096
"""How much is read to see that an offset is one: most messages are shorter."""


def place_and_options(path: Place, options: Options | None) -> tuple[Place, Options]:
    """What ``open`` was given, as the engine takes it. Raises :class:`InvalidOption`."""
    text: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        advice = "; use os.fsdecode(path)" if isinstance(text, bytes) else ""
        raise InvalidOption(f"path is a str or a pathlib.Path, not {text!r:.60}{advice}")
    if not text:
        raise InvalidOption("the path is empty; name the directory of the store, '.' for the current one")
    kind: type = type(options)
    if options is not None and not issubclass(kind, Options):
        raise InvalidOption(f"options is a durable_log.Options, not {options!r:.60}")
    return path, Options() if options is None else options


def stored(data: Data, content_type: str) -> bytes:
    """``data`` as the stream keeps it. Raises :class:`InvalidData`."""
    raw = _raw(data, content_type)
    return json_mode.split(raw, "the data", _VALUES)[0] if is_json(content_type) else raw


def stored_many(items: Iterable[Data], content_type: str) -> bytes:
    """All ``items`` together as the stream keeps them. Raises :class:`InvalidData`."""
    try:
        many: list[Any] = list(items)
    except TypeError as error:
        if isinstance(items, Iterable):
            raise
        raise _no_items(items) from error
    together = _split_many if is_json(content_type) else b"".join
    try:
        return together(many)
    except TypeError:  # not all of them are bytes
        if isinstance(items, _ITEM):
            raise _no_items(items) from None
        return together(_raws(many, content_type))


def _no_items(items: object) -> InvalidData:
    reason = f"append_many takes a list of items, not {type(items).__name__}"
    return InvalidData(reason, advice="use append for one item")


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
        raise _no_data(data, content_type) from error


def _no_data(data: object, content_type: str) -> InvalidData:
    reason = f"data is bytes or str, not {type(data).__name__}"
    if is_json(content_type):
        return InvalidData(reason, advice=_VALUES)
    if isinstance(data, dict | list | tuple | int | float):
        advice = "encode it, or create the stream with content_type='application/json' and use append_json"
        return InvalidData(reason, advice=advice)
    return InvalidData(reason)


def _encoded(text: str, content_type: str) -> bytes:
    if not is_text(content_type):
        advice = "encode the text, or create the stream with content_type='text/plain'"
        raise InvalidData(f"a stream of {content_type!r} takes bytes, not str", advice=advice)
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
    _check_content_type(content_type)
    if ttl is not None and expires_at is not None:
        raise InvalidOption("a stream has a ttl or an expires_at, not both")
    seconds = None if ttl is None else _seconds(ttl)
    config = StreamConfig(content_type, seconds, None if expires_at is None else _moment(expires_at))
    raw = stored(data, content_type) if data else b""
    fork_of, fork_at = fork
    if fork_at is not None:
        check_int("fork_at", fork_at)
        if fork_of is None:
            raise InvalidOption(f"fork_at is {fork_at} but fork_of does not say of which stream; give both")
        if fork_at < 0:
            raise InvalidOption(f"fork_at is an offset from 0 on, not {fork_at}; leave it out to fork at the tail")
    if len(raw) > options.record_bytes_max:
        _check_size(raw, content_type, options)
    return Create(check_name(name), config, raw, closed, fork_of, fork_at)


def _check_content_type(content_type: object) -> None:
    if not isinstance(content_type, str):
        raise InvalidOption(f"content_type is a str such as 'text/plain', not {content_type!r:.60}")
    if not (content_type.isascii() and content_type.isprintable() and 0 < len(content_type) <= CONTENT_TYPE_BYTES_MAX):
        raise InvalidOption(
            f"a content type is 1 to {CONTENT_TYPE_BYTES_MAX} printable ASCII characters, not {content_type[:40]!r}"
        )


def _seconds(ttl: float) -> int:
    with suppress(TypeError):  # a text, a timedelta
        if 0 <= ttl <= TTL_SECONDS_MAX and ttl == int(ttl):
            return int(ttl)
    advice = "; use int(ttl.total_seconds())" if hasattr(ttl, "total_seconds") else ""
    raise InvalidOption(f"a ttl is whole seconds from 0 to 2^53, not {ttl!r:.60}{advice}")


def _moment(expires_at: float | datetime) -> float:
    with suppress(TypeError, ValueError, OverflowError):  # a text, a date; years that local time does not have
        moment = expires_at.timestamp() if isinstance(expires_at, datetime) else expires_at
        if EXPIRES_AT_MIN <= moment <= EXPIRES_AT_MAX:
            return moment
    raise InvalidOption(
        f"expires_at is seconds since the epoch or a datetime, in the years 1 to 9999 of UTC, not {expires_at!r:.60}"
    )


def append_request(
    name: str, raw: bytes, content_type: str | None, producer: Producer | None, seq: str | None, close: bool,
    durability: Durability | None, options: Options,
) -> Append:  # fmt: skip
    """The request that appends ``raw``, the stored form for streams of ``content_type``. Raises what it deserves."""
    if not raw and not close:
        advice = "leave out what is empty, such as empty tokens"
        raise InvalidData(f"stream {name!r}: an append needs data, unless it closes the stream", advice=advice)
    if producer is not None:
        try:
            producer.check()
        except AttributeError:
            reason = f"producer is a durable_log.Producer(id, epoch, seq), not {producer!r:.60}"
            raise InvalidProducer(reason) from None
    if seq is not None:
        _check_seq(seq)
    if durability is None:
        durability = options.durability
    elif durability not in ("sync", "written"):
        raise InvalidOption(f"durability is 'sync' or 'written', not {durability!r}")
    if len(raw) > options.record_bytes_max:
        _check_size(raw, content_type, options)
    return Append(name, raw, producer, seq, close, durability, content_type)


def _check_seq(seq: str) -> None:
    if not isinstance(seq, str):
        raise InvalidOption(f"seq is a str, as sequences compare byte by byte, not {seq!r:.60}")
    if len(seq.encode("utf-8", "surrogatepass")) > SEQ_BYTES_MAX:
        raise InvalidOption(f"a sequence is at most {SEQ_BYTES_MAX} bytes, not {len(seq)} characters")


def check_offset(offset: int, limit: int | None = None) -> None:
    """Raise :class:`InvalidOption` unless a caller's offset and limit can be meant."""
    if type(offset) is not int:
        check_int("offset", offset)
    if offset < EARLIEST:
        raise InvalidOption(f"an offset is an int from 0 on, NOW or EARLIEST, not {offset!r}")
    if limit is not None:
        check_int("limit", limit)
        if limit < 1:
            raise InvalidOption(f"a limit is 1 byte or more, not {limit}")


def check_int(what: str, value: object) -> None:
    """Raise :class:`InvalidOption` unless the value of an argument of that name is a whole number."""
    if hasattr(type(value), "__index__"):
        return
    advice = "use Chunk.next_offset or another offset that the store gave you"
    if what == "limit":
        raise InvalidOption(f"limit is an int of bytes, not {value!r:.60}")
    if isinstance(value, str) and (offset := parse_offset(value)) is not None:
        meant = {EARLIEST: "durable_log.EARLIEST", NOW: "durable_log.NOW"}.get(offset, f"the last 16 digits, {offset}")
        advice = f"that is an offset token of the HTTP protocol: in Python it is {meant}"
    raise InvalidOption(f"{what} is an int, not {value!r:.60}; {advice}")


def check_wait(offset: int, timeout: float | None) -> float | None:
    """The timeout in seconds. Raises :class:`InvalidOption` unless a caller can wait beyond that offset for so long."""
    check_offset(offset)
    if timeout is None or hasattr(type(timeout), "__float__"):
        return None if timeout is None else float(timeout)
    raise InvalidOption(f"timeout is seconds, or None to wait for as long as it takes, not {timeout!r:.60}")


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
