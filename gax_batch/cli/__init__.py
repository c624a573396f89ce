"""The command `gax`. Each subcommand parses its options and calls one function.

Large packages are imported inside the subcommands, so that `gax --help` starts quickly.
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

# Importing a module adds its commands. `gax --help` lists them in this order.
for _module in ("survey", "viewing", "publishing", "science", "history", "simulated", "model", "operations"):
    importlib.import_module(f"gax_batch.cli.{_module}")


def main() -> NoReturn:
    """Run the command of this process and exit.

    The exit code is 0 if the command completed, 2 after a mistake of the user, 3 with failed units, 4 after a
    fatal error, and 130 or 143 after a signal.
    """
    sys.excepthook = _report_defect
    try:
        # A call of the application itself would replace the hook by that of Typer.
        typer.main.get_command(app)()
    except GaxError as error:
        typer.echo(f"gax: {error}", err=True)
        sys.exit(error.exit_code)
    except StoppedError as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _report_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    traceback.print_exception(kind, error, trace)
    typer.echo("gax: this is a defect of gax-batch; please report the lines above", err=True)
    raise SystemExit(4)
