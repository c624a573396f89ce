"""Command that publishes a catalog: `publish`."""

from typing import Annotated

import typer

from gax_batch.cli.app import app
from gax_batch.export.formats import Format, Names

ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Names or globs of columns, separated by commas: 'galaxy_id,ra,dec,*_prob'.",
        show_default="all",
    ),
]
NamesOption = Annotated[
    Names | None,
    typer.Option(
        help="Name fractions as Galaxy Zoo's tables do ('smooth-or-featured-gz2_smooth_fraction'). "
        "gz: the friendly table, with a fraction only where half of the volunteers are asked; "
        "zoobot: the advanced table, with all fractions, 90 % intervals, and the share who are asked."
    ),
]
ReferenceOption = Annotated[str | None, typer.Option(help="Publication to cite: a bibcode, a DOI or a URL.")]
WhereOption = Annotated[
    str | None,
    typer.Option(help="SQL expression over columns: \"gz2_class = 'Er' AND flags & 32 = 0\"."),
]


@app.command()
def publish(
    catalog: Annotated[str, typer.Option(help="Catalog to publish.")],
    format: Annotated[Format, typer.Option(help="hats: a collection for a survey; others: one file.")],
    output: Annotated[str, typer.Option(help="Folder or prefix of the HATS collection, or the file.")],
    columns: ColumnsOption = None,
    where: WhereOption = None,
    conditional: Annotated[
        bool,
        typer.Option(
            "--conditional",
            help="Add fractions of the volunteers who are asked each question, with 90 % intervals: those "
            "that --columns names ('*_conditional*'), or all.",
        ),
    ] = False,
    names: NamesOption = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="Bundle that made the catalog, for --conditional and --names.", show_default="shipped"
        ),
    ] = None,
    version: Annotated[int | None, typer.Option(help="Snapshot to publish.", show_default="newest")] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace an existing file, or a collection of another selection."),
    ] = False,
    pixel_threshold: Annotated[
        int, typer.Option(help="HATS: maximum number of galaxies in a pixel.", min=1)
    ] = 200_000,
    margin: Annotated[
        float, typer.Option(help="HATS: width of the margin cache in arcsec; 0 for none.", min=0)
    ] = 10.0,
    title: Annotated[str | None, typer.Option(help="Title to store in the publication.")] = None,
    reference: ReferenceOption = None,
    license: Annotated[str | None, typer.Option(help="License of the publication: a name or a URL.")] = None,
) -> None:
    """Publish a catalog in a format of astronomical tools: HATS (LSDB), Parquet, VOTable, FITS, CSV or ECSV.

    An existing HATS collection of the same columns and expression is updated: only pixels that changed are
    written.

    Example: gax publish --catalog my/catalog --format hats --output my/hats
    """
    from gax_batch.export.publication import Request
    from gax_batch.export.publication import publish as publish_catalog

    request = Request(
        catalog,
        output,
        format,
        columns or (),
        where,
        version,
        replace,
        pixel_threshold,
        margin,
        conditional,
        bundle,
        title,
        reference,
        license,
        names,
    )
    publish_catalog(request)
