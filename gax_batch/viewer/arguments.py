"""Convert and check arguments of the notebook API: paths, identifiers, names and globs of columns."""

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa

from gax_batch import storage
from gax_batch.analysis.conditional import NAMES
from gax_batch.catalog import layout
from gax_batch.catalog.schema import GALAXIES
from gax_batch.catalog.snapshots import Catalog, open_existing
from gax_batch.errors import UsageError
from gax_batch.export.selection import choose_columns
from gax_batch.storage.listing import list_objects

Ids = str | int | Iterable[str | int]
"""One or more galaxy identifiers, as text or, as in some surveys, as integers."""

Columns = str | Iterable[str] | None
"""One or more names or globs of columns (`*_prob`); None for all columns."""


def uri_of(place: str | os.PathLike[str]) -> str:
    """Return a path or URI as text.

    Raises:
        UsageError: The argument is neither text nor a path.
    """
    found = os.fspath(place) if isinstance(place, str | os.PathLike) else None
    if not isinstance(found, str):
        raise UsageError(f"pass a folder or a URI as text or a Path, not {_kind(place)} ({place!r:.40})")
    return found


def open_named(uri: str, version: int | None = None) -> Catalog:
    """Open an existing catalog.

    Args:
        uri: URI of the catalog.
        version: Number of the snapshot; None for the newest.

    Raises:
        UsageError: The catalog does not exist. The message names a catalog below or above the URI, if any.
    """
    uri = storage.normalize_uri(uri)
    if not _is_catalog(uri):
        # Users often pass the parent folder of a catalog, or the folder of its table.
        parent = uri.rpartition("/")[0]
        near = [storage.join(uri, "catalog"), *([parent] if "://" in parent and parent[-1] != "/" else [])]
        found = next(filter(_is_catalog, near), None)
        hint = f"did you mean {found}?" if found else "check the path; gax run creates a catalog"
        raise UsageError(f"there is no catalog at {uri}; {hint}")
    return open_existing(uri, version)


def _is_catalog(uri: str) -> bool:
    log = storage.join(layout.table(uri, layout.GALAXIES_TABLE), layout.DELTA_LOG)
    return next(iter(list_objects(log, missing_ok=True)), None) is not None


def ids_of(ids: Ids) -> list[str]:
    """Return identifiers as text, the type of the column galaxy_id.

    Raises:
        UsageError: An identifier is neither text nor an integer.
    """
    if isinstance(ids, pa.Array | pa.ChunkedArray):
        ids = ids.to_pylist()
    if isinstance(ids, str | int | np.integer):
        ids = [ids]
    if not isinstance(ids, Iterable):
        raise UsageError(f"pass a list of galaxy_id, not {_kind(ids)} ({ids!r:.40})")
    return [_id_of(name) for name in ids]


def columns_of(columns: Columns) -> list[str]:
    """Return the names of the columns that names or globs match, each once.

    Raises:
        UsageError: A name or glob does not match any column of the catalog.
    """
    if columns is None:
        return list(GALAXIES.names)
    if not isinstance(columns, Iterable):
        raise UsageError(f"pass columns as text or a list of text, not {_kind(columns)}")
    patterns = [columns] if isinstance(columns, str) else list(columns)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise UsageError(f"pass columns as text, not {_kind(pattern)} ({pattern!r:.40})")
        _require_stored(pattern)
    return list(choose_columns(patterns, option="")) if any(patterns) else []


def _require_stored(pattern: str) -> None:
    derived = [name for name in NAMES if fnmatchcase(name, pattern)]
    if derived and not any(fnmatchcase(name, pattern) for name in GALAXIES.names):
        raise UsageError(
            f"{pattern!r} is not stored in a catalog; use the method conditional, which derives {derived[0]}"
        )


def _id_of(name: object) -> str:
    if isinstance(name, pa.Scalar):
        name = name.as_py()
    if isinstance(name, str):
        return str(name)
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return str(int(name))
    if isinstance(name, float | np.floating):
        raise UsageError(
            f"galaxy_id is text, and {name!r} is a float, which rounds long numbers; "
            "read the identifiers as text"
        )
    raise UsageError(f"galaxy_id is text, not {_kind(name)} ({name!r:.40})")


def _kind(value: object) -> str:
    return f"an object of type {type(value).__name__}"
