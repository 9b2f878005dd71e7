"""Stored bytes and names as text for people and pipes.

Law of this room: pure functions of bytes and strings. Whatever a stream or its name holds, a plain listing has one line
for it and no control character reaches the terminal by a name. Any thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import cast

from durable_log.model import is_json, is_text
from durable_log.protocol import json_mode


def printable(name: str) -> str:
    """A name on one line, with its control characters as Python escapes."""
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def readable(data: bytes, content_type: str) -> bytes:
    """What ``cat`` shows of stored bytes: as they are, JSON messages one a line."""
    return b"".join(json_lines(data)) if is_json(content_type) else data


def json_lines(stored: bytes) -> Iterator[bytes]:
    """Each message of a JSON stream in the bytes that it came in, on a line of its own."""
    view, start = memoryview(stored), 0
    while start < len(stored):
        end = start + json_mode.page(cast("bytes", view[start:]), 1)
        if end == start:
            return
        # Line ends inside of JSON text can only be white space between tokens.
        yield stored[start : end - 1].replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
        start = end


def last_lines(lines: Iterable[bytes], count: int) -> list[bytes]:
    """The last lines that together have ``count`` bytes or just more."""
    kept, size = deque[bytes](), 0
    for line in lines:
        kept.append(line)
        size += len(line)
        while size - len(kept[0]) >= count:
            size -= len(kept.popleft())
            if not kept:
                break
    return list(kept)


def whole_characters(data: bytes, content_type: str) -> bytes:
    """``data`` less the end of a UTF-8 character that it begins with, if it is text."""
    start = 0
    while is_text(content_type) and start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]
