"""Chains of forks, and who is still there of them."""

from __future__ import annotations

from typing import Any

from durable_log.errors import StreamGone, StreamNotFound


def chain(store: Any, depth: int) -> list[Any]:
    """Streams "0" to ``depth``, each a fork of the one before it, each with its own digit at the end."""
    streams = [store.create("0", content_type="text/plain", data="0")]
    for level in range(1, depth + 1):
        fork = store.create(str(level), fork_of=str(level - 1))
        fork.append(str(level))
        streams.append(fork)
    return streams


def forks_of(store: Any, name: str) -> int:
    state = store.engine._catalog.get(name)
    return 0 if state is None else int(state.forks)


def is_kept(store: Any, name: str) -> bool:
    """Whether a deleted stream is still there for its forks; one that is not is as if it had never been."""
    try:
        store.stream(name).info()
    except StreamGone:
        return True
    except StreamNotFound:
        return False
    raise AssertionError(f"{name} is not deleted")
