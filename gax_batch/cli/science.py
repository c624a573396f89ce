"""Commands that analyze a catalog: `population`, `select`."""

from typing import Annotated

import typer

from gax_batch.cli import options
from gax_batch.cli.app import app
from gax_batch.errors import UsageError

Catalog = Annotated[str, typer.Option(help="Catalog to read.")]


@app.command()
def population(
    catalog: Catalog,
    by: Annotated[
        str | None,
        typer.Option(
            help="healpix, or a column of population_bins. Do not compare bins that differ in redshift, "
            "apparent size, brightness or image quality: blur and noise hide arms and bars.",
            show_default="all galaxies together",
        ),
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="One question, such as t04_spiral or t04.", show_default="all")
    ] = None,
    level: Annotated[float, typer.Option(help="Probability of the intervals.", min=0.01, max=0.999)] = 0.9,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Estimate the fraction of each morphology in the survey, with the uncertainty of the model.

    Fractions are debiased vote fractions, as in the catalog.

    Example: gax population --catalog s3://survey/catalog --by healpix --question t04_spiral
    """
    if csv and json:
        raise UsageError("pass either --csv or --json")
    from gax_batch.analysis import population as fractions

    rows = fractions.population(catalog, by=by, question=question, level=level)
    if json:
        typer.echo(fractions.render_json(rows))
    else:
        typer.echo(fractions.render_csv(rows) if csv else fractions.render_table(rows, level))


@app.command()
def select(
    catalog: Catalog,
    by: Annotated[str, typer.Option(help="Score to select by: mutual_info, entropy, ood or disagreement.")],
    output: Annotated[str, typer.Option(help="Empty folder or prefix for the images and the manifest.")],
    question: Annotated[
        str | None, typer.Option(help="One question, such as t04_spiral or t04.", show_default="all together")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Number of galaxies to select.", min=1)] = 500,
    diverse: Annotated[
        bool,
        typer.Option(
            "--diverse", help="Select the galaxies that differ most among the N x 10 with the highest score."
        ),
    ] = False,
    sources: options.Sources = None,
) -> None:
    """Select the galaxies that volunteers should classify: images, and a manifest for Zooniverse.

    Example: gax select --catalog my/catalog --by mutual_info --question t04_spiral -n 500 --output votes
    """
    from gax_batch.analysis.zooniverse import select_subjects

    select_subjects(
        catalog,
        by=by,
        question=question,
        count=n,
        diverse=diverse,
        output=output,
        sources=sources,
    )
