"""What keeps a catalog's parts few: small units of many nights become large ones."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from gax_batch import paths, storage
from gax_batch.catalog import companions
from gax_batch.catalog.draws import DRAWS
from gax_batch.catalog.history import operation_id
from gax_batch.catalog.schema import GALAXIES, REJECTS
from gax_batch.catalog.snapshots import Catalog, open_existing
from gax_batch.catalog.writer import Part, read_columns, write_unit
from gax_batch.paths import PartName
from gax_batch.sums import SUMS, add_up

COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Compaction:
    """Units before and after, and the snapshot that has them."""

    before: int
    after: int
    version: int | None


def compact(uri: str, unit_size: int) -> Compaction:
    """Merge units of less than half the size, in one commit; no row changes.

    Args:
        uri: The catalog.
        unit_size: Cutouts of a merged unit, at most.

    Raises:
        UsageError: There is no catalog, or another run has meanwhile redone one of the units.
        FatalError: A part cannot be read, or the store refused.
        TransientError: The store kept failing.
    """
    catalog = open_existing(uri)
    merged = [(group, _merge(catalog, group)) for group in _groups(catalog, unit_size)]
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
    """Small units of the same settings that fit together, in the order of their keys."""
    sizes = catalog.planned()
    small: dict[str, list[PartName]] = defaultdict(list)
    for name in catalog.parts():
        if 2 * sizes[name] <= unit_size:
            small[name.settings_fingerprint].append(name)
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


def _merge(catalog: Catalog, group: Sequence[PartName]) -> Part:
    keys = [name.key for name in group]
    with_rejects = {name.key for name in catalog.reject_parts()}
    galaxies = read_columns(paths.table(catalog.uri, paths.GALAXIES_TABLE), keys, GALAXIES)
    rejects = read_columns(
        paths.table(catalog.uri, paths.REJECTS), [key for key in keys if key in with_rejects], REJECTS
    )
    return write_unit(
        catalog.uri,
        group[0].settings_fingerprint,
        galaxies,
        rejects,
        unit_id=_digest([name.unit_id for name in group]),
        fingerprint=_digest([name.fingerprint for name in group]),
        planned=len(galaxies) + len(rejects),
        beside=_beside(catalog.uri, keys),
    )


def _beside(uri: str, keys: Sequence[str]) -> dict[str, pa.Table]:
    """The companions of a merged unit; units of the same settings have the same kinds."""
    kinds = [kind for kind in paths.COMPANIONS if storage.exists(paths.companion(uri, kind, keys[0]))]
    merged: dict[str, pa.Table] = {}
    if paths.POPULATION in kinds:
        merged[paths.POPULATION] = add_up(companions.read(uri, paths.POPULATION, keys, SUMS))
    if paths.DRAWS in kinds:
        merged[paths.DRAWS] = pa.concat_tables(companions.read(uri, paths.DRAWS, keys, DRAWS))
    return merged


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
