"""How long the body of a request is said to be, and the answers to one that is not.

Law of this room: numbers and refusals; whoever reads a body counts it. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from durable_log.protocol.refusal import Refusal

LENGTH_DIGITS_MAX: Final = 20


def declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """What ``Content-Length`` says, in bytes; 0 if it says nothing, as chunked bodies do."""
    for key, value in headers:
        if key == b"content-length":
            if len(value) > LENGTH_DIGITS_MAX:
                raise Refusal(400, "invalid_header", f"Content-Length has at most {LENGTH_DIGITS_MAX} digits")
            return int(value) if value.isdigit() else 0
    return 0


def incomplete(missing: int) -> Refusal:
    """The answer to a body that ended before its declared length."""
    return Refusal(400, "incomplete_body", f"the body ended {missing} bytes before its declared length")


def too_large(limit: int) -> Refusal:
    """The answer to a body of more than ``limit`` bytes, declared or arriving."""
    return Refusal(
        413, "record_too_large", f"the body is over the limit of {limit} bytes; split it into several appends"
    )
