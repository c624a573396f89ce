"""Command that runs RayJobs on Kubernetes: `submit`."""

import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from gax_batch.cli import options
from gax_batch.cli.app import app
from gax_batch.errors import UsageError
from gax_batch.runner.settings import RunSettings, load_settings
from gax_batch.system.extras import require_extra

if TYPE_CHECKING:
    from gax_batch.cluster.kubernetes.rayjob import Problem


@app.command()
def submit(
    template: Annotated[
        str,
        typer.Option(help="RayJob to submit: a YAML file, - for standard input, or rayjob/NAME."),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the night. Its RayJobs are NAME-1, NAME-2, ... One that runs is adopted.",
            show_default="name of the owner, or of the template with the date",
        ),
    ] = None,
    owner_job: Annotated[
        str | None,
        typer.Option(
            help="Kubernetes Job that runs this command. A new pod of the Job adopts the running RayJob. The "
            "RayJobs end before the deadline of the Job and are deleted with it.",
        ),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the job.")] = "gax-batch",
    context: Annotated[
        str | None, typer.Option(help="Context of the kubeconfig file.", show_default="the current one")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Report problems of the RayJob without creating it.")
    ] = False,
    config: options.ConfigFile = None,
    plan_first: Annotated[
        bool,
        typer.Option(
            "--plan-first",
            help="Plan the run of the RayJob's entry point in this process, with its files and credentials. "
            "Do not create a cluster if there is nothing to do.",
        ),
    ] = False,
    attempts: Annotated[
        int, typer.Option(help="Maximum number of RayJobs of a night when the infrastructure fails.", min=1)
    ] = 3,
    keep: Annotated[int, typer.Option(help="Number of ended RayJobs to keep in the cluster.", min=1)] = 7,
) -> None:
    """Run a RayJob on Kubernetes, wait for its end, and return the exit code of the run.

    Exit code 75: the Kubernetes API does not answer. The RayJob continues, and the same command adopts it.

    Example: gax submit --template rayjob/gax-batch --check
    """
    require_extra("kubernetes", "gax submit", "kubernetes")
    from gax_batch.cluster.kubernetes import submit as jobs
    from gax_batch.cluster.kubernetes.api import connect
    from gax_batch.cluster.kubernetes.night import night_of

    cluster = connect(namespace, context)
    owner = None if owner_job is None else jobs.read_owner(cluster, owner_job)
    night = night_of(jobs.read_template(cluster, template), name, owner)
    if not check:
        patience = jobs.Patience(keep=keep, attempts=attempts)
        entry_point = str(night.template["spec"].get("entrypoint") or "")
        more = {"up_to_date": partial(_is_up_to_date, entry_point)} if plan_first else {}
        raise typer.Exit(jobs.submit(cluster, night, patience, **more))
    problems = jobs.check(cluster, night)
    _show_problems(problems, config)
    typer.echo(f"{night.name}-1 can be submitted to {namespace}; nothing was created")


def _show_problems(problems: "list[Problem]", config: str | None) -> None:
    """Show the problems of the manifests and, if a configuration is given, of its survey. Exit if any."""
    if config is not None:
        from gax_batch.runner.preflight import survey_problems

        problems = [*problems, *survey_problems(load_settings(config, {}))]
    for problem in problems:
        typer.echo(f"gax: {problem}", err=True)
    if problems:
        raise typer.Exit(2)


def _is_up_to_date(entry_point: str) -> bool:
    from gax_batch.runner.up_to_date import is_up_to_date

    return is_up_to_date(run_settings(entry_point))


def run_settings(entry_point: str) -> RunSettings:
    """Return the settings of a command `gax run ...`, as the command itself would read them.

    Args:
        entry_point: The command line. Its files are read by this process.

    Raises:
        UsageError: It is another command, or one of its options is wrong.
    """
    words = shlex.split(entry_point)
    if words[:2] != ["gax", "run"]:
        raise UsageError(
            f"--plan-first needs an entry point 'gax run ...', not '{entry_point}'; omit the option"
        )
    command = typer.main.get_group(app).commands["run"]
    try:
        given = dict(command.make_context("gax run", words[2:]).params)
    except TyperException as error:
        raise UsageError(f"the entry point '{entry_point}': {error}; correct it") from None
    config = given.pop("config")
    return load_settings(config, {name: value for name, value in given.items() if value is not None})
