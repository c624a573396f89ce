"""gax-batch: from a survey's galaxy cutouts to a catalog of morphology probabilities."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from gax_batch.viewer.notebook import Snapshot

__version__ = "0.1.0"


def open_catalog(
    uri: "str | PathLike[str]", version: int | None = None, sources: "str | PathLike[str] | None" = None
) -> "Snapshot":
    """Open a catalog for reading, for example in a notebook.

    Args:
        uri: Folder or URI of the catalog.
        version: Number of a snapshot, as `gax catalog log` lists them; None for the newest.
        sources: Folder or prefix that now contains the survey's files, if they were moved or their
            modification times changed. A file of the same size then counts as the one that was cataloged.
            None: read cutouts only from unchanged files in their original places.

    Returns:
        The snapshot. Its rows are read when they are needed.

    Raises:
        UsageError: The catalog or the snapshot does not exist.

    >>> import gax_batch
    >>> snapshot = gax_batch.open_catalog("catalog")
    >>> len(snapshot)
    4
    """
    # Imported by name and late: `import gax_batch` stays light, and no layer below is tied to that one.
    snapshot: Snapshot = import_module("gax_batch.viewer.notebook").Snapshot(uri, version, sources)
    return snapshot
