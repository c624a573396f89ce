"""The command `gax`: each subcommand parses its flags and calls one function.

Everything heavy is imported inside the subcommands, so that `gax --help` answers at once.
"""

import sys
import traceback
from types import TracebackType
from typing import Annotated, Any, NoReturn

import typer

from gax_batch import __version__, flags
from gax_batch.errors import GaxError, UsageError

app = typer.Typer(
    name="gax",
    help="From a survey's galaxy cutouts to a catalog of morphology probabilities with uncertainties.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
bundle_app = typer.Typer(help="Look at model bundles.", no_args_is_help=True)
config_app = typer.Typer(help="Look at the settings of a run.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")
app.add_typer(config_app, name="config")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"gax-batch {__version__}")
        raise typer.Exit


@app.command()
def run(
    input: flags.Input = None,
    catalog: flags.Catalog = None,
    positions: flags.Positions = None,
    bundle: flags.Bundle = None,
    models: flags.Models = None,
    draws: flags.Draws = None,
    precision: flags.Precision = None,
    unit_size: flags.UnitSize = None,
    workers: flags.Workers = None,
    cpus: flags.Cpus = None,
    limit: flags.Limit = None,
    full: flags.Full = None,
    crop: flags.Crop = None,
    preset: flags.Preset = None,
    frames: flags.Frames = None,
    default_radius: flags.DefaultRadius = None,
    max_image_bytes: flags.MaxImageBytes = None,
    max_image_pixels: flags.MaxImagePixels = None,
    object_store_mib: flags.ObjectStoreMib = None,
    config: flags.ConfigFile = None,
) -> None:
    """Catalog a survey, or bring its catalog up to date.

    Example: gax run --input s3://survey/cutouts --catalog s3://survey/catalog
    """
    settings = _settings(config, locals())
    from gax_batch.run import run_survey

    raise typer.Exit(run_survey(settings, typer.echo).exit_code)


@app.command()
def plan(
    input: flags.Input = None,
    catalog: flags.Catalog = None,
    positions: flags.Positions = None,
    bundle: flags.Bundle = None,
    models: flags.Models = None,
    draws: flags.Draws = None,
    precision: flags.Precision = None,
    unit_size: flags.UnitSize = None,
    workers: flags.Workers = None,
    cpus: flags.Cpus = None,
    limit: flags.Limit = None,
    full: flags.Full = None,
    crop: flags.Crop = None,
    preset: flags.Preset = None,
    frames: flags.Frames = None,
    default_radius: flags.DefaultRadius = None,
    max_image_bytes: flags.MaxImageBytes = None,
    max_image_pixels: flags.MaxImagePixels = None,
    object_store_mib: flags.ObjectStoreMib = None,
    config: flags.ConfigFile = None,
    calibrate: Annotated[
        bool, typer.Option(help="Read and classify a few cutouts, to predict the time.")
    ] = True,
) -> None:
    """Say what a run of the same flags would do, need and take; nothing is written.

    Example: gax plan --input s3://survey/cutouts --catalog s3://survey/catalog
    """
    settings = _settings(config, {k: v for k, v in locals().items() if k != "calibrate"})
    from gax_batch.forecast import forecast

    raise typer.Exit(forecast(settings, typer.echo, calibrate=calibrate))


@app.command()
def pack(
    output: Annotated[str, typer.Option(help="Folder or prefix for the Parquet shards.")],
    input: flags.Input = None,
    positions: flags.Positions = None,
    unit_size: flags.UnitSize = None,
    limit: flags.Limit = None,
    crop: flags.Crop = None,
    preset: flags.Preset = None,
    frames: flags.Frames = None,
    default_radius: flags.DefaultRadius = None,
    max_image_bytes: flags.MaxImageBytes = None,
    max_image_pixels: flags.MaxImagePixels = None,
    processes: Annotated[
        int | None, typer.Option(help="Worker processes.", show_default="one per CPU", min=1)
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove shards of the survey as it was before.")
    ] = False,
) -> None:
    """Pack a survey's cutouts into Parquet shards, which are read much faster.

    Example: gax pack --input s3://survey/cutouts --output s3://survey/packed
    """
    given = {k: v for k, v in locals().items() if k not in ("output", "processes", "replace")}
    from gax_batch.config import load_settings
    from gax_batch.pack import pack_survey

    settings = load_settings(None, given | {"catalog": output})
    done = pack_survey(settings, typer.echo, processes=processes, replace=replace)
    counts = "".join(f", {n:,} rejected: {reason}" for reason, n in sorted(done.rejects.items()))
    typer.echo(f"{done.shards:,} shards: {done.written:,} written, {done.removed:,} removed{counts}")
    if done.failed:
        typer.echo(f"{done.failed:,} shards wait for a storage that failed; the same command makes them")
        raise typer.Exit(3)


@app.command()
def demo(
    output: Annotated[str, typer.Option(help="Folder for the demo's survey and catalog.")] = "demo",
    galaxies: Annotated[int, typer.Option(help="Galaxies to simulate.", min=1)] = 500,
) -> None:
    """Simulate a small survey, catalog it, and show what is in the catalog.

    Example: gax demo --output demo
    """
    from gax_batch.config import load_settings
    from gax_batch.demo import run_demo

    settings = load_settings(None, {"input": f"{output}/survey", "catalog": f"{output}/catalog"})
    raise typer.Exit(run_demo(settings, galaxies, typer.echo))


@app.command()
def simulate(
    output: Annotated[str, typer.Option(help="Folder or prefix for the Parquet shards.")],
    galaxies: Annotated[int, typer.Option(help="How many galaxies.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same survey.", min=0)] = 0,
    processes: Annotated[
        int | None, typer.Option(help="Worker processes.", show_default="one per CPU")
    ] = None,
) -> None:
    """Simulate a survey with known truth as Parquet shards.

    Example: gax simulate --galaxies 10000 --output survey --seed 1
    """
    from gax_batch.simulate.survey import simulate_survey

    done = simulate_survey(output, galaxies, seed, processes=processes)
    typer.echo(f"{done.galaxies:,} galaxies in {done.shards:,} shards at {output} (seed {seed})")


@app.command()
def classify(
    images: Annotated[list[str], typer.Argument(help="Image files or URIs.", metavar="IMAGE...")],
    bundle: flags.Bundle = None,
    models: flags.Models = None,
    draws: flags.Draws = None,
    precision: flags.Precision = None,
    preset: flags.Preset = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Classify a few images in this process, without Ray or a catalog.

    Example: gax classify ngc6976.jpg --json
    """
    given = {"bundle": bundle, "models": models, "draws": draws, "precision": precision, "preset": preset}
    from gax_batch.classify import classify_images, render_json, render_table
    from gax_batch.config import load_settings

    # A classification shares the settings of a run but for where its images come from and go to.
    settings = load_settings(None, given | {"input": images[0], "catalog": "-"})
    rows = classify_images(
        images,
        bundle=settings.bundle,
        models=settings.models,
        draws=settings.draws,
        precision=settings.precision,
        decoder=settings.decoder,
    )
    typer.echo(render_json(rows) if json else render_table(rows))


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Folder of tables of labels, each with its images beside it.")],
    output: Annotated[str, typer.Option(help="The new bundle's folder; its name is the bundle's.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same bundle.", min=0)] = 7,
    effort: Annotated[float, typer.Option(help="Factor on the number of training steps.", min=0)] = 1.0,
    workers: Annotated[
        int | None, typer.Option(help="Folds trained at once, a core each.", min=1, show_default="all cores")
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Train the baselines as well.")] = False,
) -> None:
    """Train, calibrate and measure a new bundle; goes on where it was stopped. Needs a checkout.

    Example: gax train --data labels --output my-bundle
    """
    from gax_batch.doors import train_bundle

    more = ["--baselines"] if baselines else []
    more += ["--workers", str(workers)] if workers else []
    raise typer.Exit(train_bundle(data, output, ["--seed", str(seed), "--effort", str(effort), *more]))


@app.command()
def evaluate(
    labels: Annotated[str, typer.Option(help="Hart et al. 2016's votes, the challenge's CSV, or classes.")],
    bundle: flags.Bundle = None,
    images: Annotated[
        str | None, typer.Option(help="Folder of the labelled images, named by galaxy; to judge a bundle.")
    ] = None,
    catalog: Annotated[str | None, typer.Option(help="Catalog to judge instead of a bundle.")] = None,
    draws: Annotated[int, typer.Option(help="Weight draws.", min=1)] = 32,
    output: Annotated[str, typer.Option(help="Folder for the JSON and the page of plots.")] = "evaluation",
) -> None:
    """Judge a bundle or a catalog against labels: errors, coverage, anomalies, rotation.

    Example: gax evaluate --labels votes.csv --images cutouts
    """
    if (catalog is None) == (images is None):
        raise UsageError("name either --catalog, or --images (with or without --bundle)")
    from gax_batch.evaluation.evaluate import evaluate_bundle, evaluate_catalog

    if catalog is not None:
        evaluate_catalog(catalog, labels, output, typer.echo)
    elif images is not None:
        evaluate_bundle(bundle, labels, images, output, draws, typer.echo)


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


@config_app.command("show")
def config_show(config: flags.ConfigFile = None) -> None:
    """Print every setting with its meaning as YAML that --config reads back.

    Example: gax config show > survey.yaml
    """
    from gax_batch.config import describe_settings, load_settings

    typer.echo(describe_settings(load_settings(config, {}) if config else None))


def main() -> NoReturn:
    """Entry point: 0 complete, 2 the user's mistake, 3 completed with failed units, 4 fatal."""
    sys.excepthook = _die
    try:
        # Calling the application itself would put Typer's own hook in place of ours.
        typer.main.get_command(app)()
    except GaxError as error:
        typer.echo(f"gax: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _settings(config: str | None, given: dict[str, Any]) -> Any:
    """The settings of `run` and `plan`, whose flags are the settings' names."""
    from gax_batch.config import load_settings

    values = {name: value for name, value in given.items() if name != "config"}
    values |= {name: _number(values[name]) for name in ("workers", "cpus", "object_store_mib")}
    return load_settings(config, values)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _die(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    traceback.print_exception(kind, error, trace)
    typer.echo("gax: this is a defect of gax-batch; please report the lines above", err=True)
    raise SystemExit(4)
