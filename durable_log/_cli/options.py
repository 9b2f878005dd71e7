"""Options and arguments that several commands have, and how people name directories.

Law of this room: what is named is taken as it was meant or refused, before anything is opened. An empty name is that of
a variable that is not set, never the default; ``~`` is the home directory wherever the shell has left it. Main thread
only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import click
from click.core import ParameterSource

DATA_DEFAULT: Final = "durable-log-data"
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
MEMORY: Final = ":memory:"
"""What the Python API takes for a store that is in no directory."""


def place(_: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A path on disk, from the home directory on if it starts with ``~``. Raises :class:`click.BadParameter`."""
    if value is None:
        return None
    if not value:
        raise click.BadParameter("it is empty; is a variable not set?", param=param)
    if value == MEMORY:
        raise click.BadParameter("a store in memory would be gone with this command; name a directory", param=param)
    return os.path.expanduser(value)  # noqa: PTH111 - as the engine does: an unknown user is no error


def _data_option(callback: Callable[[click.Context, click.Parameter, str | None], str | None] | None) -> Decorator:
    return click.option(
        "--data",
        metavar="DIR",
        default=DATA_DEFAULT,
        envvar="DURABLE_LOG_DATA",
        show_default=True,
        show_envvar=True,
        callback=callback,
        help="The directory of the store.",
    )


data_option: Final = _data_option(place)
served_option: Final = _data_option(None)
"""The store that is served says itself what it takes: it may be in memory."""
json_option: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
directory_argument: Final = click.argument("directory", metavar="[DIR]", required=False, callback=place)


def chosen(data: str, directory: str | None) -> str:
    """Of ``--data`` and the argument, which was given. Raises :class:`click.UsageError` if both were."""
    if directory is None:
        return data
    if click.get_current_context().get_parameter_source("data") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"two stores are named, {data} by --data and {directory}; name one")
    return directory
