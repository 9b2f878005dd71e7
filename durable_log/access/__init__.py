"""Who may do what with which stream over HTTP: the question, the answers, and ready-made hooks that answer it.

Law of this room: a hook decides by the request alone. It is asked before the body is read and before anything is
looked up, so no answer tells whether a stream exists. What nobody allowed is denied: a hook that fails denies, a file
that can't be read keeps what it said before. No secret is ever logged, put into an answer or shown by a ``repr``.
Below ASGI, hooks run on the server's event loop, below WSGI on its threads; they are made before it runs, or beside it.
"""

from durable_log.access.bearer import BearerTokens
from durable_log.access.hook import Action, Allow, Authorize, Deny, Headers, Request, any_of
from durable_log.access.urls import ReadUrls
from durable_log.access.web_tokens import ALGORITHMS, JsonWebTokens

__all__ = [
    "ALGORITHMS",
    "Action",
    "Allow",
    "Authorize",
    "BearerTokens",
    "Deny",
    "Headers",
    "JsonWebTokens",
    "ReadUrls",
    "Request",
    "any_of",
]
