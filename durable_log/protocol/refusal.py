"""Why a request cannot be carried out, before any stream was looked at.

Law of this room: one exception, raised by whatever parses requests and turned into an answer by ``response``. Pure; any
thread.
"""

from __future__ import annotations


class Refusal(Exception):
    """The request cannot be carried out; ``status`` and ``code`` say why to programs, ``message`` to people.

    ``details`` are more that programs are told, in the body beside the code.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = (), **details: object
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers, self.details = status, code, message, headers, details
