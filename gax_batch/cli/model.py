"""Commands for model bundles: `train`, `evaluate`, `bundle show`."""

from typing import Annotated, Literal

import typer

from gax_batch.cli import options
from gax_batch.cli.app import app
from gax_batch.errors import UsageError
from gax_batch.models import DEFAULT_DRAWS

Definition = Literal["debiased", "weighted"]

bundle_app = typer.Typer(help="Inspect model bundles.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Folder of tables of labels, each next to its images.")],
    output: Annotated[
        str, typer.Option(help="Folder of the new bundle, whose name becomes that of the bundle.")
    ],
    seed: Annotated[int, typer.Option(help="Seed of the training and of the weight draws.", min=0)] = 7,
    effort: Annotated[
        float, typer.Option(help="Factor by which the number of training steps is multiplied.", min=0)
    ] = 1.0,
    weights: Annotated[
        str | None, typer.Option(help="Bundle whose weights are only calibrated again, without training.")
    ] = None,
) -> None:
    """Train, calibrate and evaluate a new bundle. Resumes after an interruption. Requires a checkout.

    Example: gax train --data labels --output my-bundle
    """
    from gax_batch.cli.training import train_bundle

    more = ["--weights", weights] if weights is not None else []
    raise typer.Exit(train_bundle(data, output, ["--seed", str(seed), "--effort", str(effort), *more]))


@app.command()
def evaluate(
    labels: Annotated[
        str,
        typer.Option(help="Table of labels: vote fractions, classes of clear galaxies or largest fractions."),
    ],
    bundle: options.Bundle = None,
    images: Annotated[
        str | None, typer.Option(help="Folder of the labeled images, named by galaxy, to evaluate a bundle.")
    ] = None,
    catalog: Annotated[str | None, typer.Option(help="Catalog to evaluate instead of a bundle.")] = None,
    definition: Annotated[
        Definition | None,
        typer.Option(help="Definition of the catalog's fractions.", show_default="that of the bundle"),
    ] = None,
    allow_other_definition: Annotated[
        bool,
        typer.Option("--allow-other-definition", help="Accept labels of another definition."),
    ] = False,
    draws: Annotated[int, typer.Option(help="Number of weight draws.", min=1)] = DEFAULT_DRAWS,
    output: Annotated[
        str, typer.Option(help="Folder for the JSON file and the page of plots.")
    ] = "evaluation",
) -> None:
    """Evaluate a bundle or a catalog against labels: errors, coverage, anomalies, rotation.

    Galaxies of the training set are counted and excluded. Fractions have two definitions: debiased (Galaxy
    Zoo challenge) and weighted (votes of Hart et al. 2016).

    Example: gax evaluate --labels votes.csv --images cutouts
    """
    if (catalog is None) == (images is None):
        raise UsageError("pass either --catalog, or --images (with or without --bundle)")
    if definition is not None and catalog is None:
        raise UsageError("--definition requires --catalog; a bundle contains its own definition")
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
        str | None, typer.Argument(help="Folder or URI of the bundle.", show_default="shipped")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print the model card of a bundle: training data, results on held-out data, limits.

    Example: gax bundle show
    """
    from gax_batch.models.bundle import load_bundle
    from gax_batch.models.card import card_json, card_text

    loaded = load_bundle(bundle)
    typer.echo(card_json(loaded) if json else card_text(loaded))
