"""What a holder of a token may do: a line of words, in a file of tokens and in a claim of a JSON Web Token alike.

Law of this room: the only place that knows the grammar, ``[ACTIONS [PATTERN...]]``. A line that is nearly right is
refused, and no message repeats any word of it: in a file with its columns swapped, that would be a token. Pure; any
thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from durable_log.access.hook import Action

ACTIONS: Final[Mapping[str, frozenset[Action]]] = {
    "read": frozenset(("read", "describe")),
    "create": frozenset(("create", "describe")),
    "append": frozenset(("append", "describe")),
    "close": frozenset(("close", "describe")),
    "write": frozenset(("create", "append", "close", "describe")),
    "delete": frozenset(("delete",)),
    "describe": frozenset(("describe",)),
    "control": frozenset(("control",)),
    "metrics": frozenset(("metrics",)),
    "all": frozenset(("create", "append", "close", "read", "describe", "delete", "control", "metrics")),
}
"""The words of a grant, and what they allow."""


class Grant(NamedTuple):
    """Some actions, with streams of some names."""

    actions: frozenset[Action]
    names: re.Pattern[str]

    def allows(self, action: Action, name: str) -> bool:
        """Whether that is one of them; metrics are of no stream."""
        return action in self.actions and (action == "metrics" or self.names.fullmatch(name) is not None)


def grant(words: Sequence[str]) -> Grant:
    """Actions, separated by commas, then patterns of names; everything if there are none. Raises ``ValueError``."""
    allowed, *patterns = words or ["all"]
    actions: set[Action] = set()
    for word in allowed.split(","):
        if word not in ACTIONS:
            raise ValueError(
                f"there is something that is no action; actions are {', '.join(ACTIONS)}, joined by commas"
            )
        actions |= ACTIONS[word]
    return Grant(frozenset(actions), re.compile("|".join(map(_expression, patterns or ["**"])), re.DOTALL))


def allows(grants: Iterable[Grant], action: Action, name: str) -> bool:
    """Whether one of the grants allows that."""
    return any(each.allows(action, name) for each in grants)


def _expression(pattern: str) -> str:
    """``*`` is anything within a segment of a name, ``**`` any number of segments; all else is itself."""
    parts = []
    segments = pattern.split("/")
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        if segment == "**":
            parts.append(".*" if last else "(?:.*/)?")
            continue
        if "**" in segment:
            raise ValueError("in a pattern, ** stands alone between slashes, as in chat/**")
        parts.append("[^/]*".join(map(re.escape, segment.split("*"))) + ("" if last else "/"))
    return "".join(parts)
