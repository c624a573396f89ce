"""Commands that simulate data: `demo`, `simulate`."""

from typing import Annotated

import typer

from gax_batch.cli.app import app


@app.command()
def demo(
    output: Annotated[str, typer.Option(help="Folder for the simulated survey and its catalog.")] = "demo",
    galaxies: Annotated[int, typer.Option(help="Number of galaxies to simulate.", min=1)] = 500,
) -> None:
    """Simulate a small survey, catalog it, and show the contents of the catalog.

    Example: gax demo --output demo
    """
    from gax_batch.cli.demo import run_demo
    from gax_batch.runner.settings import load_settings

    settings = load_settings(None, {"input": f"{output}/survey", "catalog": f"{output}/catalog"})
    raise typer.Exit(run_demo(settings, galaxies))


@app.command()
def simulate(
    output: Annotated[str, typer.Option(help="Folder or prefix for the Parquet shards.")],
    galaxies: Annotated[int, typer.Option(help="Number of galaxies to simulate.", min=1)] = 10_000,
    seed: Annotated[
        int, typer.Option(help="Seed of the simulation. The same seed gives the same survey.", min=0)
    ] = 0,
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
