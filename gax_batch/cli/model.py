"""Bundles: `train`, `evaluate`, `bundle show`."""

from typing import Annotated, Literal

import typer

from gax_batch.cli import options
from gax_batch.cli.app import app
from gax_batch.errors import UsageError
from gax_batch.models import DEFAULT_DRAWS

Definition = Literal["debiased", "weighted"]

bundle_app = typer.Typer(help="Look at model bundles.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Folder of tables of labels, each with its images beside it.")],
    output: Annotated[str, typer.Option(help="The new bundle's folder; its name is the bundle's.")],
    seed: Annotated[int, typer.Option(help="Seed of the training and of the weight draws.", min=0)] = 7,
    effort: Annotated[float, typer.Option(help="Factor on the number of training steps.", min=0)] = 1.0,
    weights: Annotated[
        str | None, typer.Option(help="Bundle whose weights are calibrated again, instead of training.")
    ] = None,
) -> None:
    """Train, calibrate and measure a new bundle. Continues where it was stopped. Needs a checkout.

    Example: gax train --data labels --output my-bundle
    """
    from gax_batch.cli.training import train_bundle

    more = ["--weights", weights] if weights is not None else []
    raise typer.Exit(train_bundle(data, output, ["--seed", str(seed), "--effort", str(effort), *more]))


@app.command()
def evaluate(
    labels: Annotated[
        str, typer.Option(help="Table of labels: vote fractions, clear classes or largest fractions.")
    ],
    bundle: options.Bundle = None,
    images: Annotated[
        str | None, typer.Option(help="Folder of the labelled images, named by galaxy; to judge a bundle.")
    ] = None,
    catalog: Annotated[str | None, typer.Option(help="Catalog to judge instead of a bundle.")] = None,
    definition: Annotated[
        Definition | None,
        typer.Option(help="Definition of the catalog's fractions.", show_default="that of the bundle"),
    ] = None,
    allow_other_definition: Annotated[
        bool,
        typer.Option("--allow-other-definition", help="Compare labels of another definition all the same."),
    ] = False,
    draws: Annotated[int, typer.Option(help="Number of weight draws.", min=1)] = DEFAULT_DRAWS,
    output: Annotated[str, typer.Option(help="Folder for the JSON and the page of plots.")] = "evaluation",
) -> None:
    """Judge a bundle or a catalog against labels: errors, coverage, anomalies, rotation.

    Galaxies that trained the bundle are counted and left out. Fractions have two definitions: debiased (the
    Galaxy Zoo challenge's) and weighted (Hart et al. 2016's votes).

    Example: gax evaluate --labels votes.csv --images cutouts
    """
    if (catalog is None) == (images is None):
        raise UsageError("name either --catalog, or --images (with or without --bundle)")
    if definition is not None and catalog is None:
        raise UsageError("--definition is for --catalog; a bundle states its own")
    from gax_batch.analysis.evaluation.evaluate import evaluate_bundle, evaluate_catalog

    if catalog is not None:
        evaluate_catalog(
            catalog,
            labels,
            output,
            bundle=bundle,
            definition=definition,
            allow_other_definition=allow_other_definition,
        )
    elif images is not None:
        evaluate_bundle(
            bundle,
            labels,
            images,
            output,
            draws,
            allow_other_definition=allow_other_definition,
        )


@bundle_app.command("show")
def bundle_show(
    bundle: Annotated[
        str | None, typer.Argument(help="Bundle's folder or URI.", show_default="shipped")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print a bundle's model card: what it was trained on, its held-out numbers, its limits.

    Example: gax bundle show
    """
    from gax_batch.models.bundle import load_bundle
    from gax_batch.models.card import card_json, card_text

    loaded = load_bundle(bundle)
    typer.echo(card_json(loaded) if json else card_text(loaded))
