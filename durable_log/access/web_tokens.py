"""JSON Web Tokens, signed by keys of a JSON Web Key Set. Needs the extra ``jwt``.

Law of this room: which algorithms count is for the server to say, never for a token; only ones with public keys do, and
each key counts only for those of its kind. Keys that are there count until others have been fetched; fetching is done
on a thread, one at a time and not more often than was said, however many tokens name keys that are not known.
Event loop; an instance is made before it runs, as that waits for the keys.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from durable_log.access.bearer import NO_TOKEN, UNKNOWN_TOKEN, not_granted, token_of
from durable_log.access.grants import Grant, allows, grant
from durable_log.access.hook import Allow, Deny, Request
from durable_log.access.watched import Watched
from durable_log.errors import InvalidOption

if TYPE_CHECKING:
    from types import ModuleType

KINDS: Final[Mapping[str, frozenset[str]]] = {
    "RSA": frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    "OKP": frozenset(("EdDSA",)),
    "P-256": frozenset(("ES256",)),
    "P-384": frozenset(("ES384",)),
    "P-521": frozenset(("ES512",)),
}
"""Algorithms by the type of their keys, or its curve. None has a shared secret: the keys here are for everybody."""

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""What is taken if nothing is said."""

FETCH_SECONDS_MAX: Final = 5.0
DOCUMENT_BYTES_MAX: Final = 2**20
REMEMBERED_MAX: Final = 4096
"""Tokens that need not be verified again; when there are more, all of them are forgotten."""

_FETCH_FAILS: Final = (OSError, ValueError, HTTPException)

log: Final = logging.getLogger("durable_log")


class Key(NamedTuple):
    """A public key; ``algorithms`` are those that it may verify."""

    id: str | None
    algorithms: frozenset[str]
    key: Any


Keys = tuple[Key, ...]
Parse = Callable[[str | bytes], Keys]


class Good(NamedTuple):
    """What a token is good for, and until when, in seconds since the epoch."""

    grants: list[Grant]
    until: float


class Source(Protocol):
    """Where keys come from."""

    def keys(self) -> Keys:
        """Those that are known."""

    async def newer(self) -> Keys:
        """Those that are known after a look, if it is time for one."""


class JsonWebTokens:
    """A hook that knows tokens by their signatures.

    ``jwks``: a file, read again when it changes, or a URL, fetched again every ``refresh_seconds`` and, if a token
    names a key that is not there, once in ``retry_seconds`` at most. ``algorithms``: what tokens may be signed with.
    ``audience``, ``issuer``: what ``aud`` and ``iss`` have to be, None if they are not looked at; but a token that has
    an ``aud`` is refused if no ``audience`` was said. ``exp`` has to be there; it and ``nbf`` may be off by
    ``leeway_seconds``. ``claim``: where the grants are, a string or a list of them, such as ``"read chat/**"``.

    Raises :class:`InvalidOption` for algorithms that are not of :data:`KINDS`, if the keys can't be had, or if the
    extra is not installed.
    """

    def __init__(
        self,
        jwks: str | os.PathLike[str],
        *,
        algorithms: Sequence[str] = ALGORITHMS,
        audience: str | Sequence[str] | None = None,
        issuer: str | None = None,
        leeway_seconds: float = 30.0,
        claim: str = "streams",
        refresh_seconds: float = 300.0,
        retry_seconds: float = 10.0,
    ) -> None:
        public = frozenset().union(*KINDS.values())
        if not algorithms or not public.issuperset(algorithms):
            raise InvalidOption(f"algorithms are some of {', '.join(sorted(public))}, not {list(algorithms)}")
        self._jwt, self._algorithms, self._claim, self._leeway = (
            _library(),
            frozenset(algorithms),
            claim,
            leeway_seconds,
        )
        self._expected: dict[str, Any] = {"audience": audience, "issuer": issuer, "leeway": leeway_seconds}
        self._verifiers: Keys = ()
        self._good: dict[bytes, Good] = {}
        location = os.fspath(jwks)
        self._source: Source = (
            Fetched(location, self._parse, refresh_seconds, retry_seconds)
            if location.startswith(("https://", "http://"))
            else Local(location, self._parse)
        )

    async def __call__(self, request: Request) -> Allow | Deny:
        """Allow what the token grants, until it expires."""
        token = token_of(request)
        if token is None:
            return NO_TOKEN
        digest = sha256(token.encode()).digest()
        try:
            good = self._remembered(digest) or self._remember(digest, await self._verified(token))
        except (self._jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            return UNKNOWN_TOKEN  # the text of the error is about the token's content, and nobody's business
        if not allows(good.grants, request.action, request.name):
            return not_granted(request)
        return Allow(max(0.0, good.until - time.time()))

    def _remembered(self, digest: bytes) -> Good | None:
        """What a token that was verified by the keys of now is good for; to verify it takes a long time."""
        keys = self._source.keys()
        if keys is not self._verifiers or len(self._good) >= REMEMBERED_MAX:
            self._verifiers, self._good = keys, {}
        good = self._good.get(digest)
        return good if good is not None and good.until > time.time() else None

    def _remember(self, digest: bytes, claims: Mapping[str, Any]) -> Good:
        good = Good(_grants(claims.get(self._claim)), float(claims["exp"]) + self._leeway)
        if self._source.keys() is self._verifiers:
            self._good[digest] = good
        return good

    async def _verified(self, token: str) -> Mapping[str, Any]:
        header = self._jwt.get_unverified_header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in self._algorithms:
            raise ValueError("another algorithm")
        key = _find(self._source.keys(), key_id, algorithm) or _find(await self._source.newer(), key_id, algorithm)
        if key is None:
            raise ValueError("another key")
        required = {"require": ["exp"]}
        claims: Mapping[str, Any] = self._jwt.decode(
            token, key.key, algorithms=[algorithm], options=required, **self._expected
        )
        return claims

    def _parse(self, text: str | bytes) -> Keys:
        """The public keys of a document that can verify; raises ``ValueError`` if there are none."""
        try:
            document = json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deep") from None
        found = document.get("keys") if isinstance(document, dict) else None
        given = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        keys = [key for each in given if (key := self._key(each)) is not None]
        if not keys:
            raise ValueError(f"there is no public key in it for any of {', '.join(sorted(self._algorithms))}")
        return tuple(keys)

    def _key(self, given: dict[str, Any]) -> Key | None:
        kind = given.get("crv" if given.get("kty") == "EC" else "kty")
        algorithms = KINDS.get(str(kind), frozenset()) & self._algorithms
        if "alg" in given:
            algorithms &= {str(given["alg"])}
        if not algorithms or given.get("use", "sig") != "sig" or "d" in given:
            return None
        try:
            key = self._jwt.PyJWK.from_dict({**given, "alg": min(algorithms)}).key
        except (self._jwt.PyJWTError, ValueError, TypeError, KeyError):
            return None  # broken, or of a curve or a size that this machine does not know
        return Key(given.get("kid"), algorithms, key)


class Local:
    """Keys from a file."""

    def __init__(self, path: str, parse: Parse) -> None:
        self._file: Watched[Keys] = Watched(path, parse, secret=False)

    def keys(self) -> Keys:
        """What the file says by now."""
        return self._file.value()

    async def newer(self) -> Keys:
        """The same: it was looked at just now."""
        return self._file.value()


class Fetched:
    """Keys from a URL."""

    def __init__(self, url: str, parse: Parse, refresh_seconds: float, retry_seconds: float) -> None:
        self._url, self._parse, self._refresh, self._retry = url, parse, refresh_seconds, retry_seconds
        self._fetching: asyncio.Task[None] | None = None
        try:
            self._keys: Keys = self._fetch()
        except _FETCH_FAILS as error:
            raise InvalidOption(self._told(error)) from None
        self._looked = time.monotonic()

    def keys(self) -> Keys:
        """Those that are here; if they are old, others are fetched meanwhile."""
        if time.monotonic() - self._looked > self._refresh:
            self._begin()
        return self._keys

    async def newer(self) -> Keys:
        """Those of a fetch that ends now, or those that are here if it is not long since the last."""
        if self._fetching is None and time.monotonic() - self._looked > self._retry:
            self._begin()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        return self._keys

    def _begin(self) -> None:
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._replace())

    async def _replace(self) -> None:
        try:
            self._keys = await asyncio.to_thread(self._fetch)
        except _FETCH_FAILS as error:
            self._tell(error)
        finally:
            self._looked = time.monotonic()
            self._fetching = None

    def _fetch(self) -> Keys:
        with urllib.request.urlopen(self._url, timeout=FETCH_SECONDS_MAX) as answer:  # noqa: S310 - http(s), checked
            document = answer.read(DOCUMENT_BYTES_MAX + 1)
        if len(document) > DOCUMENT_BYTES_MAX:
            raise ValueError(f"the document is larger than {DOCUMENT_BYTES_MAX} bytes")
        keys: Keys = self._parse(document)
        return keys

    def _tell(self, error: Exception) -> None:
        log.error("%s; the keys that are known go on to count", self._told(error))

    def _told(self, error: Exception) -> str:
        return f"the keys at {self._url.partition('?')[0]} can't be had: {error}"


def _find(keys: Keys, key_id: str | None, algorithm: str) -> Key | None:
    """The key that a token names; if it names none, the only one that can be meant."""
    fitting = [key for key in keys if algorithm in key.algorithms and key_id in (None, key.id)]
    return fitting[0] if fitting and (key_id is not None or len(fitting) == 1) else None


def _grants(claim: object) -> list[Grant]:
    """What a claim grants; nothing if it is not there. Raises ``ValueError`` for what makes no sense."""
    lines = [claim] if isinstance(claim, str) else claim
    if lines is None:
        return []
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError("a claim of grants is a string or a list of them")
    if not all(line.split() for line in lines):
        raise ValueError("a grant of a token says what it grants")  # in a file of tokens, nothing would be everything
    return [grant(line.split()) for line in lines]


def _library() -> ModuleType:
    try:
        import jwt  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidOption("JSON Web Tokens need the extra jwt: pip install 'durable-log[jwt]'") from error
    return jwt
