"""The values that all rooms share.

Law of this room: immutable values and nothing else. No I/O, no clock, no threads, no state; checks here are of a
value's own shape only. Values on the path of every append are named tuples, because they are made there by the
hundred thousand a second. Any thread may use anything here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from functools import lru_cache
from struct import Struct
from typing import Any, Final, Literal, NamedTuple

from durable_log._core import ffi, lib
from durable_log.errors import InvalidData, InvalidName, InvalidOption, InvalidProducer

START: Final = 0
"""The offset of a stream's first byte."""

NOW: Final = -1
"""In place of an offset: the tail at the moment of the call."""

EXPIRES_AT_MIN: Final = datetime(1, 1, 1, tzinfo=timezone.utc).timestamp()
EXPIRES_AT_MAX: Final = datetime(9999, 12, 31, 23, 59, 59, 999_000, timezone.utc).timestamp()
"""The first and the last time at which a stream may expire: what a timestamp with milliseconds can say."""

CHUNK_BYTES_MIN: Final = 4
"""A read of this many bytes always holds one whole UTF-8 character or shows that there is none."""

NAME_BYTES_MAX: Final = 1024
SEQ_BYTES_MAX: Final = 1024
PRODUCER_INT_MAX: Final = 2**53 - 1
"""Epochs and sequence numbers stay exact in JavaScript (PROTOCOL.md §5.2.1)."""

EARLIEST: Final = -2
"""In place of an offset: the oldest byte that is still there."""

CONTENT_TYPE_DEFAULT: Final = "application/octet-stream"

Durability = Literal["sync", "written"]

_LAYOUT_MESSAGES: Final = 1024
"""So many messages are cut out of a chunk in one step of the ``struct`` module, the one loop in C that makes bytes."""
_LAYOUT_BYTES: Final = _LAYOUT_MESSAGES * lib.DL_JSON_FORMAT


@lru_cache(maxsize=1024)
def media_type(content_type: str) -> str:
    """The type without its parameters, in lower case: how content types compare (PROTOCOL.md §5.2)."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(maxsize=1024)
def is_json(content_type: str) -> bool:
    """Whether streams of this type are in JSON mode (PROTOCOL.md §9.1)."""
    return media_type(content_type) == "application/json"


@lru_cache(maxsize=1024)
def is_text(content_type: str) -> bool:
    """Whether the bytes are UTF-8 text that SSE may carry as it is (PROTOCOL.md §5.8)."""
    return is_json(content_type) or media_type(content_type).startswith("text/")


def check_name(name: str) -> str:
    """The name itself, if a stream can have it. Raises :class:`InvalidName`."""
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidName(f"{name!r} is not valid Unicode") from error
    except AttributeError:
        raise InvalidName(f"a name is a str, not {name!r:.60}") from None
    if not 1 <= size <= NAME_BYTES_MAX:
        raise InvalidName(f"a name of {size} bytes was given")
    return name


class Producer(NamedTuple):
    """An idempotent producer's claim on one append (PROTOCOL.md §5.2.1).

    ``seq`` starts at 0 with each ``epoch`` and grows by one an append; sending the same pair again is safe.
    """

    id: str
    epoch: int
    seq: int

    def check(self) -> None:
        """Raise :class:`InvalidProducer` unless the claim has a valid shape."""
        if not isinstance(self.id, str):
            raise InvalidProducer(f"a producer id is a str, not {self.id!r:.60}")
        if not self.id or len(self.id.encode("utf-8", "surrogatepass")) > NAME_BYTES_MAX:
            raise InvalidProducer(f"a producer id is 1 to {NAME_BYTES_MAX} bytes, not {self.id[:40]!r}")
        for what, value in (("epoch", self.epoch), ("sequence", self.seq)):
            if type(value) is not int or not 0 <= value <= PRODUCER_INT_MAX:
                raise InvalidProducer(f"a producer's {what} is an int from 0 to 2^53-1, not {value!r}")


class Appended(NamedTuple):
    """What became of an append: its bytes are ``offset`` to ``next_offset``, durable at the asked level.

    A ``duplicate`` was stored earlier, by the same producer; its offsets are then those of the tail.
    ``closed``: the stream is closed now. ``producer_seq``: the highest sequence accepted of that producer.
    """

    offset: int
    next_offset: int
    duplicate: bool = False
    closed: bool = False
    producer_seq: int | None = None


class Created(NamedTuple):
    """What became of a create: ``existed`` when the stream was there already with the same configuration.

    ``next_offset``, ``closed`` and ``content_type`` are the stream's, not the request's.
    """

    existed: bool
    next_offset: int
    closed: bool
    content_type: str = CONTENT_TYPE_DEFAULT


class Chunk(NamedTuple):
    """Bytes of a stream: ``offset`` to ``next_offset``, all of them durable.

    ``up_to_date``: it ends at the tail. ``closed``: it ends at the tail of a closed stream, so nothing follows.
    On JSON streams ``data`` is the messages, each followed by a comma; ``messages`` are their bytes, one by one, and
    ``items`` is what they mean.
    """

    data: bytes
    offset: int
    next_offset: int
    up_to_date: bool
    closed: bool
    content_type: str = CONTENT_TYPE_DEFAULT

    @property
    def items(self) -> list[Any]:
        """The messages of a JSON stream, parsed. Raises ``TypeError`` on other streams.

        JSON has integers of any length, and whoever writes may send one; Python converts 4,300 digits unless
        ``sys.set_int_max_str_digits`` says otherwise. A longer one raises :class:`InvalidData`, whose ``position`` is
        the offset of its message: where writers are not trusted, parse each of ``messages`` by itself.
        """
        self._check_json("items")
        try:
            parsed: list[Any] = json.loads(b"[" + self.data[:-1] + b"]")
        except ValueError as error:
            raise self._refused(error) from error
        return parsed

    def _refused(self, error: ValueError) -> InvalidData:
        """What to raise for the first message that ``json`` refuses."""
        at = self.offset
        for message in self.messages:
            try:
                json.loads(message)
            except ValueError:
                break
            at += len(message) + 1
        reason = f"json.loads refuses what is stored ({str(error).partition(':')[0]}), in the message that begins"
        return InvalidData(reason, at, "parse each of the chunk's messages by itself")

    @property
    def messages(self) -> list[bytes]:
        """The messages of a JSON stream, each in the bytes that it came in. Raises ``TypeError`` on other streams."""
        self._check_json("messages")
        data, length, at = ffi.from_buffer("uint8_t[]", self.data), len(self.data), 0
        layout, end, found = ffi.new("uint8_t[]", _LAYOUT_BYTES), ffi.new("size_t *"), list[bytes]()
        while at < length:
            used = lib.dl_json_format(data + at, length - at, _LAYOUT_MESSAGES, layout, end)
            if not used:
                raise ValueError(f"the data does not end with a whole message; the last one begins at byte {at}")
            found += Struct(ffi.buffer(layout)[:used]).unpack_from(self.data, at)
            at += end[0]
        return found

    def _check_json(self, what: str) -> None:
        if not is_json(self.content_type):
            raise TypeError(f"{what} needs a JSON stream; this one holds {self.content_type!r}: use data")

    @property
    def text(self) -> str:
        """The bytes as UTF-8 text; what is no valid UTF-8 is replaced.

        That includes a character that ends in the next chunk, as chunks end at ``limit`` or ``chunk_bytes_max`` bytes:
        decode longer text from the ``data`` of all its chunks.
        """
        return self.data.decode("utf-8", "replace")


class StreamInfo(NamedTuple):
    """A stream at one moment. ``tail`` counts durable bytes only; times are seconds since the epoch.

    ``ttl`` is the sliding window in seconds, ``expires_at`` the fixed end; ``number`` identifies this life of the
    name: a stream that is deleted and created again has another. ``fork_of`` and
    ``fork_at`` say where a fork left its source; ``first`` is the oldest byte that was not trimmed.
    """

    name: str
    number: int
    content_type: str
    tail: int
    closed: bool
    ttl: int | None
    expires_at: float | None
    created_at: float
    first: int = 0
    fork_of: str | None = None
    fork_at: int | None = None


class Change(NamedTuple):
    """What a commit made of one life of a stream: its durable ``tail``, whether it is new, whether it is gone.

    ``base`` is the offset that it began at: that of its source at which it was forked, or 0.
    """

    name: str
    number: int
    base: int
    tail: int
    created: bool
    gone: bool


class Backup(NamedTuple):
    """What became of a backup: how many files share their bytes with the store's, how many were copied, how many bytes
    that was, and how many streams it holds.
    """

    files_linked: int
    files_copied: int
    bytes_copied: int
    streams: int


class StreamConfig(NamedTuple):
    """What a stream is created with, and what an idempotent create compares."""

    content_type: str = CONTENT_TYPE_DEFAULT
    ttl: int | None = None
    expires_at: float | None = None


class Create(NamedTuple):
    """Request: create ``name``, with ``data`` (already in stored form) as its first record, if there is any.

    With ``fork_of``, it begins with the bytes of that stream up to ``fork_at``, or up to its tail if that is None.
    Its content type is that of the source, and so is an expiry that is not given (PROTOCOL.md §4.2). With
    ``fork_number``, it forks only that life of ``fork_of`` in which ``fork_at`` was looked up; 0 if it had none.
    """

    name: str
    config: StreamConfig
    data: bytes = b""
    closed: bool = False
    fork_of: str | None = None
    fork_at: int | None = None
    fork_number: int | None = None


class Append(NamedTuple):
    """Request: append ``data`` (already in stored form) to ``name``; ``close`` ends the stream with it.

    ``content_type`` of the data is compared with the stream's unless it is None or there is no data.
    """

    name: str
    data: bytes
    producer: Producer | None = None
    seq: str | None = None
    close: bool = False
    durability: Durability = "sync"
    content_type: str | None = None


class Delete(NamedTuple):
    """Request: delete ``name``; with ``expired``, only that life of it that has ``number``, and only if it is over."""

    name: str
    number: int | None = None
    expired: bool = False


class Trim(NamedTuple):
    """Request: give up the bytes of ``name`` before offset ``before``; with ``number``, only of that life of it."""

    name: str
    before: int
    number: int | None = None


Request = Create | Append | Delete | Trim


@dataclass(frozen=True, slots=True)
class Options:
    """How a store runs. Sizes in bytes, times in seconds.

    ``segment_bytes``: a full log segment. ``record_bytes_max``: the largest append. In the log one checksum covers a
    record, so until it is clustered each read of a piece of it, such as an SSE event, verifies the whole: of 16 MiB in
    pieces of 256 KiB, that takes some milliseconds a piece, and a tenth of one afterwards. ``chunk_bytes_max``: the
    most that one read returns. ``staged_bytes_max``: appends wait beyond this much unwritten data.
    ``recent_bytes_max``: the last bytes of active streams that stay in memory, ``stream_recent_bytes_max`` of any one.
    ``durability``: what appends get that do not say. ``preallocate``: keep zero-written spare segments.
    ``sweep_seconds``: how often expired streams are looked for. ``cluster_segments``: how many log segments are
    clustered in one pass, or fewer after ``cluster_seconds``. ``cluster_at_close``: closing the store clusters what it
    wrote, so that opening it replays nothing; without, closing is quick and opening reads the log.
    ``log_bytes_max``: if more of the log than that waits to be clustered, appends are slowed down to its pace.
    """

    segment_bytes: int = 64 * 2**20
    record_bytes_max: int = 16 * 2**20
    chunk_bytes_max: int = 4 * 2**20
    staged_bytes_max: int = 64 * 2**20
    recent_bytes_max: int = 64 * 2**20
    stream_recent_bytes_max: int = 256 * 2**10
    durability: Durability = "sync"
    preallocate: bool = True
    sweep_seconds: float = 1.0
    cluster_segments: int = 8
    cluster_seconds: float = 60.0
    cluster_at_close: bool = True
    log_bytes_max: int = 4 * 2**30

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.segment_bytes % 4096 or not 64 * 2**10 <= self.segment_bytes <= 2**30:
            raise InvalidOption(f"segment_bytes is a multiple of 4096 from 64 KiB to 1 GiB, not {self.segment_bytes}")
        limits: Sequence[tuple[str, int, int, int]] = (
            ("record_bytes_max", self.record_bytes_max, 1, self.segment_bytes // 2),
            ("chunk_bytes_max", self.chunk_bytes_max, CHUNK_BYTES_MIN, 2**30),
            ("staged_bytes_max", self.staged_bytes_max, 1, 2**40),
            ("recent_bytes_max", self.recent_bytes_max, 1, 2**40),
            ("stream_recent_bytes_max", self.stream_recent_bytes_max, 1, 2**30),
            ("log_bytes_max", self.log_bytes_max, 1, 2**50),
        )
        for what, value, least, most in limits:
            if not least <= value <= most:
                segments = f"with segments of {self.segment_bytes}"
                raise InvalidOption(f"{what} is {least} to {most} ({segments}), not {value}")
        if self.durability not in ("sync", "written"):
            raise InvalidOption(f"durability is 'sync' or 'written', not {self.durability!r}")
        if not self.sweep_seconds > 0:
            raise InvalidOption(f"sweep_seconds is more than 0, not {self.sweep_seconds}")
        if not self.cluster_segments >= 1:
            raise InvalidOption(f"cluster_segments is 1 or more, not {self.cluster_segments}")
        if not self.cluster_seconds >= 0:
            raise InvalidOption(f"cluster_seconds is 0 or more, not {self.cluster_seconds}")

    def _check_kinds(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(field.default) is int and not isinstance(value, int):
                advice = "; 64 MiB are 64 * 2**20" if isinstance(value, str) else ""
                raise InvalidOption(f"{field.name} is an int, not {value!r:.60}{advice}")
            if type(field.default) is float and not isinstance(value, int | float):
                raise InvalidOption(f"{field.name} is a number of seconds, not {value!r:.60}")
