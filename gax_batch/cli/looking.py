"""What a person looks at: `report`."""

from typing import Annotated

import typer

from gax_batch.cli.app import app


@app.command()
def report(
    catalog: Annotated[str, typer.Option(help="The catalog's folder or URI.")],
    version: Annotated[
        int | None, typer.Option(help="Number of a snapshot.", min=0, show_default="the newest")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="HTML file to write.", show_default="beside the record of its run")
    ] = None,
) -> None:
    """Write one page about a catalog: counts, sky, galaxies, calibration, rejects, provenance.

    Example: gax report --catalog s3://survey/catalog --output report.html
    """
    from gax_batch.report.build import write_report

    write_report(catalog, version, output, typer.echo)
