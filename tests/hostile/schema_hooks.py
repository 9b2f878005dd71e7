"""What schemathesis loads before it makes requests (SCHEMATHESIS_HOOKS): they have to meet something, and to end."""

from __future__ import annotations

from typing import Any

import schemathesis

NAMES = {"name": ("text", "messages", "bytes"), "id": ("digest",)}
"""Every other request is about one of these, by the length of the name that was made up."""


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    for key, names in NAMES.items():
        made_up = str((path_parameters or {}).get(key, ""))
        if path_parameters and len(made_up) % 2:
            path_parameters[key] = names[len(made_up) // 2 % len(names)]
    return path_parameters


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """An event stream lasts a minute."""
    if query and query.get("live") == "sse":
        query["live"] = "long-poll"
    return query
