"""Commands that read the images of a survey: `run`, `plan`, `pack`, `classify`, `config show`."""

from functools import partial
from typing import Annotated, Any

import typer

from gax_batch.cli.app import app
from gax_batch.cli.options import ConfigFile, takes_settings
from gax_batch.errors import GaxError
from gax_batch.runner.settings import (
    ClassifySettings,
    PackSettings,
    RunSettings,
    check_settings,
    describe_settings,
    load_settings,
)
from gax_batch.system.messages import redirect_messages

config_app = typer.Typer(help="Inspect the settings of a run.", no_args_is_help=True)
app.add_typer(config_app, name="config")


@app.command()
@takes_settings(RunSettings)
def run(given: dict[str, Any], config: ConfigFile = None) -> None:
    """Catalog a survey, or bring its catalog up to date.

    The catalog has the 37 debiased vote fractions of Galaxy Zoo 2: the fractions of all volunteers who would
    choose each answer if the galaxy were nearby.

    Example: gax run --input s3://survey/cutouts --catalog s3://survey/catalog
    """
    settings = load_settings(config, given)
    from gax_batch.runner.display import open_display
    from gax_batch.runner.run import run_survey

    with open_display(typer.echo, json_lines=settings.log_format == "json") as display:
        try:
            raise typer.Exit(run_survey(settings, display).exit_code)
        except GaxError as error:
            display.fail(str(error))
            raise typer.Exit(error.exit_code) from error


@app.command()
@takes_settings(RunSettings)
def plan(
    given: dict[str, Any],
    config: ConfigFile = None,
    calibrate: Annotated[
        bool, typer.Option(help="Read and classify a few cutouts to predict the time of the run.")
    ] = True,
    hours: Annotated[float, typer.Option(help="Hours that a run on a cluster may take.", min=0.01)] = 20.0,
    core_price: Annotated[
        float | None, typer.Option(help="Price of one core-hour. Adds a cost estimate.", min=0)
    ] = None,
    gpu_price: Annotated[
        float | None, typer.Option(help="Price of one GPU-hour. Adds a cost estimate.", min=0)
    ] = None,
) -> None:
    """Show the work, resources and duration of `gax run` with the same options. Writes nothing.

    Example: gax plan --input s3://survey/cutouts --catalog s3://survey/catalog
    """
    settings = load_settings(config, given)
    from gax_batch.runner.estimate import Budget, forecast

    budget = Budget(hours, core_price, gpu_price)
    raise typer.Exit(forecast(settings, calibrate=calibrate, budget=budget))


@app.command()
@takes_settings(PackSettings)
def pack(
    given: dict[str, Any],
    originals: Annotated[
        bool, typer.Option("--originals", help="Pack the unchanged original images instead of 64x64 cutouts.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(help="Worker processes.", show_default="one per CPU", min=1)
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove the shards of an earlier state of the survey.")
    ] = False,
) -> None:
    """Pack the cutouts or images of a survey into Parquet shards, which are faster to read.

    Example: gax pack --input s3://survey/cutouts --output s3://survey/packed
    """
    settings = check_settings(PackSettings, given)
    from gax_batch.runner.pack import pack_survey

    done = pack_survey(settings, originals=originals, processes=processes, replace=replace)
    counts = "".join(f", {n:,} rejected: {reason}" for reason, n in sorted(done.rejects.items()))
    typer.echo(f"{done.shards:,} shards: {done.written:,} written, {done.removed:,} removed{counts}")
    if done.failed:
        typer.echo(
            f"{done.failed:,} shards were not written because the storage failed; run the same command again"
        )
        raise typer.Exit(3)


@app.command()
@takes_settings(ClassifySettings)
def classify(
    given: dict[str, Any],
    images: Annotated[list[str], typer.Argument(help="Image files or URIs.", metavar="IMAGE...")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    plot: Annotated[
        str | None,
        typer.Option(help="Plot of the images and their trees: .png, .pdf or .svg.", show_default="none"),
    ] = None,
) -> None:
    """Classify a few images and print their trees with intervals. Uses neither Ray nor a catalog.

    The fractions have the definition of a catalog: debiased, of all volunteers.

    Example: gax classify ngc6976.jpg --plot ngc6976.png
    """
    from gax_batch.imaging.decoding import Decoder
    from gax_batch.viewer.classify import (
        check_plot,
        classify_images,
        render_json,
        render_trees,
        save_plot,
    )

    if plot is not None:
        check_plot(plot)
    settings = check_settings(ClassifySettings, given | {"images": images})
    decoder = Decoder(preset=settings.preset)
    with redirect_messages(partial(typer.echo, err=True)):
        rows = classify_images(
            settings.images,
            bundle=settings.bundle,
            models=settings.models,
            draws=settings.draws,
            passes=settings.passes,
            precision=settings.precision,
            decoder=decoder,
        )
    typer.echo(render_json(rows) if json else render_trees(rows))
    if plot is not None:
        save_plot(rows, decoder, plot)


@config_app.command("show")
def config_show(config: ConfigFile = None) -> None:
    """Print every setting with its description as YAML for --config.

    Example: gax config show > survey.yaml
    """
    typer.echo(describe_settings(load_settings(config, {}) if config else None))
