"""The question that a hook is asked, its two answers, and how hooks are put together.

Law of this room: values and types. A request shows neither its headers nor its query when it is printed, as tokens and
signatures are in them. Pure, but for the hooks that ``any_of`` calls; event loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from durable_log.errors import InvalidOption

Action = Literal["create", "append", "close", "read", "describe", "delete", "control", "metrics"]
"""``create`` may bring first content; ``describe`` is HEAD. ``control`` is of subscriptions: its name is the id of one.
``metrics`` is about no stream, its name is empty.
"""

STATUSES: Final = (401, 403, 404)


class Headers(Mapping[str, str]):
    """The headers of a request, by names of any case; values of a repeated one are joined by commas."""

    __slots__ = ("_values",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        values: dict[str, str] = {}
        for key, value in raw:
            name, text = key.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
            values[name] = f"{values[name]}, {text}" if name in values else text
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be allowed: to do ``action`` with the stream ``name``.

    ``fork_source``: the stream that a new one is to begin with; reading that one is asked for as well, by itself.
    ``client``: the peer's address. ``scope`` is that of ASGI, or the environ of WSGI, for what is not here.
    """

    action: Action
    name: str
    method: str
    fork_source: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    client: str | None = None
    scope: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Allow:
    """Yes. ``seconds``: for how long from now, None for as long as it takes; a live response ends by then."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """No. ``status``: 401 asks for (other) credentials, by a ``WWW-Authenticate`` of ``challenge``; 403 says that these
    do not allow it; 404 says what a stream that does not exist says, and nothing of ``message``, which clients see.
    """

    status: int = 403
    message: str = "this is not allowed"
    challenge: str = "Bearer"

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InvalidOption(f"a denial has status 401, 403 or 404, not {self.status}")


Authorize = Callable[[Request], "Allow | Deny | Awaitable[Allow | Deny]"]
"""A hook. Below ASGI, one that is not asynchronous runs on the server's event loop, so it must not wait for anything;
below WSGI it runs on the thread of the request, on several at once.
"""


async def ask(hook: Authorize, request: Request) -> Allow | Deny:
    """The answer of a hook of either kind. Raises what it raises, and ``TypeError`` for what is no answer."""
    answer = hook(request)
    return checked(await answer if inspect.isawaitable(answer) else answer)


def checked(answer: object) -> Allow | Deny:
    """What a hook returned. Raises ``TypeError`` if that is no answer."""
    if not isinstance(answer, Allow | Deny):
        raise TypeError(f"a hook returns Allow or Deny, not {type(answer).__name__}")
    return answer


def any_of(*hooks: Authorize) -> Authorize:
    """A hook that allows what one of ``hooks`` allows; they are asked in order.

    Of denials, the first that is not 401 counts, as that hook knew the credentials; else the first. If a hook fails,
    so does this one.
    """
    if not hooks:
        raise InvalidOption("any_of needs a hook at least")

    async def any_of_them(request: Request) -> Allow | Deny:
        denials = []
        for hook in hooks:
            answer = await ask(hook, request)
            if isinstance(answer, Allow):
                return answer
            denials.append(answer)
        return next((denial for denial in denials if denial.status != 401), denials[0])

    return any_of_them
