"""The tokens with which workers call back, and the signatures of webhooks as text (PROTOCOL.md §7.1, §12.9).

Law of this room: a token is a JWT, HMAC-SHA256, that names one life of one subscription and one generation; nothing is
remembered of it. Secrets are arguments and appear in no message. Pure; any thread.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any, Final, NamedTuple

from durable_log.protocol import subscriptions

TOKEN_SECONDS: Final = 86400
"""How long one wake may take, however often its lease is extended."""

_HEADER: Final = b'{"alg":"HS256","typ":"JWT"}'


class Grant(NamedTuple):
    """What a token allows: to speak for ``generation`` of the subscription ``id`` in its life ``life``."""

    id: str
    life: str
    generation: int


def issue(secret: bytes, grant: Grant, now_ms: int) -> str:
    """The token of a grant."""
    expires = now_ms // 1000 + TOKEN_SECONDS
    payload = {"sub": grant.id, "life": grant.life, "generation": grant.generation, "exp": expires}
    signed = base64url(_HEADER) + "." + base64url(json.dumps(payload, separators=(",", ":")).encode())
    return signed + "." + base64url(_mac(secret, signed))


def verify(secret: bytes, token: str, name: str, now_ms: int) -> Grant:
    """The grant of a token for the subscription ``name``. Raises :class:`Refusal`."""
    signed, _, mac = token.rpartition(".")
    header, _, payload = signed.partition(".")
    refused = subscriptions.token_invalid(f"the token is none of subscription {name!r}")
    try:
        genuine = hmac.compare_digest(_mac(secret, signed), _decoded(mac)) and _decoded(header) == _HEADER
        claims: dict[str, Any] = json.loads(_decoded(payload)) if genuine else {}
    except ValueError:
        raise refused from None
    if not genuine or claims["sub"] != name:
        raise refused
    if claims["exp"] * 1000 <= now_ms:
        raise subscriptions.token_expired()
    return Grant(name, claims["life"], claims["generation"])


def base64url(raw: bytes) -> str:
    """Without padding, as in JWTs and JWKs."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def thumbprint(public_key: bytes) -> str:
    """The key id of an Ed25519 public key: the thumbprint of its JWK (RFC 7638)."""
    canonical = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": base64url(public_key)}, separators=(",", ":"))
    return "ds_" + base64url(sha256(canonical.encode()).digest())


def jwk(public_key: bytes) -> dict[str, str]:
    """An Ed25519 public key as a JWK for verifying signatures."""
    kid = thumbprint(public_key)
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "alg": "EdDSA", "x": base64url(public_key)}


def signed_part(seconds: int, body: bytes) -> bytes:
    """What a webhook's signature covers."""
    return b"%d.%b" % (seconds, body)


def signature_header(seconds: int, kid: str, signature: bytes) -> bytes:
    """The value of ``Webhook-Signature``."""
    return f"t={seconds},kid={kid},ed25519={base64url(signature)}".encode()


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))


def _mac(secret: bytes, signed: str) -> bytes:
    return hmac.new(secret, signed.encode(), sha256).digest()
