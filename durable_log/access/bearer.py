"""Tokens in a file.

Law of this room: tokens are kept as keyed hashes, whose key no other process knows; they are looked up by that, so how
long a look-up takes says nothing about any token. Any thread.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from itertools import takewhile
from typing import Final

from durable_log.access.grants import Grant, allows, grant
from durable_log.access.hook import Allow, Deny, Request
from durable_log.access.watched import Watched

NO_TOKEN: Final = Deny(401, "this needs a token, sent as Authorization: Bearer TOKEN")
UNKNOWN_TOKEN: Final = Deny(401, "the token is not valid here, or not any more", 'Bearer error="invalid_token"')

_Known = dict[bytes, tuple[Grant, ...]]


def token_of(request: Request) -> str | None:
    """The token of an ``Authorization: Bearer``, or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip(" ") or None if scheme.lower() == "bearer" else None


def not_granted(request: Request) -> Deny:
    """The answer to a token that is good, but not for this."""
    return Deny(403, f"the token does not allow this: {request.action} {request.name!r}")


class BearerTokens:
    """A hook that knows tokens from a file; see :meth:`from_file`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._key = os.urandom(32)
        self._file = Watched(path, self._parse, secret=True)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> BearerTokens:
        """Tokens of printable ASCII, one a line: ``TOKEN [ACTIONS [PATTERN...]]``; a word that begins with ``#`` begins
        a comment.

        The file is read again when it changes. Raises :class:`InvalidOption` if it can't be read or makes no sense now;
        later, such a file is told to the log, and what it said before goes on to count.
        """
        return cls(path)

    def __call__(self, request: Request) -> Allow | Deny:
        """Allow what the token is good for."""
        token = token_of(request)
        if token is None:
            return NO_TOKEN
        grants = self._file.value().get(self._hash(token))
        if grants is None:
            return UNKNOWN_TOKEN
        return Allow() if allows(grants, request.action, request.name) else not_granted(request)

    def _hash(self, token: str) -> bytes:
        return blake2b(token.encode(), key=self._key, digest_size=32).digest()

    def _parse(self, text: str) -> _Known:
        if not text.endswith("\n"):
            raise ValueError("the last line has no end; it may not be written yet")
        known: _Known = {}
        for number, line in enumerate(text.split("\n"), 1):
            words = list(takewhile(lambda word: not word.startswith("#"), line.split()))
            if words:
                try:
                    hashed = self._hash(_sendable(words[0]))
                    known[hashed] = (*known.get(hashed, ()), grant(words[1:]))
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
        if not known:
            raise ValueError("there is no token in it, so nobody could do anything")
        return known


def _sendable(token: str) -> str:
    """The token itself, if clients can send it in a header so that it is the same here. Raises ``ValueError``."""
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token is not all printable ASCII, so no request could match it; make another one")
    return token
