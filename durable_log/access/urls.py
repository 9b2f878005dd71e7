"""URLs that allow to read one stream for some time, for those who can't send headers, as ``EventSource`` can't.

Law of this room: a signature is over the stream's name and the time at which it ends, and good for reading alone. Where
a reader is, ``offset``, ``live`` and ``cursor``, is free. Pure but for the clock and a file of secrets; any thread.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import time
from collections.abc import Callable
from typing import Final

from durable_log.access.hook import Allow, Deny, Request
from durable_log.access.watched import Watched
from durable_log.errors import InvalidOption
from durable_log.model import check_name

SECRET_BYTES_MIN: Final = 16
Secrets = tuple[bytes, ...]
_EXPIRES: Final = re.compile(r"[0-9]{1,12}")


class ReadUrls:
    """Signs URLs, and is the hook that allows what they are for.

    ``secret`` signs; ``older`` secrets are still accepted, so that one can be replaced while URLs are about. They are
    16 bytes at least, random ones: ``secrets.token_bytes(32)``. ``clock`` gives seconds since the epoch.
    Raises :class:`InvalidOption` for secrets that are shorter.
    """

    def __init__(self, secret: bytes, *older: bytes, clock: Callable[[], float] = time.time) -> None:
        try:
            known = _checked((secret, *older))
        except ValueError as error:
            raise InvalidOption(str(error)) from None
        self._secrets: Callable[[], Secrets] = lambda: known
        self._clock = clock

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> ReadUrls:
        """Secrets, one a line; the first signs.

        The file is read again when it changes. Raises :class:`InvalidOption` if it can't be read or makes no sense now;
        later, such a file is told to the log, and what it said before goes on to count.
        """
        file = Watched(path, _parsed, secret=True)
        made = cls(*file.value(), clock=clock)
        made._secrets = file.value
        return made

    def sign(self, name: str, *, seconds: float) -> str:
        """The query, ``expires=…&signature=…``, with which anybody may read the stream ``name`` for so long.

        Put it behind the stream's path: ``f"/v1/stream/{quote(name)}?{query}&offset=-1&live=sse"``.
        """
        expires = str(int(self._clock() + seconds))
        return f"expires={expires}&signature={_signature(self._secrets()[0], check_name(name), expires)}"

    def __call__(self, request: Request) -> Allow | Deny:
        """Allow to read what the URL was signed for, until it expires."""
        given, expires = request.query.get("signature"), request.query.get("expires")
        if given is None or expires is None:
            return Deny(401, "this needs a signed URL")
        if request.action not in ("read", "describe") or request.method not in ("GET", "HEAD"):
            return Deny(403, "a signed URL is for reading alone")
        good = _EXPIRES.fullmatch(expires) is not None
        signatures = [_signature(secret, request.name, expires) for secret in self._secrets() if good]
        if True not in [hmac.compare_digest(given.encode(), each.encode()) for each in signatures]:
            return Deny(403, "the signature is not of this URL")
        left = int(expires) - self._clock()
        return Allow(left) if left > 0 else Deny(403, "the URL has expired; ask for a new one")


def _checked(secrets: Secrets) -> Secrets:
    shortest = min(map(len, secrets))
    if shortest < SECRET_BYTES_MIN:
        raise ValueError(f"secrets are {SECRET_BYTES_MIN} bytes at least, not {shortest}")
    return secrets


def _parsed(text: str) -> Secrets:
    """The lines of a file. Raises ``ValueError``."""
    secrets = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
    if not secrets:
        raise ValueError(f"there is no secret in it; write one, {SECRET_BYTES_MIN} random bytes at least, as text")
    return _checked(secrets)


def _signature(secret: bytes, name: str, expires: str) -> str:
    said = f"durable_log read\n{expires}\n{name}".encode()
    return base64.urlsafe_b64encode(hmac.digest(secret, said, "sha256")).rstrip(b"=").decode()
