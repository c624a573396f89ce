"""The command `gax`: each subcommand parses its flags and calls one function.

Everything heavy is imported inside the subcommands, so that `gax --help` answers at once.
"""

import importlib
import sys
import traceback
from types import TracebackType
from typing import NoReturn

import typer

from gax_batch.cli.app import app
from gax_batch.errors import GaxError
from gax_batch.system.signals import StoppedError

# Importing a module adds its commands; this is their order in `gax --help`.
for _room in ("survey", "looking", "publishing", "science", "history", "simulated", "model", "operations"):
    importlib.import_module(f"gax_batch.cli.{_room}")


def main() -> NoReturn:
    """Entry point: 0 complete, 2 the user's mistake, 3 with failed units, 4 fatal, 130 or 143 stopped."""
    sys.excepthook = _die
    try:
        # Calling the application itself would put Typer's own hook in place of ours.
        typer.main.get_command(app)()
    except GaxError as error:
        typer.echo(f"gax: {error}", err=True)
        sys.exit(error.exit_code)
    except StoppedError as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _die(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    traceback.print_exception(kind, error, trace)
    typer.echo("gax: this is a defect of gax-batch; please report the lines above", err=True)
    raise SystemExit(4)
