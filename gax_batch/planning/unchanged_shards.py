"""Unchanged shards, which need not be listed: each is, in the same version, in a unit of whole shards.

A survey of a hundred million galaxies in shards is planned from only the names and versions of the shards. If
one of its new galaxies has the id of a galaxy in an unchanged shard, the plan is made from every row.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

import pyarrow as pa

from gax_batch.catalog import layout
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.parts import read_origins
from gax_batch.catalog.snapshots import Catalog
from gax_batch.storage import ObjectInfo


class SettledShards:
    """The unchanged ("settled") shards of a listing, and the units that consist of them."""

    def __init__(
        self, catalog: Catalog, fingerprints: Collection[str], *, excluded: Collection[PartName] = ()
    ) -> None:
        """Record the units of the catalog.

        Args:
            catalog: The catalog with which the listing is compared.
            fingerprints: Settings fingerprints. Units with other settings are not settled.
            excluded: Parts whose units are not settled.
        """
        self._catalog = catalog
        names = [
            name
            for name in catalog.parts()
            if name.settings_fingerprint in fingerprints
            and name.origin != layout.MANY_ORIGINS
            and name not in excluded
        ]
        self._by_origin: dict[str, PartName] = {}
        for name, origins in zip(names, read_origins(catalog.uri, names), strict=True):
            self._by_origin |= dict.fromkeys(origins, name)
        self._shards = Counter(self._by_origin.values())
        self.units: set[PartName] = set()
        """The units whose shards were all listed in the same versions."""

    def __call__(self, shards: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        """Omit the settled shards of a listing.

        A unit is settled if all its shards are listed in the versions from which it was made. Otherwise it is
        redone as a whole, and the rows of all its shards are listed.
        """
        found: dict[PartName, list[ObjectInfo]] = defaultdict(list)
        for info in shards:
            name = self._by_origin.get(layout.origin_of(info.uri, info.version))
            if name is None:
                yield info
            else:
                found[name].append(info)
        for name, listed in found.items():
            if len(listed) == self._shards[name]:
                self.units.add(name)
            else:
                yield from listed

    @property
    def cutouts(self) -> int:
        """Number of cutouts of the settled units."""
        planned = self._catalog.planned() if self.units else {}
        return sum(planned[name] for name in self.units)

    def holders(self, ids: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the ids of the settled units that may contain any of some ids.

        Args:
            ids: Galaxy ids, sorted.

        Yields:
            Tables with the column `galaxy_id`.
        """
        bounds = self._catalog.bounds_of_ids() if ids else {}
        near = []
        for name in sorted(self.units, key=lambda name: name.key):
            low, high = bounds.get(name.key, ("", ""))
            place = bisect_left(ids, low)
            if place < len(ids) and ids[place] <= high:
                near.append(name)
        return self._catalog.batches(["galaxy_id"], near)
