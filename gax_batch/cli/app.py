"""The Typer application, to which the other modules of this package add their commands."""

from typing import Annotated

import typer

from gax_batch import __version__
from gax_batch.system.messages import redirect_messages

app = typer.Typer(
    name="gax",
    help="Catalog galaxy morphology: Galaxy Zoo 2 debiased vote fractions with uncertainties from cutouts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"gax-batch {__version__}")
        raise typer.Exit
    context.with_resource(redirect_messages(typer.echo))
