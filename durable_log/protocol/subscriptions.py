"""Requests to the subscription API, and what is answered (PROTOCOL.md §6, §7).

Law of this room: as in ``request``, everything that can be decided about a request without looking at a subscription is
decided here, and every way to refuse one is a :class:`Refusal`. ``parse`` takes the head, the ``to_*`` functions the
body. What a subscription does is not known here. Pure; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple

from durable_log.errors import InvalidName
from durable_log.model import NAME_BYTES_MAX, check_name
from durable_log.protocol.globs import Glob, parse_glob
from durable_log.protocol.names import RESERVED_SEGMENT, is_reserved
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.tokens import offset_token, parse_offset, timestamp

Kind = Literal["webhook", "pull-wake"]
Action = Literal["jwks", "base", "streams", "stream", "callback", "claim", "ack", "release"]
Link = tuple[str, bool, int, int]
"""A stream as clients see it: path, whether it was named, the offset that was acknowledged, the tail."""

BODY_BYTES_MAX: Final = 2**20
ID_BYTES_MAX: Final = 256
TEXT_BYTES_MAX: Final = 4096
LEASE_MS_MIN: Final = 1_000
LEASE_MS_MAX: Final = 600_000
LEASE_MS_DEFAULT: Final = 30_000

_METHODS: Final[Mapping[Action, tuple[str, ...]]] = {
    "jwks": ("GET", "HEAD"),
    "base": ("GET", "HEAD", "PUT", "DELETE"),
    "streams": ("POST",),
    "stream": ("DELETE",),
    "callback": ("POST",),
    "claim": ("POST",),
    "ack": ("POST",),
    "release": ("POST",),
}
_BY_TOKEN: Final = frozenset(("callback", "ack", "release"))
_LAST: Final[Mapping[str, Action]] = {
    "": "base",
    "streams": "streams",
    "callback": "callback",
    "claim": "claim",
    "ack": "ack",
    "release": "release",
}


class Control(NamedTuple):
    """A request to the control API: ``id`` is the subscription's, ``path`` the stream that is to be unlinked, as it
    was written, ``token`` the bearer's where one is needed.
    """

    method: str
    action: Action
    id: str = ""
    path: str = ""
    token: str = ""


class Config(NamedTuple):
    """What a subscription is created with, normalized: equal configurations are equal values."""

    kind: Kind
    pattern: str | None
    streams: tuple[str, ...]
    webhook: str | None
    wake_stream: str | None
    lease_ms: int
    description: str | None

    @property
    def glob(self) -> Glob | None:
        """The pattern, parsed."""
        return None if self.pattern is None else parse_glob(self.pattern)

    @property
    def hash(self) -> str:
        """What tells one configuration from another (PROTOCOL.md §6.2)."""
        return sha256(json.dumps(self._asdict(), sort_keys=True).encode()).hexdigest()


class Ack(NamedTuple):
    """A callback, an ack or a release: by whom, and how far which streams were processed."""

    wake_id: str
    generation: int
    acks: Mapping[str, int] = {}
    done: bool = False


def parse(method: str, rest: str, headers: Iterable[tuple[bytes, bytes]]) -> Control:
    """What a request below ``__ds`` asks for. Raises :class:`Refusal`."""
    parts = rest.split("/", 3)[1:]
    control = None
    if parts == ["jwks.json"]:
        control = Control(method, "jwks")
    elif len(parts) >= 2 and parts[0] == "subscriptions" and parts[1]:
        control = _subscription(method, _text("a subscription's id", parts[1], ID_BYTES_MAX), "/".join(parts[2:]))
    if control is None:
        raise Refusal(404, "reserved", f"there is no such path below {RESERVED_SEGMENT}/, which is reserved")
    allowed = _METHODS[control.action]
    if method not in allowed:
        allow = ", ".join(allowed)
        message = f"{method[:40]!r} is not possible here; use {allow}"
        raise Refusal(405, "method_not_allowed", message, ((b"allow", allow.encode()),))
    if control.action in _BY_TOKEN:
        return control._replace(token=_bearer(headers))
    return control


def _subscription(method: str, name: str, rest: str) -> Control | None:
    action = _LAST.get(rest)
    if action is not None:
        return Control(method, action, name)
    first, _, path = rest.partition("/")
    return Control(method, "stream", name, path) if first == "streams" and path else None


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for key, value in headers:
        if key == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and token:
                return token.strip()
    raise token_invalid("send the token of the wake or of the claim, as Authorization: Bearer <token>")


# --- bodies -----------------------------------------------------------------------------------------------------------


def to_config(body: bytes) -> Config:
    """The configuration that a PUT asks for."""
    given = _object(body)
    kind = given.get("type")
    if kind not in ("webhook", "pull-wake"):
        raise invalid('type is "webhook" or "pull-wake"')
    pattern = given.get("pattern")
    if pattern is not None:
        pattern = _pattern(_text("pattern", pattern, NAME_BYTES_MAX))
    streams = _paths(given.get("streams", []))
    if pattern is None and not streams:
        raise invalid("pattern or streams has to say which streams are meant; give one of them, or both")
    webhook = wake_stream = None
    if kind == "webhook":
        hook = given.get("webhook")
        webhook = _text("webhook.url", hook.get("url") if isinstance(hook, dict) else None, TEXT_BYTES_MAX)
    else:
        wake_stream = _path("wake_stream", given.get("wake_stream"))
        if wake_stream in streams:
            raise wakes_itself(wake_stream)
    lease_ms = given.get("lease_ttl_ms")
    lease_ms = LEASE_MS_DEFAULT if lease_ms is None else lease_ms
    if type(lease_ms) is not int or not LEASE_MS_MIN <= lease_ms <= LEASE_MS_MAX:
        raise invalid(f"lease_ttl_ms is an integer from {LEASE_MS_MIN} to {LEASE_MS_MAX}")
    description = given.get("description")
    if description is not None:
        description = _text("description", description, TEXT_BYTES_MAX, empty=True)
    return Config(kind, pattern, streams, webhook, wake_stream, lease_ms, description)


def to_streams(body: bytes) -> tuple[str, ...]:
    """The streams that are to be linked, sorted, each once."""
    streams = _paths(_object(body).get("streams"))
    if not streams:
        raise invalid("streams is an array of the paths of streams, one at least")
    return streams


def to_worker(body: bytes) -> str:
    """Who claims a subscription."""
    return _text("worker", _object(body).get("worker"), ID_BYTES_MAX)


def to_ack(body: bytes) -> Ack:
    """The body of a callback, an ack or a release."""
    given = _object(body)
    generation = given.get("generation")
    if type(generation) is not int:
        raise invalid("generation is the integer that came with the wake")
    done = given.get("done")
    if done is not None and not isinstance(done, bool):
        raise invalid("done is true or false")
    acks: dict[str, int] = {}
    for each in _array("acks", given.get("acks", [])):
        if not isinstance(each, dict):
            raise invalid("acks is an array of objects with stream and offset")
        path = _name("acks[].stream", each.get("stream", each.get("path")))
        offset = parse_offset(_text("acks[].offset", each.get("offset"), TEXT_BYTES_MAX))
        if offset is None or offset < 0:
            raise invalid_offset(f"{path!r}: an ack names an offset that the server gave you, not one made up")
        acks[path] = max(offset, acks.get(path, 0))
    return Ack(_text("wake_id", given.get("wake_id"), ID_BYTES_MAX), generation, acks, bool(done))


def is_done(body: bytes) -> bool:
    """Whether a webhook's answer says that the wake has been processed. What is no JSON says nothing."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(given, dict) and given.get("done") is True


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid("the body is not valid JSON") from error
    if not isinstance(given, dict):
        raise invalid("the body is a JSON object")
    return given


def _array(what: str, given: object) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise invalid(f"{what} is an array")
    return given


def _text(what: str, given: object, most: int, *, empty: bool = False) -> str:
    if isinstance(given, str) and (given or empty):
        try:
            if len(given.encode("utf-8")) <= most:
                return given
        except UnicodeEncodeError as error:
            raise invalid(f"{what} is not valid Unicode") from error
    raise invalid(f"{what} is text of {0 if empty else 1} to {most} bytes")


def _path(what: str, given: object) -> str:
    """A stream as its path from the root, which clients write with the slash before it, too."""
    return _name(what, given.lstrip("/") if isinstance(given, str) else given)


def _name(what: str, given: object) -> str:
    """A stream that clients were told of: as it is, for ``/x`` and ``x`` are two streams."""
    if not isinstance(given, str):
        raise invalid(f"{what} is the path of a stream")
    if is_reserved(given):
        raise invalid(f"{what}: paths below {RESERVED_SEGMENT}/ are reserved; no stream is there")
    try:
        return check_name(given)
    except InvalidName as error:
        raise invalid(f"{what}: {error}") from error


def _paths(given: object) -> tuple[str, ...]:
    return tuple(sorted({_path("streams", each) for each in _array("streams", given)}))


def _pattern(given: str) -> str:
    if not given.lstrip("/"):
        raise invalid("pattern is empty")
    try:
        return "/".join(parse_glob(given.lstrip("/")).segments)
    except ValueError as error:
        raise invalid(f"pattern: {error}") from error


# --- refusals ---------------------------------------------------------------------------------------------------------


def invalid(reason: str) -> Refusal:
    """The request can't be meant."""
    return Refusal(400, "INVALID_REQUEST", reason)


def wakes_itself(wake_stream: str) -> Refusal:
    """Its wake stream is to be one of its streams."""
    return invalid(f"{wake_stream!r} is the wake stream and one of the streams: each wake would cause another")


def not_found(name: str) -> Refusal:
    """There is no such subscription."""
    return Refusal(404, "SUBSCRIPTION_NOT_FOUND", f"there is no subscription {name!r}; it may have been deleted")


def exists(name: str) -> Refusal:
    """There is one with another configuration."""
    message = f"subscription {name!r} exists with another configuration; delete it first, or choose another id"
    return Refusal(409, "SUBSCRIPTION_ALREADY_EXISTS", message)


def url_rejected(url: str, reason: str) -> Refusal:
    """The webhook may not have that URL."""
    return Refusal(400, "WEBHOOK_URL_REJECTED", f"webhook.url {url[:200]!r} is refused: {reason}")


def token_invalid(reason: str) -> Refusal:
    """There is no token, or not one of this subscription."""
    return Refusal(401, "TOKEN_INVALID", reason, ((b"www-authenticate", b"Bearer"),))


def token_expired() -> Refusal:
    """The token was one of this subscription's, long ago."""
    return Refusal(401, "TOKEN_EXPIRED", "the token has expired", ((b"www-authenticate", b"Bearer"),))


def fenced(generation: int) -> Refusal:
    """The wake is over: its lease ran out, it was done or released, or its subscription was deleted."""
    return Refusal(
        409, "FENCED", f"the wake is over, the subscription is at generation {generation}; stop working on it"
    )


def claimed(holder: str, generation: int) -> Refusal:
    """Somebody else holds the lease."""
    message = f"worker {holder!r} holds the lease; wait for the next wake"
    return Refusal(409, "ALREADY_CLAIMED", message, current_holder=holder, generation=generation)


def nothing_pending() -> Refusal:
    """There is nothing to be claimed."""
    return Refusal(409, "NO_PENDING_WORK", "no stream has more than was acknowledged; wait for the next wake")


def invalid_offset(reason: str) -> Refusal:
    """An ack that can't be right; none of the request's acks counts."""
    return Refusal(409, "INVALID_OFFSET", reason)


# --- what clients are told --------------------------------------------------------------------------------------------


def token_of(offset: int) -> str:
    """An offset as text."""
    return offset_token(offset).decode()


def link_info(path: str, explicit: bool, acked: int) -> dict[str, object]:
    """A stream of a subscription."""
    return {"path": path, "link_type": "explicit" if explicit else "glob", "acked_offset": token_of(acked)}


def wake_info(links: Iterable[Link]) -> list[dict[str, object]]:
    """The streams of a wake, in the order in which they are given."""
    return [
        {**link_info(path, explicit, acked), "tail_offset": token_of(tail), "has_pending": tail > acked}
        for path, explicit, acked, tail in links
    ]


def described(
    name: str,
    config: Config,
    streams: list[dict[str, object]],
    created_ms: int,
    signing: dict[str, str] | None,
    next_attempt_ms: int | None,
) -> dict[str, object]:
    """A subscription (PROTOCOL.md §6.3), and when what has failed is tried again."""
    described: dict[str, object] = {
        "id": name,
        "subscription_id": name,
        "type": config.kind,
        "pattern": config.pattern,
        "streams": streams,
        "webhook": None if config.webhook is None else {"url": config.webhook, "signing": signing},
        "wake_stream": config.wake_stream,
        "lease_ttl_ms": config.lease_ms,
        "created_at": _time(created_ms),
        "status": "active" if next_attempt_ms is None else "failed",
        "description": config.description,
    }
    if next_attempt_ms is not None:
        described["next_attempt_at"] = _time(next_attempt_ms)
    return described


def _time(milliseconds: int) -> str:
    return timestamp(milliseconds / 1000).decode()


def wake_event(name: str, path: str, generation: int, now_ms: int) -> bytes:
    """What a wake stream gets (PROTOCOL.md §7.2)."""
    event = {"type": "wake", "subscription_id": name, "stream": path, "generation": generation, "ts": now_ms}
    return json.dumps(event, separators=(",", ":")).encode()
