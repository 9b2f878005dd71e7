"""What schemathesis loads before it makes requests (SCHEMATHESIS_HOOKS): they have to meet something, and to end."""

from __future__ import annotations

from typing import Any

import schemathesis

STREAMS = ("text", "messages", "bytes")
KNOWN = {
    "name": STREAMS,
    "id": ("digest",),
    "Stream-Forked-From": tuple(f"/v1/stream/{name}" for name in STREAMS),
    "Producer-Id": ("one", "other"),
}
"""Every other request is about one of these, by the length of what was made up: the document allows far more."""


def _meeting(made_up: dict[str, Any] | None) -> dict[str, Any] | None:
    for key, known in KNOWN.items():
        size = len(str((made_up or {}).get(key, "")))
        if made_up and size % 2:
            made_up[key] = known[size // 2 % len(known)]
    return made_up


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    return _meeting(path_parameters)


@schemathesis.hook
def map_headers(context: Any, headers: dict[str, Any] | None) -> dict[str, Any] | None:
    return _meeting(headers)


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """An event stream lasts a minute."""
    if query and query.get("live") == "sse":
        query["live"] = "long-poll"
    return query
