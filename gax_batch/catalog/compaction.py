"""Merge small units, such as those of many nights, into large ones, so that a catalog has few parts."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from gax_batch import storage
from gax_batch.catalog import companions, layout
from gax_batch.catalog.draws import DRAWS, count_draws
from gax_batch.catalog.history import operation_id
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.parts import Part, read_columns, read_origins, write_unit
from gax_batch.catalog.schema import GALAXIES, REJECTS
from gax_batch.catalog.snapshots import Catalog, open_existing
from gax_batch.catalog.sums import SUMS, add_up
from gax_batch.imaging.limits import MAX_UNIT_SIZE
from gax_batch.system.machine import (
    available_bytes,
    local_resources,
    predict_memory,
    require_memory,
)

COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Compaction:
    """The numbers of units before and after a compaction, and its snapshot."""

    before: int
    after: int
    version: int | None


def compact(uri: str, unit_size: int, *, passes: int, draws: int) -> Compaction:
    """Merge units of less than half the size, in one commit; no row changes.

    Args:
        uri: URI of the catalog.
        unit_size: Maximum number of cutouts of a merged unit.
        passes: Passes through the convolutions of the later runs that must be able to redo a merged unit.
        draws: Their draws per galaxy.

    Raises:
        UsageError: There is no catalog, a run on this machine could not hold a merged unit in memory, or
            another run has redone one of the units in the meantime.
        FatalError: A part cannot be read, or the store refused.
        TransientError: The store kept failing.
    """
    catalog = open_existing(uri)
    groups = list(_groups(catalog, min(unit_size, MAX_UNIT_SIZE)))
    _require_memory(catalog, groups, passes, draws)
    merged = [(group, _merge(catalog, group)) for group in groups]
    old = [name.unit_id for group, _ in merged for name in group]
    before = len(catalog.parts())
    version = catalog.commit(
        [part for _, part in merged],
        run_id=operation_id(COMPACT),
        metadata={"operation": COMPACT},
        removed=old,
    )
    return Compaction(before, before - len(old) + len(merged), version)


def _groups(catalog: Catalog, unit_size: int) -> Iterator[list[PartName]]:
    """Yield groups of small units of the same settings that fit into one unit, in the order of their keys.

    A unit of whole shards is merged only with other such units, so that later plans need not list the shards.
    """
    sizes = catalog.planned()
    small: dict[tuple[str, bool], list[PartName]] = defaultdict(list)
    for name in catalog.parts():
        if 2 * sizes[name] <= unit_size:
            small[name.settings_fingerprint, name.origin == layout.MANY_ORIGINS].append(name)
    for names in small.values():
        group: list[PartName] = []
        for name in names:
            if group and sum(sizes[member] for member in group) + sizes[name] > unit_size:
                if len(group) > 1:
                    yield group
                group = []
            group.append(name)
        if len(group) > 1:
            yield group


def _require_memory(catalog: Catalog, groups: Sequence[Sequence[PartName]], passes: int, draws: int) -> None:
    """Refuse to make units that a later run could not redo, by the memory that is predicted for runs."""
    sizes, available = catalog.planned(), available_bytes()
    largest = max(sizes.values(), default=0)
    for group in groups:
        size = sum(sizes[name] for name in group)
        if size <= largest:
            continue  # a run has held as many cutouts
        kept = count_draws(catalog.uri, group[0].key)
        use = local_resources(
            cpus="auto",
            workers="auto",
            object_store_mib="auto",
            unit_size=size,
            kept_draws=kept,
            address="local",
        )
        need = predict_memory(
            use, units=1, unit_size=size, passes=passes, draws=max(kept, draws), kept_draws=kept
        )
        require_memory(need, available)


def _merge(catalog: Catalog, group: Sequence[PartName]) -> Part:
    keys = [name.key for name in group]
    origins = list(read_origins(catalog.uri, group))
    with_rejects = {name.key for name in catalog.reject_parts()}
    galaxies = read_columns(layout.table(catalog.uri, layout.GALAXIES_TABLE), keys, GALAXIES)
    rejects = read_columns(
        layout.table(catalog.uri, layout.REJECTS), [key for key in keys if key in with_rejects], REJECTS
    )
    return write_unit(
        catalog.uri,
        group[0].settings_fingerprint,
        galaxies,
        rejects,
        unit_id=_digest([name.unit_id for name in group]),
        fingerprint=_digest([name.fingerprint for name in group]),
        planned=len(galaxies) + len(rejects),
        origins=list(chain(*origins)) if all(origins) else [],
        companions=_merged_companions(catalog.uri, keys),
    )


def _merged_companions(uri: str, keys: Sequence[str]) -> dict[str, pa.Table]:
    """Return the companions of a merged unit by kind. Units of the same settings have the same kinds."""
    kinds = [kind for kind in layout.COMPANIONS if storage.exists(layout.companion(uri, kind, keys[0]))]
    merged: dict[str, pa.Table] = {}
    if layout.POPULATION in kinds:
        merged[layout.POPULATION] = add_up(companions.read(uri, layout.POPULATION, keys, SUMS))
    if layout.DRAWS in kinds:
        merged[layout.DRAWS] = pa.concat_tables(companions.read(uri, layout.DRAWS, keys, DRAWS))
    return merged


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
