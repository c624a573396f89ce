"""gax-batch: a survey's galaxy cutouts go in, a catalog of morphology probabilities comes out."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from gax_batch.viewer.notebook import Snapshot

__version__ = "0.1.0"


def open_catalog(
    uri: "str | PathLike[str]", version: int | None = None, sources: "str | PathLike[str] | None" = None
) -> "Snapshot":
    """Open a catalog for reading, as in a notebook.

    Args:
        uri: Its folder or URI.
        version: The number of a snapshot, as `gax catalog log` lists them; the newest if None.
        sources: The folder or prefix that the survey's files are below now, where they were moved, or touched
            so that their modification times differ: a file of the same size is taken for the one that was
            cataloged. None: cutouts are read only from unchanged files in their old places.

    Returns:
        The snapshot; its rows are read when they are asked for.

    Raises:
        UsageError: There is no catalog, or no such snapshot.

    >>> import gax_batch
    >>> snapshot = gax_batch.open_catalog("catalog")
    >>> len(snapshot)
    4
    """
    # Imported by name and late: `import gax_batch` stays light, and no layer below is tied to that one.
    snapshot: Snapshot = import_module("gax_batch.viewer.notebook").Snapshot(uri, version, sources)
    return snapshot
