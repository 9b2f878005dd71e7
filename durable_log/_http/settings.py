"""What the settings of an application may be, of ASGI and WSGI alike.

Law of this room: it refuses what cannot be meant, by the setting's name, before anything is served. Pure.
"""

from __future__ import annotations

from durable_log.access.hook import Authorize
from durable_log.errors import InvalidOption
from durable_log.protocol.cors import Cors
from durable_log.protocol.response import CacheScope, Responses


def check_seconds(gap_seconds: float, **positive: float) -> None:
    """Raises :class:`InvalidOption` for a time that is not positive; that of a gap may be 0."""
    for name, seconds in positive.items():
        if not seconds > 0:
            raise InvalidOption(f"{name} is more than 0, not {seconds}")
    if not gap_seconds >= 0:
        raise InvalidOption(f"gap_seconds is 0 or more, not {gap_seconds}")


def responses(prefix: str, authorize: Authorize | None, cache_control: CacheScope, cors: Cors | None) -> Responses:
    """Responses as the settings want them. Raises :class:`InvalidOption` for a prefix that does not begin with a slash,
    for origins that are none, and for public caching of what ``authorize`` guards.
    """
    if prefix and not prefix.startswith("/"):
        raise InvalidOption(f"a prefix begins with a slash, unlike {prefix!r}")
    if cache_control not in ("public", "private"):
        raise InvalidOption(f"cache_control is 'public' or 'private', not {cache_control!r}")
    if authorize is not None and cache_control == "public":
        raise InvalidOption("with cache_control='public', caches would give to all what authorize allows to some")
    if cors is not None:
        cors.check()
    return Responses(cors=cors, cache=cache_control if authorize is None else None)
