"""A catalog over time: `catalog log`, `show`, `rejects`, `diff`, `restore`, `compact`, `vacuum`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from gax_batch.cli.app import app
from gax_batch.imaging.limits import DEFAULT_UNIT_SIZE, MAX_UNIT_SIZE
from gax_batch.models import DEFAULT_DRAWS, DEFAULT_PASSES

catalog_app = typer.Typer(help="A catalog's snapshots: compare, go back, keep small.", no_args_is_help=True)
app.add_typer(catalog_app, name="catalog")

Uri = Annotated[str, typer.Option("--catalog", help="The catalog's folder or URI.")]
Version = Annotated[int, typer.Argument(help="Number of a snapshot, as `log` lists them.", min=0)]


@catalog_app.command("log")
def log(
    catalog: Uri,
    limit: Annotated[int | None, typer.Option(help="Only the newest N.", min=1, show_default="all")] = None,
) -> None:
    """List the snapshots, the newest first: when, by which run, how many galaxies.

    Example: gax catalog log --catalog s3://survey/catalog
    """
    from gax_batch.catalog.history import log_lines
    from gax_batch.catalog.snapshots import open_existing

    opened = open_existing(catalog)
    for line in log_lines(opened.history()[:limit], opened.oldest()):
        typer.echo(line)


@catalog_app.command("show")
def show(
    catalog: Uri,
    version: Annotated[
        int | None, typer.Argument(help="Number of a snapshot.", min=0, show_default="the newest")
    ] = None,
) -> None:
    """Say what a snapshot holds: galaxies by bundle and class, rejects by reason.

    Example: gax catalog show 12 --catalog s3://survey/catalog
    """
    from gax_batch.catalog.history import contents, contents_lines
    from gax_batch.catalog.snapshots import open_existing

    for line in contents_lines(contents(open_existing(catalog, version))):
        typer.echo(line)


@catalog_app.command("rejects")
def rejects(
    catalog: Uri,
    version: Annotated[
        int | None, typer.Argument(help="Number of a snapshot.", min=0, show_default="the newest")
    ] = None,
) -> None:
    """Write the cutouts that a snapshot could not catalog, as CSV: stage, reason, detail.

    Example: gax catalog rejects --catalog s3://survey/catalog > rejects.csv
    """
    from gax_batch.catalog.history import rejects_csv
    from gax_batch.catalog.snapshots import open_existing

    for text in rejects_csv(open_existing(catalog, version)):
        typer.echo(text, nl=False)


@catalog_app.command("diff")
def diff(
    before: Version,
    after: Version,
    catalog: Uri,
    most: Annotated[int, typer.Option(help="How many of the most changed galaxies to list.", min=0)] = 10,
) -> None:
    """Compare two snapshots: galaxies added and removed, how far probabilities moved.

    Example: gax catalog diff 11 12 --catalog s3://survey/catalog
    """
    from gax_batch.catalog.diff import changes_lines, compare
    from gax_batch.catalog.snapshots import open_existing

    with tempfile.TemporaryDirectory(prefix="gax-") as folder:
        found = compare(
            open_existing(catalog, before), open_existing(catalog, after), Path(folder), most=most
        )
    for line in changes_lines(found):
        typer.echo(line)


@catalog_app.command("restore")
def restore(version: Version, catalog: Uri) -> None:
    """Make an earlier snapshot the newest again; what came after it stays in the history.

    Example: gax catalog restore 11 --catalog s3://survey/catalog
    """
    from gax_batch.catalog.history import restore as go_back

    typer.echo(f"snapshot {go_back(catalog, version)} of {catalog} is snapshot {version} again")


@catalog_app.command("compact")
def compact(
    catalog: Uri,
    unit_size: Annotated[
        int, typer.Option(help="Cutouts of a merged unit, at most.", min=1, max=MAX_UNIT_SIZE)
    ] = DEFAULT_UNIT_SIZE,
) -> None:
    """Merge the small units of many nights into large ones; no row changes.

    Example: gax catalog compact --catalog s3://survey/catalog
    """
    from gax_batch.catalog.compaction import compact as merge

    done = merge(catalog, unit_size, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS)
    typer.echo(f"{done.before:,} units are {done.after:,} now, at snapshot {done.version}")


@catalog_app.command("vacuum")
def vacuum(
    catalog: Uri,
    keep_days: Annotated[int, typer.Option(help="Days whose snapshots stay readable.", min=1)] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count, delete nothing.")] = False,
) -> None:
    """Delete what only snapshots older than some days need, and end those snapshots.

    Parts of a run that is at work, or was interrupted in the last 7 days, stay.

    Example: gax catalog vacuum --keep-days 30 --catalog s3://survey/catalog
    """
    from gax_batch.catalog.vacuum import vacuum as clean

    done = clean(catalog, keep_days, dry_run=dry_run)
    verb = "would be deleted" if dry_run else "deleted"
    typer.echo(f"{done.parts:,} parts and {done.plans:,} files of plans {verb}")
    if done.ended:
        typer.echo(
            f"snapshots {done.ended[0]} to {done.ended[-1]} {'would end' if dry_run else 'have ended'}; "
            f"the oldest is then {done.ended.stop}"
        )
    for run_id in done.unfinished:
        typer.echo(f"what the unfinished run {run_id} may still commit was left")
