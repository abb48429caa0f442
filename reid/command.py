"""How this room's commands end: a mistake of the user's is one line and exit 2, never a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import typer

from reid.errors import ReidError


def run_command(main: Callable[..., None]) -> None:
    """Run a function as a command line program.

    Exits with 2 on a `ReidError`, whose message goes to standard error, and with 130 on Ctrl-C.
    """
    # Shells start background jobs with the interrupt ignored; a checkpoint on SIGINT must not depend on that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except ReidError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
