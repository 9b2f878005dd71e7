"""Which pages of other origins may use the streams in a browser.

Law of this room: every header of CORS is made here. An origin is never reflected unless it was named, so credentials
never go to just anybody. Pure; any thread.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from durable_log.errors import InvalidOption

Header = tuple[bytes, bytes]

PREFLIGHT_SECONDS: Final = 86400

_EXPOSED: Final = (
    "ETag, Location, Stream-Next-Offset, Stream-Up-To-Date, Stream-Closed, Stream-Cursor, Stream-TTL, "
    "Stream-Expires-At, Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, Producer-Expected-Seq, "
    "Producer-Received-Seq, Retry-After, WWW-Authenticate"
)
_ALLOWED: Final = (
    "Authorization, Content-Type, If-None-Match, Cache-Control, Last-Event-ID, Stream-Seq, Stream-TTL, "
    "Stream-Expires-At, Stream-Closed, Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset, "
    "Producer-Id, Producer-Epoch, Producer-Seq"
)


class Cors(NamedTuple):
    """``origins``: those whose pages may use the streams, such as ``https://app.example``; ``("*",)`` is all of them.

    ``credentials``: whether pages may have browsers send cookies along. ``Authorization`` may be sent without it.
    """

    origins: tuple[str, ...] = ("*",)
    credentials: bool = False

    def check(self) -> None:
        """Raise :class:`InvalidOption` for what browsers would not understand."""
        if not self.origins:
            raise InvalidOption("Cors needs an origin at least; None instead of it is for no other origin")
        for origin in self.origins:
            if origin != "*" and (not origin.isascii() or origin.count("/") != 2 or "://" not in origin):
                raise InvalidOption(f"an origin is scheme://host[:port] without a path, unlike {origin!r}")
        if "*" in self.origins and (self.credentials or len(self.origins) > 1):
            raise InvalidOption("'*' is all origins: it stands alone, and excludes credentials; name the origins")

    def of_all(self) -> list[Header]:
        """What is in every response."""
        headers: list[Header] = [
            (b"cross-origin-resource-policy", b"cross-origin"),
            (b"access-control-expose-headers", _EXPOSED.encode()),
        ]
        headers.append((b"access-control-allow-origin", b"*") if "*" in self.origins else (b"vary", b"origin"))
        return headers

    def of_preflight(self, methods: bytes) -> list[Header]:
        """What is in the response to a preflight besides."""
        return [
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", _ALLOWED.encode()),
            (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
        ]

    def of_origin(self, origin: bytes) -> list[Header]:
        """What is in a response to a page of ``origin`` besides; nothing if it may not read that."""
        if "*" in self.origins or origin.decode("latin-1") not in self.origins:
            return []
        allowed = [(b"access-control-allow-origin", origin)]
        return [*allowed, (b"access-control-allow-credentials", b"true")] if self.credentials else allowed
