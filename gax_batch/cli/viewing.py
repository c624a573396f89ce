"""Commands that display a catalog: `report`, `explore`."""

from typing import Annotated

import typer

from gax_batch.cli import options
from gax_batch.cli.app import app
from gax_batch.system.extras import require_extra


@app.command()
def report(
    catalog: Annotated[str, typer.Option(help="Folder or URI of the catalog.")],
    version: Annotated[
        int | None, typer.Option(help="Number of a snapshot.", min=0, show_default="the newest")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="HTML file to write.", show_default="next to the record of its run")
    ] = None,
    sources: options.Sources = None,
) -> None:
    """Write an HTML report of a catalog: counts, sky, galaxies, calibration, rejects, provenance.

    Example: gax report --catalog s3://survey/catalog --output report.html
    """
    require_extra("viewer", "gax report", "jinja2", "markupsafe", "matplotlib")
    from gax_batch.viewer.report.build import write_report

    write_report(catalog, version, output, sources)


@app.command()
def explore(
    catalog: Annotated[str, typer.Option(help="Folder or URI of the catalog.")],
    version: Annotated[
        int | None, typer.Option(help="Number of a snapshot.", min=0, show_default="the newest")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 for a free one.", min=0, max=65535)] = 8470,
    sources: options.Sources = None,
) -> None:
    """Browse a catalog: filter galaxies, view them with their trees, export a selection.

    The pages are read-only, and only users of this machine can open them.

    Example: gax explore --catalog s3://survey/catalog
    """
    require_extra("viewer", "gax explore", "jinja2", "markupsafe", "matplotlib", "starlette", "uvicorn")
    from gax_batch.viewer.explorer.server import explore as serve

    serve(catalog, version, port, sources)
