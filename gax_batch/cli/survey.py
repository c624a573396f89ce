"""From a survey's images: `run`, `plan`, `pack`, `classify`, and the settings that they share."""

from functools import partial
from typing import Annotated, Any

import typer

from gax_batch.cli import flags
from gax_batch.cli.app import app
from gax_batch.errors import GaxError

config_app = typer.Typer(help="Look at the settings of a run.", no_args_is_help=True)
app.add_typer(config_app, name="config")


# Flags of `gax plan` that are no settings of a run.
_OF_PLAN = ("calibrate", "hours", "core_price", "gpu_price")


@app.command()
def run(
    input: flags.Input = None,
    catalog: flags.Catalog = None,
    positions: flags.Positions = None,
    bundle: flags.Bundle = None,
    models: flags.Models = None,
    draws: flags.Draws = None,
    target_error: flags.TargetError = None,
    precision: flags.Precision = None,
    unit_size: flags.UnitSize = None,
    workers: flags.Workers = None,
    ray_address: flags.RayAddress = None,
    cpus: flags.Cpus = None,
    engine_cpus: flags.EngineCpus = None,
    engine_gpus: flags.EngineGpus = None,
    population_order: flags.PopulationOrder = None,
    population_bins: flags.PopulationBins = None,
    keep_draws: flags.KeepDraws = None,
    redo_companions: flags.RedoCompanions = None,
    limit: flags.Limit = None,
    full: flags.Full = None,
    prune: flags.Prune = None,
    max_removed: flags.MaxRemoved = None,
    max_attempts: flags.MaxAttempts = None,
    unit_seconds: flags.UnitSeconds = None,
    stall_minutes: flags.StallMinutes = None,
    give_up_minutes: flags.GiveUpMinutes = None,
    max_rejects: flags.MaxRejects = None,
    crop: flags.Crop = None,
    preset: flags.Preset = None,
    frames: flags.Frames = None,
    frame_index: flags.FrameIndex = None,
    band_files: flags.BandFiles = None,
    default_radius: flags.DefaultRadius = None,
    max_image_bytes: flags.MaxImageBytes = None,
    max_image_pixels: flags.MaxImagePixels = None,
    max_image_expansion: flags.MaxImageExpansion = None,
    max_image_header_bytes: flags.MaxImageHeaderBytes = None,
    max_image_memory_mib: flags.MaxImageMemoryMib = None,
    max_id_characters: flags.MaxIdCharacters = None,
    max_shard_members: flags.MaxShardMembers = None,
    object_store_mib: flags.ObjectStoreMib = None,
    grace: flags.Grace = None,
    log_format: flags.LogFormat = None,
    webhook: flags.Webhook = None,
    config: flags.ConfigFile = None,
) -> None:
    """Catalog a survey, or bring its catalog up to date.

    The catalog has the 37 debiased vote fractions of Galaxy Zoo 2: what volunteers would say if the galaxy
    were nearby, of all volunteers.

    Example: gax run --input s3://survey/cutouts --catalog s3://survey/catalog
    """
    settings = _settings(config, locals())
    from gax_batch.runner.display import open_display
    from gax_batch.runner.run import run_survey

    display = open_display(typer.echo, json_lines=settings.log_format == "json")
    try:
        raise typer.Exit(run_survey(settings, display.say, display).exit_code)
    except GaxError as error:
        display.fail(str(error))
        raise typer.Exit(error.exit_code) from error


@app.command()
def plan(
    input: flags.Input = None,
    catalog: flags.Catalog = None,
    positions: flags.Positions = None,
    bundle: flags.Bundle = None,
    models: flags.Models = None,
    draws: flags.Draws = None,
    target_error: flags.TargetError = None,
    precision: flags.Precision = None,
    unit_size: flags.UnitSize = None,
    workers: flags.Workers = None,
    ray_address: flags.RayAddress = None,
    cpus: flags.Cpus = None,
    engine_cpus: flags.EngineCpus = None,
    engine_gpus: flags.EngineGpus = None,
    population_order: flags.PopulationOrder = None,
    population_bins: flags.PopulationBins = None,
    keep_draws: flags.KeepDraws = None,
    redo_companions: flags.RedoCompanions = None,
    limit: flags.Limit = None,
    full: flags.Full = None,
    prune: flags.Prune = None,
    max_removed: flags.MaxRemoved = None,
    max_attempts: flags.MaxAttempts = None,
    unit_seconds: flags.UnitSeconds = None,
    stall_minutes: flags.StallMinutes = None,
    give_up_minutes: flags.GiveUpMinutes = None,
    max_rejects: flags.MaxRejects = None,
    crop: flags.Crop = None,
    preset: flags.Preset = None,
    frames: flags.Frames = None,
    frame_index: flags.FrameIndex = None,
    band_files: flags.BandFiles = None,
    default_radius: flags.DefaultRadius = None,
    max_image_bytes: flags.MaxImageBytes = None,
    max_image_pixels: flags.MaxImagePixels = None,
    max_image_expansion: flags.MaxImageExpansion = None,
    max_image_header_bytes: flags.MaxImageHeaderBytes = None,
    max_image_memory_mib: flags.MaxImageMemoryMib = None,
    max_id_characters: flags.MaxIdCharacters = None,
    max_shard_members: flags.MaxShardMembers = None,
    object_store_mib: flags.ObjectStoreMib = None,
    grace: flags.Grace = None,
    log_format: flags.LogFormat = None,
    webhook: flags.Webhook = None,
    config: flags.ConfigFile = None,
    calibrate: flags.Calibrate = True,
    hours: flags.Hours = 20.0,
    core_price: flags.CorePrice = None,
    gpu_price: flags.GpuPrice = None,
) -> None:
    """Say what a run of the same flags would do, need and take; nothing is written.

    Example: gax plan --input s3://survey/cutouts --catalog s3://survey/catalog
    """
    settings = _settings(config, {k: v for k, v in locals().items() if k not in _OF_PLAN})
    from gax_batch.runner.estimate import Budget, forecast

    budget = Budget(hours, core_price, gpu_price)
    raise typer.Exit(forecast(settings, typer.echo, calibrate=calibrate, budget=budget))


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
    frame_index: flags.FrameIndex = None,
    band_files: flags.BandFiles = None,
    default_radius: flags.DefaultRadius = None,
    max_image_bytes: flags.MaxImageBytes = None,
    max_image_pixels: flags.MaxImagePixels = None,
    max_image_expansion: flags.MaxImageExpansion = None,
    max_image_header_bytes: flags.MaxImageHeaderBytes = None,
    max_image_memory_mib: flags.MaxImageMemoryMib = None,
    max_id_characters: flags.MaxIdCharacters = None,
    max_shard_members: flags.MaxShardMembers = None,
    originals: Annotated[
        bool, typer.Option("--originals", help="Keep the images as they are, not as 64x64 cutouts.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(help="Worker processes.", show_default="one per CPU", min=1)
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove shards of the survey as it was before.")
    ] = False,
) -> None:
    """Pack a survey's cutouts, or its images, into Parquet shards, which are read much faster.

    Example: gax pack --input s3://survey/cutouts --output s3://survey/packed
    """
    given = {k: v for k, v in locals().items() if k not in ("output", "originals", "processes", "replace")}
    from gax_batch.runner.pack import pack_survey
    from gax_batch.runner.settings import load_settings

    settings = load_settings(None, given | {"catalog": output})
    done = pack_survey(settings, typer.echo, originals=originals, processes=processes, replace=replace)
    counts = "".join(f", {n:,} rejected: {reason}" for reason, n in sorted(done.rejects.items()))
    typer.echo(f"{done.shards:,} shards: {done.written:,} written, {done.removed:,} removed{counts}")
    if done.failed:
        typer.echo(f"{done.failed:,} shards wait for a storage that failed; the same command makes them")
        raise typer.Exit(3)


@app.command()
def classify(
    images: Annotated[list[str], typer.Argument(help="Image files or URIs.", metavar="IMAGE...")],
    bundle: flags.Bundle = None,
    models: flags.Models = None,
    draws: flags.Draws = None,
    precision: flags.Precision = None,
    preset: flags.Preset = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    plot: Annotated[
        str | None,
        typer.Option(help="Picture of the images and their trees: .png, .pdf or .svg.", show_default="none"),
    ] = None,
) -> None:
    """Classify a few images in this process, without Ray or a catalog: their trees with intervals.

    The fractions are those of a catalog: debiased, of all volunteers.

    Example: gax classify ngc6976.jpg --plot ngc6976.png
    """
    given = {"bundle": bundle, "models": models, "draws": draws, "precision": precision, "preset": preset}
    from gax_batch.runner.settings import load_settings
    from gax_batch.viewer.classify import (
        check_plot,
        classify_images,
        render_json,
        render_trees,
        save_plot,
    )

    if plot is not None:
        check_plot(plot)
    # A classification shares the settings of a run but for where its images come from and go to.
    settings = load_settings(None, given | {"input": images[0], "catalog": "-"})
    rows = classify_images(
        images,
        bundle=settings.bundle,
        models=settings.models,
        draws=settings.draws,
        precision=settings.precision,
        decoder=settings.decoder,
        warn=partial(typer.echo, err=True),
    )
    typer.echo(render_json(rows) if json else render_trees(rows))
    if plot is not None:
        save_plot(rows, settings.decoder, plot)


@config_app.command("show")
def config_show(config: flags.ConfigFile = None) -> None:
    """Print every setting with its meaning as YAML that --config reads back.

    Example: gax config show > survey.yaml
    """
    from gax_batch.runner.settings import describe_settings, load_settings

    typer.echo(describe_settings(load_settings(config, {}) if config else None))


def _settings(config: str | None, given: dict[str, Any]) -> Any:
    """The settings of `run` and `plan`, whose flags are the settings' names."""
    from gax_batch.runner.settings import load_settings

    values = {name: value for name, value in given.items() if name != "config"}
    values |= {name: _number(values[name]) for name in ("workers", "cpus", "object_store_mib")}
    return load_settings(config, values)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value
