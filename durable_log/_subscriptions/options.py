"""How subscriptions are run.

Law of this room: one frozen value, checked where it is made. Any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from durable_log._subscriptions.keys import private_key_of
from durable_log.errors import InvalidOption
from durable_log.protocol.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """How an application runs subscriptions. Times in seconds. Raises :class:`InvalidOption`.

    ``webhook_development``: webhooks may also be ``http://localhost`` and ``http://127.0.0.x``, on this machine.
    ``webhook_hosts``: webhooks may be on no other hosts than these. ``webhook_seconds``: how long a webhook may take to
    answer. ``webhooks_at_once``: how many are under way at the same time, half of them retries at most; others wait.
    ``signing_key``: an Ed25519 private key as PEM, instead of one that the store makes and keeps. ``public_url``: the
    address of the streams that webhooks are told of, instead of the one that the creator of their subscription used.
    """

    webhook_development: bool = False
    webhook_hosts: frozenset[str] | None = None
    webhook_seconds: float = 30.0
    webhooks_at_once: int = 64
    signing_key: bytes | None = field(default=None, repr=False)
    public_url: str | None = None

    def __post_init__(self) -> None:
        if not self.webhook_seconds > 0:
            raise InvalidOption(f"webhook_seconds is more than 0, not {self.webhook_seconds}")
        if self.webhooks_at_once < 1:
            raise InvalidOption(f"webhooks_at_once is 1 or more, not {self.webhooks_at_once}")
        for host in self.webhook_hosts or ():
            if host != host.lower():
                raise InvalidOption(f"webhook_hosts are in lower case, unlike {host!r}")
        if self.signing_key is not None:
            try:
                private_key_of(self.signing_key)
            except Refusal as missing:
                raise InvalidOption(f"a signing_key was given, but {missing.message}") from None
        if self.public_url is not None and not self.public_url.startswith(("https://", "http://")):
            raise InvalidOption(f"public_url begins with https:// or http://, unlike {self.public_url!r}")
