"""The commands: their names, arguments and help, and how errors are told.

Law of this room: it turns words into calls and errors into one line on stderr with exit code 1; a traceback is for
errors of this package, never for those of its users. What a command does is in the module of that matter, imported when
the command runs. Main thread only.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import click

import durable_log
from durable_log.errors import DurableLogError, StoreLocked

DATA_DEFAULT: Final = "durable-log-data"
PORT_DEFAULT: Final = 4437


class Commands(click.Group):
    """A group whose commands may raise the errors of this package, and whose output may be cut off by its reader."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except StoreLocked as error:
            raise click.ClickException(
                f"{error}, or use its HTTP API, e.g.: durable-log cat http://127.0.0.1:{PORT_DEFAULT}/v1/stream/NAME"
            ) from error
        except DurableLogError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            # Whoever read the output has seen enough. The interpreter flushes once more on its way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(durable_log.__version__, prog_name="durable-log")
def commands() -> None:
    """Durable append-only streams: a server, a demonstration, and tools for the store's directory."""


data_option: Final = click.option(
    "--data",
    metavar="DIR",
    default=DATA_DEFAULT,
    envvar="DURABLE_LOG_DATA",
    show_default=True,
    show_envvar=True,
    help="The directory of the store.",
)


@commands.command()
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT_DEFAULT, show_default=True, help="0 picks a free one."
)
@click.option(
    "--long-poll-timeout",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    default=20.0,
    show_default=True,
    help="How long a long-poll waits for news.",
)
@click.option("--page", type=click.Path(exists=True, dir_okay=False), hidden=True)
def serve(data: str, host: str, port: int, long_poll_timeout: float, page: str | None) -> None:
    """Serve a store over HTTP.

    Streams are at /v1/stream/NAME, in the Durable Streams protocol; /healthz answers 200, or 503 once the store accepts
    no changes any more. Prints one line when it is ready. SIGTERM and SIGINT end it in order, a second one at once.

    It has no authentication: put it behind something that has before you let it listen to more than this machine.
    """
    from pathlib import Path

    from durable_log._cli import serve as server

    pages = {} if page is None else {"/": server.Page("text/html; charset=utf-8", Path(page).read_bytes())}
    server.serve(data, host, port, long_poll_timeout, pages)
