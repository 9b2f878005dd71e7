"""The keys of a store: the secret of its tokens, and the pairs with which its webhooks are signed.

Law of this room: they live in a stream of the store that no HTTP request reaches, and appear in no log, no message and
no ``repr``. The newest pair signs; older public keys stay published for a day, so that whatever was signed with them
can be verified. ``cryptography`` is needed for pairs only. On the event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode, b64encode
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from durable_log._subscriptions.journal import all_chunks, items
from durable_log.aio import AsyncStore
from durable_log.errors import InvalidOption
from durable_log.protocol import callback_tokens
from durable_log.protocol.names import RESERVED_SEGMENT
from durable_log.protocol.refusal import Refusal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

STREAM: Final = f"{RESERVED_SEGMENT}/keys"
RETIRED_MS: Final = 86_400_000
"""How long an old public key stays published: much longer than any webhook's replay window, and than caches keep it."""

MISSING: Final = "webhooks need packages that are not installed: pip install 'durable-log[subscriptions]'"


class Pair(NamedTuple):
    """A signing key; ``private`` is None for one that came as an option, or that only verifies."""

    public: bytes
    private: bytes | None
    since_ms: int

    def __repr__(self) -> str:
        return f"<Pair {callback_tokens.thumbprint(self.public)}>"


class KeyRing:
    """The secret and the pairs, in the order of their making."""

    def __init__(self, store: AsyncStore, signing_key: bytes | None) -> None:
        self._store, self._stream = store, store.stream(STREAM)
        self._pem, self._lock = signing_key, asyncio.Lock()
        self._secret = b""
        self._pairs: list[Pair] = []
        self._signer: Ed25519PrivateKey | None = None

    async def load(self) -> None:
        """Read the keys, unless that has been done; make the secret if there is none yet."""
        async with self._lock:
            if not self._secret:
                await self._load()

    async def _load(self) -> None:
        self._pairs.clear()
        await self._store.create(STREAM, content_type="application/json")
        for record in items(await all_chunks(self._stream)):
            self._note(record)
        if not self._secret:
            await self._append({"secret": _text(secrets.token_bytes(32))})

    @property
    def secret(self) -> bytes:
        """What tokens are authenticated with."""
        return self._secret

    async def ensure_signer(self) -> None:
        """Have a key to sign with. Raises :class:`Refusal` if ``cryptography`` is missing."""
        async with self._lock:
            if self._signer is not None:
                return
            private = self._pairs[-1].private if self._pairs else None
            if self._pem is not None:
                await self._use_option(self._pem)
            elif private is None:
                await self._make()
            else:
                self._signer = _private_key(private)

    async def rotate(self) -> str:
        """Sign with a new key from now on; returns its id. The old one stays published for a day."""
        if self._pem is not None:
            raise InvalidOption("the signing key was given as an option; start the server with another one")
        async with self._lock:
            await self._make()
        return self.kid

    async def _make(self) -> None:
        signer = _ed25519().Ed25519PrivateKey.generate()
        public, private = signer.public_key().public_bytes_raw(), signer.private_bytes_raw()
        await self._append({"public": _text(public), "private": _text(private), "since_ms": self._now()})
        self._signer = signer

    async def _use_option(self, pem: bytes) -> None:
        signer = private_key_of(pem)
        public = signer.public_key().public_bytes_raw()
        if not self._pairs or self._pairs[-1].public != public:
            await self._append({"public": _text(public), "private": None, "since_ms": self._now()})
        self._signer = signer

    @property
    def kid(self) -> str:
        """The id of the key that signs."""
        return callback_tokens.thumbprint(self._pairs[-1].public)

    def sign(self, body: bytes) -> bytes:
        """The value of ``Webhook-Signature`` for a body that is sent now."""
        assert self._signer is not None
        seconds = self._now() // 1000
        signature: bytes = self._signer.sign(callback_tokens.signed_part(seconds, body))
        return callback_tokens.signature_header(seconds, self.kid, signature)

    def published(self) -> dict[str, Any]:
        """The public keys as a JWK Set, the one that signs first."""
        newest_first = list(reversed(self._pairs))
        now, keys = self._now(), newest_first[:1]
        for newer, pair in pairwise(newest_first):
            if now - newer.since_ms < RETIRED_MS and pair.public not in [key.public for key in keys]:
                keys.append(pair)
        return {"keys": [callback_tokens.jwk(pair.public) for pair in keys]}

    async def _append(self, record: dict[str, Any]) -> None:
        await self._stream.append_json(record, durability="sync")
        self._note(record)

    def _note(self, record: dict[str, Any]) -> None:
        if "secret" in record:
            self._secret = b64decode(record["secret"])
        else:
            private = record["private"]
            pair = Pair(b64decode(record["public"]), private and b64decode(private), record["since_ms"])
            self._pairs.append(pair)

    def _now(self) -> int:
        return int(self._store.clock() * 1000)


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - an extra
    except ImportError:
        raise Refusal(501, "WEBHOOKS_UNAVAILABLE", MISSING) from None
    return ed25519


def _private_key(raw: bytes) -> Ed25519PrivateKey:
    key: Ed25519PrivateKey = _ed25519().Ed25519PrivateKey.from_private_bytes(raw)
    return key


def private_key_of(pem: bytes) -> Ed25519PrivateKey:
    """The key in a PEM. Raises :class:`InvalidOption`, or :class:`Refusal` if ``cryptography`` is missing."""
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - an extra

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InvalidOption("signing_key is an Ed25519 private key as PEM, without a password")
    signer: Ed25519PrivateKey = key
    return signer
