"""Frames with positions: a survey's images of the sky, and a table of the positions of galaxies.

A field is a band set (see `bands`) of frames. A galaxy is cut out of the field in which it is farthest from
an edge. A galaxy on no field is rejected. All galaxies of a field are in one unit, so that it is read once.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.errors import UsageError
from gax_batch.imaging.limits import ListingLimits
from gax_batch.rejects import Reason, Stage
from gax_batch.sources.bands import SEPARATOR, load_band_sets
from gax_batch.sources.base import DEFAULT_LIMITS, check_ids, with_columns
from gax_batch.sources.footprints import Footprints
from gax_batch.sources.frame_index import INDEX_NAME, FrameIndex
from gax_batch.storage import ObjectInfo
from gax_batch.system.disk_database import Scratch

MAX_RADIUS_ARCSEC = 3600.0


class FrameSource:
    """Frames below a folder or prefix, and the galaxies on them."""

    def __init__(
        self,
        objects: Iterable[ObjectInfo],
        positions: Iterable[pa.Table],
        *,
        table: str,
        index: FrameIndex,
        limit: int | None = None,
        limits: ListingLimits = DEFAULT_LIMITS,
    ) -> None:
        """Use the objects of a listing.

        Args:
            objects: FITS frames. Other objects are skipped.
            positions: Batches of `POSITION_SCHEMA`, one row per galaxy.
            table: URI of the positions. The `source_uri` of a galaxy is its row of that table.
            index: Index of the frames, which also names the bands.
            limit: Maximum number of galaxies, the first of the table; None for all.
            limits: Limits of ids.
        """
        self.ignored = 0
        self._objects = objects
        self._positions = positions
        self._table = table
        self._index = index
        self._limit = limit
        self._limits = limits

    def list_members(self) -> Iterator[pa.Table]:
        """Find each galaxy's field, see `Source.list_members`."""
        sky = _FieldFootprints(self._fields(), self._table)
        first = 0
        for batch in self._positions:
            galaxies = batch.slice(0, None if self._limit is None else self._limit - first)
            if not len(galaxies):
                return
            yield check_ids(sky.members(galaxies, first), self._limits)
            first += len(galaxies)

    def _fields(self) -> pa.Table:
        objects = (info for info in self._objects if not info.uri.endswith(f"/{INDEX_NAME}"))
        with tempfile.TemporaryDirectory(prefix="gax-") as folder, Scratch(Path(folder)) as scratch:
            self.ignored = load_band_sets(scratch, objects, self._index.bands)
            odd = scratch.one("SELECT count(*) AS files FROM band_files WHERE problem IS NOT NULL")
            self.ignored += 0 if odd is None else odd["files"]
            fields = self._index.fields(scratch)
        if not len(fields):
            raise UsageError(
                f"none of the frames is named by a band ({', '.join(self._index.bands)}), as in "
                "'field7-r.fits': check --input and --preset"
            )
        return fields


class _FieldFootprints:
    """The footprints of fields."""

    def __init__(self, fields: pa.Table, table: str) -> None:
        self._table = table
        self._fields = fields.select(["uri", "versions"]).combine_chunks()
        self._sizes = pc.fill_null(fields["size"], 0).to_numpy()
        self._footprints = Footprints.of_table(fields)

    def members(self, galaxies: pa.Table, first: int) -> pa.Table:
        """Return members for galaxies, of which `first` came before. A galaxy on no field is rejected."""
        galaxies = galaxies.combine_chunks()
        ra, dec = (pc.fill_null(galaxies[name], np.nan).to_numpy() for name in ("ra", "dec"))
        places = self._footprints.find(ra, dec)
        on = places >= 0
        fields = self._fields.take(pa.array(places, mask=~on))
        numbers = pa.array(np.arange(first, first + len(galaxies)))
        rows = pc.binary_join_element_wise("(row ", pc.cast(numbers, pa.string()), ")", "")
        radii = pc.cast(galaxies["radius"], pa.string())
        columns = {
            "galaxy_id": galaxies["galaxy_id"],
            "ra": galaxies["ra"],
            "dec": galaxies["dec"],
            "radius": galaxies["radius"],
            "source_uri": pc.binary_join_element_wise(
                f"{self._table}#galaxy=", pc.coalesce(galaxies["galaxy_id"], rows), ""
            ),
            "source_version": pc.binary_join_element_wise(
                fields["versions"], radii, SEPARATOR, null_handling="replace", null_replacement=""
            ),
            "object_uri": pc.fill_null(fields["uri"], self._table),
            "row": numbers,
            "size": pa.array(self._shares(places, on)),
            **_rejects(galaxies, on),
        }
        return with_columns(columns, len(galaxies))

    def _shares(self, places: npt.NDArray[np.int64], on: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return each galaxy's share in the bytes of its field, which is read once for all its galaxies."""
        fields, owners, counts = np.unique(places[on], return_inverse=True, return_counts=True)
        shares = np.zeros(len(places), np.int64)
        shares[on] = (self._sizes[fields] // counts)[owners]
        return shares


def _rejects(galaxies: pa.Table, on: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
    """Return the reject columns of galaxies that are on no field or have an invalid radius."""
    radius = pc.fill_null(galaxies["radius"], 1.0).to_numpy()
    odd = ~((radius > 0) & (radius <= MAX_RADIUS_ARCSEC))
    bad = pa.array(odd | ~on)
    ra, dec, size = (
        pc.fill_null(pc.cast(galaxies[name], pa.string()), "None") for name in ("ra", "dec", "radius")
    )
    off_frame = pc.binary_join_element_wise("ra is ", ra, ", dec is ", dec, "")
    no_radius = pc.binary_join_element_wise("the radius is ", size, " arcsec", "")
    reason = pc.if_else(pa.array(odd), str(Reason.BAD_POSITION), str(Reason.OFF_FRAME))
    nothing = pa.scalar(None, pa.string())
    return {
        "stage": pc.if_else(bad, str(Stage.PLAN), nothing),
        "reason": pc.if_else(bad, reason, nothing),
        "detail": pc.if_else(bad, pc.if_else(pa.array(odd), no_radius, off_frame), nothing),
    }
