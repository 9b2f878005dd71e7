"""A hook that says who may do what, for tests of what it is asked."""

from __future__ import annotations

from durable_log.access import Allow, Deny, Request


class Book:
    """A hook that notes what it is asked and allows all but what it was told to deny."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.denied: dict[str, Deny] = {}

    def __call__(self, request: Request) -> Allow | Deny:
        self.requests.append(request)
        return self.denied.get(request.action, Allow())

    def asked(self) -> list[tuple[str, str]]:
        asked = [(request.action, request.name) for request in self.requests]
        self.requests.clear()
        return asked
