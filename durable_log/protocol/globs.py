"""Patterns over stream paths (PROTOCOL.md §6.2).

Law of this room: the only place that knows what a pattern means. ``*`` is one segment, ``**`` any number of them, none
included; a segment is what lies between slashes, and a star beside other characters is refused, as nobody can mean it.
Matching takes time proportional to the segments of both. Pure; any thread.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from durable_log.protocol.names import is_reserved

ONE: Final = "*"
ANY: Final = "**"


class Glob(NamedTuple):
    """A pattern, by segments. ``prefix`` begins the name of every stream that matches."""

    segments: tuple[str, ...]
    prefix: str

    def matches(self, path: str) -> bool:
        """Whether a stream of that name is meant. What is reserved never is."""
        if not path.startswith(self.prefix) or is_reserved(path):
            return False
        return _match(self.segments, path.split("/"))


def parse_glob(pattern: str) -> Glob:
    """The pattern that a text stands for. Raises ``ValueError`` for a star within a segment."""
    segments: list[str] = []
    for segment in pattern.split("/"):
        if "*" in segment and segment not in (ONE, ANY):
            raise ValueError(f"in {segment[:80]!r} a star is part of a segment; * and ** stand for whole ones")
        if segment != ANY or segments[-1:] != [ANY]:
            segments.append(segment)
    literal = 0
    while literal < len(segments) and segments[literal] not in (ONE, ANY):
        literal += 1
    prefix = "/".join(segments[:literal])
    if literal < len(segments) and prefix and segments[literal] == ONE:
        prefix += "/"
    return Glob(tuple(segments), prefix)


def _match(pattern: tuple[str, ...], path: list[str]) -> bool:
    """Go on from the last ``**`` when the rest does not fit: what lies before it never has to be tried again."""
    at = where = 0
    resume, tried = -1, 0
    while where < len(path):
        segment = pattern[at] if at < len(pattern) else None
        if segment == ANY:
            resume, tried = at + 1, where
            at += 1
        elif segment is not None and (segment == path[where] or (segment == ONE and path[where])):
            at, where = at + 1, where + 1
        elif resume < 0:
            return False
        else:
            tried += 1
            at, where = resume, tried
    return all(segment == ANY for segment in pattern[at:])
