"""FITS cutouts with one file per band: files whose names differ only in the band are one galaxy.

`1237648720-g.fits`, `1237648720-r.fits` and `1237648720-i.fits` are the galaxy `1237648720`. Only the first
image of each file counts. A galaxy without one of the bands is rejected until the file exists. A galaxy whose
bands have different shapes is rejected when it is read. If any of its files changes, a galaxy is processed
again.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.errors import UsageError
from gax_batch.imaging.limits import ListingLimits
from gax_batch.rejects import Reason, Reject, Stage
from gax_batch.sources.bands import BAND_SETS, load_band_sets
from gax_batch.sources.base import DEFAULT_LIMITS, check_ids, set_rejects, with_columns
from gax_batch.sources.images import stem
from gax_batch.storage import ObjectInfo
from gax_batch.system.disk_database import Scratch

_BAND_AND_SEPARATOR = re.compile(r"^\{band\}[^A-Za-z0-9]?|[^A-Za-z0-9]?\{band\}")


class BandFileSource:
    """A folder, prefix or glob of FITS cutouts with one file per band."""

    def __init__(
        self,
        objects: Iterable[ObjectInfo],
        *,
        bands: Sequence[str],
        limit: int | None = None,
        limits: ListingLimits = DEFAULT_LIMITS,
    ) -> None:
        """Use the objects of a listing.

        Args:
            objects: FITS files. Other objects are skipped.
            bands: Required bands, from red to blue.
            limit: Maximum number of galaxies, the first by URI; None for all.
            limits: Limits of ids.
        """
        self.ignored = 0
        self._objects = objects
        self._bands = tuple(bands)
        self._limit = limit
        self._limits = limits

    def list_members(self) -> Iterator[pa.Table]:
        """List every galaxy, see `Source.list_members`."""
        first = "" if self._limit is None else f"ORDER BY uri LIMIT {self._limit}"
        found = 0
        with tempfile.TemporaryDirectory(prefix="gax-") as folder, Scratch(Path(folder)) as scratch:
            self.ignored = load_band_sets(scratch, self._objects, self._bands)
            for sets in scratch.stream(
                f"SELECT uri, version, size, missing, problem FROM {BAND_SETS} {first}"  # noqa: S608
            ):
                found += len(sets)
                yield check_ids(_members(sets), self._limits)
        if not found:
            raise UsageError(
                f"none of the cutouts is named by a band ({', '.join(self._bands)}), as in "
                "'1237648720-r.fits': check --input and --preset"
            )


def _members(sets: pa.Table) -> pa.Table:
    columns = {
        "galaxy_id": pa.array([_galaxy_id(uri) for uri in sets["uri"].to_pylist()], pa.string()),
        "source_uri": sets["uri"],
        "source_version": sets["version"],
        "object_uri": sets["uri"],
        "size": sets["size"],
    }
    rejects = {
        index: Reject.of(Stage.PLAN, Reason.MISSING_BAND, f"no file of band {sets['missing'][index]}")
        for index in np.flatnonzero(pc.not_equal(sets["missing"], "").to_numpy()).tolist()
    } | {
        index: Reject.of(Stage.PLAN, Reason.BAD_ID, sets["problem"][index].as_py())
        for index in np.flatnonzero(pc.is_valid(sets["problem"]).to_numpy()).tolist()
    }
    return set_rejects(with_columns(columns, len(sets)), rejects)


def _galaxy_id(uri: str) -> str:
    """Return the name without suffix, band and the separator of the band."""
    return _BAND_AND_SEPARATOR.sub("", stem(uri), count=1)
