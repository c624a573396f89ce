"""Complete a stored unit with cutouts that the storage failed to give when the unit was made.

Rows, rejects and companions of the unit stay as they are. Only the cutouts that its part rejects for a
passing fault of the storage (`rejects.PASSING`) are read and classified again. A new part replaces the old
one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import storage
from gax_batch.catalog import companions, layout
from gax_batch.catalog.draws import DRAWS
from gax_batch.catalog.parts import read_columns
from gax_batch.catalog.schema import GALAXIES, REJECTS
from gax_batch.catalog.sums import SUMS, Grouping, add_up
from gax_batch.rejects import PASSING


@dataclass(frozen=True, slots=True)
class UnitRows:
    """The tables that a unit stores: `GALAXIES`, `REJECTS`, and companions by kind."""

    galaxies: pa.Table
    rejects: pa.Table
    companions: Mapping[str, pa.Table]


def unread_cutouts(catalog: str, key: str) -> pa.ChunkedArray:
    """Return the `source_uri` of each cutout that a part rejects for a passing fault of the storage.

    Args:
        catalog: URI of the catalog.
        key: Key of the galaxies part. It must have rejects.

    Raises:
        FatalError: The part is missing or unreadable.
        TransientError: The store kept failing.
    """
    rejects = _rejects(catalog, key)
    return rejects.filter(_may_pass(rejects))["source_uri"]


def can_complete(catalog: str, key: str, grouping: Grouping, *, keep_draws: bool) -> bool:
    """Return whether a part has the companions, with the groups of galaxies, that a run makes.

    Args:
        catalog: URI of the catalog.
        key: Key of the galaxies part.
        grouping: Groups of galaxies over which the run sums.
        keep_draws: Whether the run keeps the draws of every galaxy.

    Raises:
        FatalError: A companion is unreadable.
        TransientError: The store kept failing.
    """
    if not storage.exists(layout.companion(catalog, layout.POPULATION, key)):
        return False
    if storage.exists(layout.companion(catalog, layout.DRAWS, key)) != keep_draws:
        return False
    (sums,) = companions.read(catalog, layout.POPULATION, [key], SUMS)
    # The sums of a part without galaxies are empty.
    return not len(sums) or grouping.has_made(sums)


def complete(catalog: str, key: str, new: UnitRows) -> UnitRows:
    """Add cutouts that were tried again to the unit that a part stores.

    Args:
        catalog: URI of the catalog.
        key: Key of the galaxies part.
        new: The cutouts of `unread_cutouts`, as galaxies or as rejects.

    Returns:
        The whole unit, rows sorted by `source_uri`.

    Raises:
        FatalError: The part or a companion is missing or unreadable.
        TransientError: The store kept failing.
    """
    galaxies = read_columns(layout.table(catalog, layout.GALAXIES_TABLE), [key], GALAXIES)
    rejects = _rejects(catalog, key)
    rejects = rejects.filter(pc.invert(_may_pass(rejects)))
    sums = companions.read(catalog, layout.POPULATION, [key], SUMS)
    merged = {layout.POPULATION: add_up([*sums, new.companions[layout.POPULATION]])}
    if layout.DRAWS in new.companions:
        stored = companions.read(catalog, layout.DRAWS, [key], DRAWS)
        merged[layout.DRAWS] = pa.concat_tables([*stored, new.companions[layout.DRAWS]])
    return UnitRows(
        pa.concat_tables([galaxies, new.galaxies]).sort_by("source_uri"),
        pa.concat_tables([rejects, new.rejects]).sort_by("source_uri"),
        merged,
    )


def _rejects(catalog: str, key: str) -> pa.Table:
    return read_columns(layout.table(catalog, layout.REJECTS), [key], REJECTS)


def _may_pass(rejects: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(rejects["reason"], pa.array(sorted(PASSING), pa.string()))
