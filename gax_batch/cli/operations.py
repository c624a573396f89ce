"""On Kubernetes: `submit`."""

from typing import Annotated

import typer

from gax_batch.cli import options
from gax_batch.cli.app import app
from gax_batch.system.extras import require_extra


@app.command()
def submit(
    template: Annotated[
        str,
        typer.Option(help="The RayJob: a YAML file, - for standard input, or rayjob/NAME."),
    ],
    name: Annotated[
        str | None,
        typer.Option(help="The job's name; one of this name is adopted.", show_default="template's and date"),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the job.")] = "gax-batch",
    context: Annotated[
        str | None, typer.Option(help="Context of the kubeconfig file.", show_default="the current one")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is wrong with it; nothing is created.")
    ] = False,
    config: options.ConfigFile = None,
    keep: Annotated[int, typer.Option(help="Ended jobs to keep in the cluster.", min=1)] = 7,
) -> None:
    """Run a RayJob on Kubernetes and wait for it; the exit code is the run's. With --check, only look.

    Example: gax submit --template rayjob/gax-batch --check
    """
    require_extra("kubernetes", "gax submit", "kubernetes")
    from gax_batch.cluster.kubernetes import submit as jobs
    from gax_batch.cluster.kubernetes.api import connect

    cluster = connect(namespace, context)
    job = jobs.job_of_night(jobs.read_template(cluster, template), name)
    if not check:
        raise typer.Exit(jobs.submit(cluster, job, jobs.Patience(keep=keep)))
    problems = jobs.check(cluster, job)
    if config is not None:
        from gax_batch.runner.preflight import survey_problems
        from gax_batch.runner.settings import load_settings

        problems += survey_problems(load_settings(config, {}))
    for problem in problems:
        typer.echo(f"gax: {problem}", err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo(f"{job['metadata']['name']} can be submitted to {namespace}; nothing was created")
