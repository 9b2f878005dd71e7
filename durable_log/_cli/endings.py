"""How commands end: what errors become on stderr, and the exit codes.

Law of this room: an error of the user, the system or the disk is one line on stderr; a traceback is for errors of this
package. The exit code is 1, but 2 where a command answers by 1, as verify and repair do, and where its output can't be
written; a reader that has seen enough is no error. Main thread only.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from durable_log._cli.output import IMPOSSIBLE, OutputFailed, finish
from durable_log.errors import DurableLogError, StoreLocked, StoreUnreadable

PORT_DEFAULT: Final = 4437
INTERRUPTED: Final = 130
TERMINATED: Final = 143
"""The exit codes of processes that Ctrl-C and SIGTERM ended, as shells have them."""


class Commands(click.Group):
    """A group whose commands may raise the errors of this package and of the system, and whose output may fail."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line."""
        if sys.stdout is None:
            # A file of the store would get its descriptor.
            click.echo("Error: stdout is closed; nothing was done: lead it to /dev/null to have none", err=True)
            sys.exit(IMPOSSIBLE)
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            finish()
            return result
        except OutputFailed as error:
            if not error.cut_off:
                raise
            sys.exit(0)  # whoever read the output has seen enough
        except StoreLocked as error:
            raise click.ClickException(
                f"{error}, or use its HTTP API, e.g.: durable-log cat http://127.0.0.1:{PORT_DEFAULT}/v1/stream/NAME"
            ) from error
        except DurableLogError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except OSError as error:
            raise click.ClickException(told(error)) from error


@contextmanager
def looking(*, may_be_cut_off: bool = False) -> Iterator[None]:
    """Damage is what is told; it need not be logged as well. What can't be looked at at all exits with 2, and so does
    a verdict that can't be told, or an error of this package; not what ``may_be_cut_off`` by its reader.
    """
    logger = logging.getLogger("durable_log")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
        finish()
    except OutputFailed as error:
        if may_be_cut_off and error.cut_off:
            raise
        raise Impossible(error.message) from error
    except click.ClickException as error:
        raise Impossible(error.message) from error
    except DurableLogError as error:
        raise Impossible(str(error)) from error
    except OSError as error:
        raise Impossible(told(error)) from error
    except Exception:  # noqa: BLE001 - exit code 1 would be an answer
        traceback.print_exc()
        sys.exit(IMPOSSIBLE)
    finally:
        logger.setLevel(level)


class Impossible(click.ClickException):
    """What was asked for could not be looked at."""

    exit_code = IMPOSSIBLE


def told(error: OSError) -> str:
    """An error of the system, with what to do about it."""
    return str(StoreUnreadable(str(error.filename), error)) if error.filename else str(error)
