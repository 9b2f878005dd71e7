"""Who may do what at a server that ``durable-log serve`` starts: from options to a hook.

Law of this room: it makes hooks of ``access`` out of files and words, and decides nothing itself. Main thread only,
before the server runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from durable_log.access import ALGORITHMS, Authorize, BearerTokens, JsonWebTokens, ReadUrls, any_of
from durable_log.asgi import ALL_ORIGINS, Cors


def guard(
    tokens: str | None, jwks: str | None, algorithms: Sequence[str], audiences: Sequence[str], issuer: str | None,
    url_secrets: str | None,
) -> Authorize | None:  # fmt: skip
    """A hook that allows what any of these allows, None if there is none of them. Raises :class:`InvalidOption`."""
    hooks: list[Authorize] = []
    if tokens is not None:
        hooks.append(BearerTokens.from_file(tokens))
    if jwks is not None:
        audience = list(audiences) or None
        hooks.append(JsonWebTokens(jwks, algorithms=algorithms or ALGORITHMS, audience=audience, issuer=issuer))
    elif algorithms or audiences or issuer:
        raise click.UsageError("--jwt-algorithm, --jwt-audience and --jwt-issuer go with --jwks")
    if url_secrets is not None:
        hooks.append(ReadUrls.from_file(url_secrets))
    return any_of(*hooks) if hooks else None


def origins(named: Sequence[str]) -> Cors | None:
    """Which pages may use the streams: those of the origins named, of all if none is, of none if that is ``none``."""
    if not named:
        return ALL_ORIGINS
    return None if tuple(named) == ("none",) else Cors(tuple(named))
