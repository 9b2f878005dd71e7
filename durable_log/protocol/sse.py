"""Server-sent events: chunks of a stream as events, and where a viewer has got to.

Law of this room: an event's bytes come from here and from nowhere else. Every data event can be read by itself, nothing
in it can be mistaken for the protocol's own lines, and the offset after it names exactly what was sent: bytes that can
only be shown together with bytes that are not there yet (the start of a UTF-8 character, a carriage return that may
have its line feed next) wait for them. Pure; any thread.

Text events carry lines, so CR, CR LF and LF all arrive as one line feed; catch-up reads keep every byte.
"""

from __future__ import annotations

import codecs
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from typing import Final, Literal

from durable_log.model import is_json, is_text
from durable_log.protocol import json_mode
from durable_log.protocol.tokens import offset_token

Encoding = Literal["text", "json", "base64"]

HEARTBEAT: Final = b":\n\n"
"""A comment, which no client sees: it keeps proxies from closing a connection on which nothing happens."""


def encoding(content_type: str) -> Encoding:
    """How a stream's bytes travel in events (PROTOCOL.md §5.8)."""
    if is_json(content_type):
        return "json"
    return "text" if is_text(content_type) else "base64"


def data_event(kind: Encoding, data: bytes, final: bool) -> tuple[bytes, int]:
    """The data event of a chunk and how many of its bytes it carries; no event if it carries none.

    ``final``: nothing can follow ``data``, so nothing of it is held back, and half a character becomes U+FFFD.
    """
    return _ENCODERS[kind](data, final) if data else (b"", 0)


def control_event(offset: int, cursor: int, up_to_date: bool, closed: bool) -> bytes:
    """The control event that follows every data event (PROTOCOL.md §5.8); once closed, it has no cursor."""
    if closed:
        return b'event: control\ndata:{"streamNextOffset":"%b","upToDate":true,"streamClosed":true}\n\n' % (
            offset_token(offset)
        )
    return b'event: control\ndata:{"streamNextOffset":"%b","streamCursor":"%d"%b}\n\n' % (
        offset_token(offset),
        cursor,
        b',"upToDate":true' if up_to_date else b"",
    )


def _event(lines: bytes) -> bytes:
    # Receivers strip one space after the colon, so a line that begins with one is sent with two.
    if lines[:1] == b" " or b"\n " in lines:
        lines = b"\n".join(b" " + line if line[:1] == b" " else line for line in lines.split(b"\n"))
    return b"event: data\ndata:" + lines.replace(b"\n", b"\ndata:") + b"\n\n"


def _one_line_end(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def _text(data: bytes, final: bool) -> tuple[bytes, int]:
    text, taken = codecs.utf_8_decode(data, "replace", final)
    if not final and taken == len(data) and data.endswith(b"\r"):
        text, taken = text[:-1], taken - 1
    return (_event(_one_line_end(text.encode("utf-8"))), taken) if taken else (b"", 0)


def _json(data: bytes, _final: bool) -> tuple[bytes, int]:
    # Raw line ends in JSON text are white space between tokens, where any line end will do.
    return _event(_one_line_end(json_mode.to_array(data))), len(data)


def _base64(data: bytes, _final: bool) -> tuple[bytes, int]:
    return b"event: data\ndata:" + b2a_base64(data, newline=False) + b"\n\n", len(data)


_ENCODERS: Final[Mapping[Encoding, Callable[[bytes, bool], tuple[bytes, int]]]] = {
    "text": _text,
    "json": _json,
    "base64": _base64,
}
