"""A subscription as records of a stream: what it is at first, then what changes.

Law of this room: pure, and the only place that knows what the records look like. ``begin`` starts a subscription, or
tells it anew as a whole; it counts from the record on that says ``ready``, so that what was broken off never counts.
Its pieces say that they are a ``part``. All other records say what is different from then on. What follows from the
streams themselves is in no record: streams that a pattern matches, and of which nothing was acknowledged, are found
again. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from durable_log._subscriptions.links import Link
from durable_log._subscriptions.machine import State
from durable_log.protocol.subscriptions import Config

Record = dict[str, Any]

LINKS_PER_RECORD: Final = 1_000


class Identity(NamedTuple):
    """What never changes. ``life`` tells subscriptions apart that had the same id one after the other; ``base`` is the
    address of the control API that its creator used.
    """

    id: str
    life: str
    created_ms: int
    base: str
    config: Config


class Stored(NamedTuple):
    """A subscription as its records tell it. Links of streams that only the pattern brought are not all there."""

    identity: Identity
    state: State
    links: dict[str, Link]


def whole(stored: Stored) -> Iterator[Record]:
    """All of a subscription, in pieces."""
    identity = stored.identity
    yield {"part": True, "begin": {**identity._asdict(), "config": identity.config._asdict()}}
    links = iter(stored.links.items())
    while piece := dict(islice(links, LINKS_PER_RECORD)):
        yield {"part": True, "links": {path: _link(link) for path, link in piece.items()}}
    yield {"part": True, "state": changed(State(), stored.state), "ready": True}


def difference(old: State, new: State, links: Mapping[str, Link | None]) -> Record:
    """What has changed; empty if nothing has. A link that is None is gone."""
    record: Record = {}
    if links:
        record["links"] = {path: None if link is None else _link(link) for path, link in links.items()}
    state = changed(old, new)
    if state:
        record["state"] = state
    return record


def changed(old: State, new: State) -> Record:
    """The fields that differ."""
    return {field: value for field, value in new._asdict().items() if value != getattr(old, field)}


def fold(records: Iterable[Record]) -> Stored | None:
    """What the records tell; None if they tell of none that is whole."""
    stored: Stored | None = None
    telling: Stored | None = None
    for record in records:
        if "part" not in record:
            if stored is None:
                raise ValueError("it begins in the middle")
            stored = _changed_by(stored, record)
            continue
        if "begin" in record:
            telling = Stored(_identity(record["begin"]), State(), {})
        if telling is not None:
            telling = _changed_by(telling, record)
            if "ready" in record:
                stored, telling = telling, None
    return stored


def _changed_by(stored: Stored, record: Record) -> Stored:
    links = stored.links
    for path, link in record.get("links", {}).items():
        if link is None:
            links.pop(path, None)
        else:
            number, acked, explicit, globbed = link
            links[path] = Link(number, acked, bool(explicit), bool(globbed))
    return stored._replace(state=_state(stored.state, record.get("state", {})))


def _link(link: Link) -> list[int]:
    return [link.number, link.acked, int(link.explicit), int(link.globbed)]


def _identity(given: Record) -> Identity:
    config = given["config"]
    return Identity(**{**given, "config": Config(**{**config, "streams": tuple(config["streams"])})})


def _state(state: State, changes: Record) -> State:
    if "tails" in changes:
        changes = {**changes, "tails": {path: (number, tail) for path, (number, tail) in changes["tails"].items()}}
    return state._replace(**changes)
