"""The command ``durable-log``: where it starts, and nothing else.

Law of this room: it imports the commands, which need packages of the ``server`` extra, and says in one line what to
install if they are not there. What the commands do lives in ``_cli``. The main thread of a process of its own.
"""

from __future__ import annotations

import sys
from typing import Final

EXTRA: Final = ("click", "uvicorn", "uvloop", "httptools")
"""What the ``server`` extra installs."""

INTERRUPTED: Final = 130


def main() -> None:
    """Run the command line of this process, and exit."""
    try:
        from durable_log._cli.commands import commands  # noqa: PLC0415 - it may be missing, which is to be said kindly

        commands(prog_name="durable-log")
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        sys.exit(f"durable-log: the package {error.name!r} is missing; run: pip install 'durable-log[server]'")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)  # while the commands were imported; later they see to it


if __name__ == "__main__":
    main()
