"""From paths of URLs to names of streams.

Law of this room: the only place that knows which paths are streams, be it the path of a request or one in a header.
Percent-encoding is decoded once and strictly; what is nearly right is refused, never guessed at. Pure; any thread.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from durable_log.errors import InvalidName
from durable_log.model import check_name
from durable_log.protocol.refusal import Refusal

RESERVED_SEGMENT: Final = "__ds"
"""No stream has this first path segment: it belongs to the control APIs (PROTOCOL.md §6)."""

PATHS_KEPT: Final = 4096
"""So many paths are not looked at again: producers come back with each token."""

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Mount(NamedTuple):
    """Where the streams of an application are: at ``root`` + ``prefix`` + ``/<name>``, all decoded. ``root`` is where
    others have mounted it, ``prefix`` what it adds by itself.

    ``inner``: the end of ``root`` that every path begins with which does not begin with all of it; None if that is not
    known. A proxy may have taken the rest off, and the framework behind it mounts by what is left.
    """

    root: str = ""
    prefix: str = ""
    inner: str | None = None

    @classmethod
    def below(cls, outer: str | None, root: str, prefix: str) -> Mount:
        """The mount point of an application that was mounted at ``root`` by somebody who was at ``outer`` himself; None
        if nobody tells.
        """
        inner = None if outer is None else _below(root, outer)
        return cls(root, prefix) if outer is None or inner is None else cls(outer.rstrip("/") + inner, prefix, inner)

    @property
    def path(self) -> str:
        """What the paths of all streams begin with, for clients."""
        return self.root.rstrip("/") + self.prefix.rstrip("/")


UNMOUNTED: Final = Mount()


def is_reserved(name: str) -> bool:
    """Whether a path below the mount point belongs to the control APIs."""
    return name == RESERVED_SEGMENT or name.startswith(f"{RESERVED_SEGMENT}/")


def relative_path(path: bytes, mount: Mount) -> str:
    """What follows the mount point in a percent-encoded path, decoded, without the slash before it.

    Servers differ in whether ``path`` still begins with ``mount.root``, and both are understood. So is what begins with
    ``mount.inner``; where that is known, nothing else is. Raises :class:`Refusal`: 400 for what is not percent-encoded
    UTF-8, 404 for a path outside the mount point and for one that ends there.
    """
    full = _decode_path(path)
    below = _below(full, mount.root.rstrip("/"))
    if below is None:
        below = full if mount.inner is None else _below(full, mount.inner)
    rest = None if below is None else _below(below, mount.prefix.rstrip("/"))
    if not rest or rest == "/":
        raise Refusal(404, "not_found", f"{full!r} addresses no stream; streams are at {mount.path}/<name>")
    return rest[1:]


class Reserved(Refusal):
    """What a path addresses belongs to the control APIs; ``rest`` is the path below the mount point."""

    def __init__(self, rest: str) -> None:
        super().__init__(404, "reserved", f"paths below {RESERVED_SEGMENT}/ belong to control APIs; no stream is there")
        self.rest = rest


@lru_cache(PATHS_KEPT)
def stream_name(path: bytes, mount: Mount = UNMOUNTED) -> str:
    """The name of the stream that a percent-encoded path addresses below a mount point.

    ``a%2Fb`` and ``a/b`` are one name. Raises :class:`Reserved`, and :class:`Refusal`: as :func:`relative_path`, and
    400 if the name is not 1 to 1,024 bytes.
    """
    name = relative_path(path, mount)
    if is_reserved(name):
        raise Reserved(name)
    try:
        return check_name(name)
    except InvalidName as error:
        raise Refusal(400, error.code, str(error)) from error


def _decode_path(path: bytes) -> str:
    if b"%" in path:
        if _BAD_ESCAPE.search(path):
            raise Refusal(400, "invalid_name", "the path holds a '%' that two hexadecimal digits do not follow")
        path = unquote_to_bytes(path)
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(400, "invalid_name", f"the path is not valid UTF-8 at byte {error.start}") from error


def _below(path: str, parent: str) -> str | None:
    """What follows ``parent`` in ``path``, from the slash on; None if the path is somewhere else."""
    if not path.startswith(parent):
        return None
    rest = path[len(parent) :]
    return rest if not rest or rest[0] == "/" else None
