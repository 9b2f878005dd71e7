"""``cat`` and ``tail`` of a stream that a running server holds.

Law of this room: reading over HTTP only. A follower outlives the server: it waits for it and goes on from its offset.
Main thread only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

import click

from durable_log._cli.output import put_now
from durable_log._cli.remote import AWAY, START, Page, Refused, RemoteStream, reason_of
from durable_log._cli.text import json_lines, last_lines, whole_characters
from durable_log.model import is_json
from durable_log.protocol.tokens import offset_token, parse_offset

RETRY_SECONDS: Final = 0.25
UNAVAILABLE: Final = 503


def is_url(name: str) -> bool:
    """Whether a stream is named by its address on a server."""
    return name.startswith(("http://", "https://"))


def show(url: str, offset: int) -> None:
    """The bytes of the stream at ``url`` from ``offset`` to its tail. Raises :class:`click.ClickException`."""
    try:
        with _remote(url) as stream:
            _print_rest(stream, offset_token(offset).decode())
    except (Refused, *AWAY) as error:
        raise _told(url, error) from error


def show_end(url: str, count: int, *, follow: bool) -> None:
    """The last ``count`` bytes of the stream at ``url``; with ``follow``, what comes after them until it is closed.

    Raises :class:`click.ClickException`.
    """
    with _remote(url) as stream:
        try:
            token = _print_end(stream, count)
        except (Refused, *AWAY) as error:
            raise _told(url, error) from error
        if follow:
            _follow(stream, url, token)


def _remote(url: str) -> RemoteStream:
    return RemoteStream(url, token=os.environ.get("DURABLE_LOG_TOKEN"))


def _follow(stream: RemoteStream, url: str, token: str) -> None:
    away = False
    while True:
        try:
            page = stream.read(token, wait=True)
        except (Refused, *AWAY) as error:
            if isinstance(error, Refused) and error.status != UNAVAILABLE:
                raise _told(url, error) from error
            if not away:
                click.echo(
                    f"durable-log: {url}: {str(error) or 'the connection ended'}; waiting for the server", err=True
                )
            away = True
            time.sleep(RETRY_SECONDS)
            continue
        away, token = False, page.next_offset
        put_now(_readable(page))
        if page.closed:
            return


def _print_end(stream: RemoteStream, count: int) -> str:
    """Print the last ``count`` bytes; returns the offset after them."""
    tail = stream.tail()
    first = max(0, (parse_offset(tail) or 0) - count)
    page = stream.read(tail)
    if is_json(page.content_type):
        return _print_last_messages(stream, count)
    page = stream.read(offset_token(first).decode())
    put_now(whole_characters(page.data, page.content_type) if first else page.data)
    return page.next_offset if page.up_to_date else _print_rest(stream, page.next_offset)


def _print_rest(stream: RemoteStream, token: str) -> str:
    while True:
        page = stream.read(token)
        put_now(_readable(page))
        token = page.next_offset
        if page.up_to_date:
            return token


def _print_last_messages(stream: RemoteStream, count: int) -> str:
    # Over HTTP an offset has to be one that the server gave out, and only a reader from the start has those.
    pages = [stream.read(START)]
    while not pages[-1].up_to_date:
        pages.append(stream.read(pages[-1].next_offset))
    put_now(b"".join(last_lines((line for page in pages for line in _messages(page)), count)))
    return pages[-1].next_offset


def _messages(page: Page) -> Iterator[bytes]:
    return json_lines(page.data[1:-1] + b",")


def _readable(page: Page) -> bytes:
    return b"".join(_messages(page)) if is_json(page.content_type) else page.data


def _told(url: str, error: Exception) -> click.ClickException:
    advice = "" if isinstance(error, Refused) else "; is the server running?"
    return click.ClickException(f"{url}: {reason_of(error)}{advice}")
