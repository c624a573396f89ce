"""Commands for the snapshots of a catalog: `catalog log`, `show`, `rejects`, `diff`, `restore`, ..."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from gax_batch.cli.app import app
from gax_batch.imaging.limits import DEFAULT_UNIT_SIZE, MAX_UNIT_SIZE
from gax_batch.models import DEFAULT_DRAWS, DEFAULT_PASSES

catalog_app = typer.Typer(
    help="List, compare, restore and clean up the snapshots of a catalog.", no_args_is_help=True
)
app.add_typer(catalog_app, name="catalog")

Uri = Annotated[str, typer.Option("--catalog", help="Folder or URI of the catalog.")]
Version = Annotated[int, typer.Argument(help="Number of a snapshot, as listed by `gax catalog log`.", min=0)]


@catalog_app.command("log")
def log(
    catalog: Uri,
    limit: Annotated[
        int | None, typer.Option(help="List only the newest N snapshots.", min=1, show_default="all")
    ] = None,
) -> None:
    """List the snapshots, newest first: time, run and number of galaxies.

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
    """Show the contents of a snapshot: galaxies by bundle and class, rejects by reason.

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
    """Print the rejected cutouts of a snapshot as CSV: stage, reason, detail.

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
    most: Annotated[int, typer.Option(help="Maximum number of most changed galaxies to list.", min=0)] = 10,
) -> None:
    """Compare two snapshots: galaxies added and removed, and changes of the fractions.

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
    """Restore an earlier snapshot as the newest one. The later snapshots stay in the history.

    Example: gax catalog restore 11 --catalog s3://survey/catalog
    """
    from gax_batch.catalog.history import restore as restore_snapshot

    typer.echo(f"snapshot {restore_snapshot(catalog, version)} of {catalog} is snapshot {version} again")


@catalog_app.command("compact")
def compact(
    catalog: Uri,
    unit_size: Annotated[
        int, typer.Option(help="Maximum number of cutouts in a merged unit.", min=1, max=MAX_UNIT_SIZE)
    ] = DEFAULT_UNIT_SIZE,
) -> None:
    """Merge the small units of many nights into large ones. The rows do not change.

    Example: gax catalog compact --catalog s3://survey/catalog
    """
    from gax_batch.catalog.compaction import compact as merge

    done = merge(catalog, unit_size, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS)
    typer.echo(f"{done.before:,} units were merged into {done.after:,} at snapshot {done.version}")


@catalog_app.command("vacuum")
def vacuum(
    catalog: Uri,
    keep_days: Annotated[
        int, typer.Option(help="Keep the snapshots of this many days readable.", min=1)
    ] = 30,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the files without deleting them.")
    ] = False,
) -> None:
    """Delete files that only old snapshots need. These snapshots can no longer be read.

    Parts of a current run, or of one that was interrupted in the last 7 days, are kept.

    Example: gax catalog vacuum --keep-days 30 --catalog s3://survey/catalog
    """
    from gax_batch.catalog.vacuum import vacuum as clean

    done = clean(catalog, keep_days, dry_run=dry_run)
    verb = "would be deleted" if dry_run else "deleted"
    typer.echo(f"{done.parts:,} parts and {done.plans:,} files of plans {verb}")
    if done.ended:
        state = "would no longer be readable" if dry_run else "are no longer readable"
        typer.echo(
            f"snapshots {done.ended[0]} to {done.ended[-1]} {state}; "
            f"the oldest readable one is then {done.ended.stop}"
        )
    for run_id in done.unfinished:
        typer.echo(f"parts that the unfinished run {run_id} may still commit were kept")
