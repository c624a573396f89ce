"""Frames with positions: a survey's images of the sky, and a table that says where on them galaxies are.

A field is some files, one per band, whose names differ in the band alone (`frame-g-1000.fits.bz2`,
`frame-r-1000.fits.bz2`, ...): the name is trusted, since headers are not always right about it. A galaxy
is cut out of the field in which it lies farthest from an edge. A unit is galaxies of one field, so that a
field is read once.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import fits
from gax_batch.errors import UsageError
from gax_batch.rejects import Reason, Reject, Stage
from gax_batch.sky import Projection, directions
from gax_batch.sources.base import as_utf8, check_ids, is_named, set_rejects, with_columns
from gax_batch.storage import ObjectInfo, open_binary

BAND = "{band}"
"""Stands for the band in a field's URI."""

MISSING = "-"
"""The version of a band's file that a field lacks."""

MAX_RADIUS_ARCSEC = 3600.0

_READ_THREADS = 16
_NEIGHBORS = 8
_SEPARATOR = "|"

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Field:
    """One piece of the sky in several bands.

    Attributes:
        uri: Of its files, with `BAND` in the band's place.
        versions: Of its files, by band; a band that is missing is not in it.
        size: Bytes of all its files.
    """

    uri: str
    versions: dict[str, str]
    size: int

    def version(self, bands: Sequence[str]) -> str:
        """The versions of its files in one text; `parse_version` is the inverse."""
        return _SEPARATOR.join(self.versions.get(band, MISSING) for band in bands)


def parse_version(text: str) -> list[str]:
    """The versions of a field's files, in the order of the bands; the last item is the galaxy's radius."""
    return text.split(_SEPARATOR)


class FrameSource:
    """Frames below a folder or prefix, and the galaxies on them."""

    def __init__(
        self,
        objects: Iterable[ObjectInfo],
        positions: Iterable[pa.Table],
        *,
        table: str,
        bands: Sequence[str],
        limit: int | None = None,
    ) -> None:
        """Take the objects of a listing.

        Args:
            objects: FITS frames, and others that are passed over.
            positions: Batches of `POSITION_SCHEMA`: the galaxies; one row each.
            table: The URI of the positions: a galaxy's `source_uri` is its row of that table.
            bands: The bands that are needed, from red to blue.
            limit: Take the first so many galaxies of the table only.
        """
        self.ignored = 0
        self._objects = objects
        self._positions = positions
        self._table = table
        self._bands = tuple(bands)
        self._limit = limit

    def list_members(self) -> Iterator[pa.Table]:
        """Find each galaxy's field; see `Source.list_members`."""
        sky = _Sky(self._fields(), self._bands, self._table)
        first = 0
        for batch in self._positions:
            galaxies = batch.slice(0, None if self._limit is None else self._limit - first)
            if not len(galaxies):
                return
            yield sky.members(galaxies, first)
            first += len(galaxies)

    def _fields(self) -> list[Field]:
        token = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(self._bands)})(?![A-Za-z0-9])")
        found: dict[str, dict[str, ObjectInfo]] = {}
        for info in self._objects:
            folder, _, name = info.uri.rpartition("/")
            match = token.search(name) if is_named(info.uri, fits.SUFFIXES) else None
            if match is None or as_utf8(info.uri) != info.uri or BAND in info.uri:
                self.ignored += 1
                continue
            uri = f"{folder}/{name[: match.start()]}{BAND}{name[match.end() :]}"
            found.setdefault(uri, {})[match[1]] = info
        if not found:
            raise UsageError(
                f"none of the frames is named by a band ({', '.join(self._bands)}), as in "
                "'field7-r.fits': check --input and --preset"
            )
        return [
            Field(uri, {b: i.version for b, i in files.items()}, sum(i.size for i in files.values()))
            for uri, files in sorted(found.items())
        ]


class _Sky:
    """Where fields are."""

    def __init__(self, fields: Sequence[Field], bands: Sequence[str], table: str) -> None:
        from scipy.spatial import cKDTree  # takes a third of a second, and workers never need it

        self._fields = fields
        self._table = table
        self._bands = bands
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            self._projections = list(pool.map(_projection, fields))
        self._tree = cKDTree(np.stack([p.center for p in self._projections]))
        self._reach = max(p.reach for p in self._projections)

    def members(self, galaxies: pa.Table, first: int) -> pa.Table:
        """Members for galaxies, of which `first` came before; one that is on no field is rejected."""
        ra, dec = (pc.fill_null(galaxies[name], np.nan).to_numpy() for name in ("ra", "dec"))
        field = self._find(ra, dec)
        on = field >= 0
        uris = pa.array([self._fields[index].uri if index >= 0 else None for index in field], pa.string())
        versions = [self._fields[i].version(self._bands) if i >= 0 else "" for i in field]
        radii = ["" if r is None else repr(r) for r in galaxies["radius"].to_pylist()]
        ids = galaxies["galaxy_id"]
        numbers = pa.array(np.arange(first, first + len(galaxies)))
        rows = pc.binary_join_element_wise("(row ", pc.cast(numbers, pa.string()), ")", "")
        sizes = np.array([self._fields[index].size for index in field])
        counts = np.bincount(field[on], minlength=len(self._fields)) if on.any() else np.ones(1, int)
        columns = {
            "galaxy_id": ids,
            "ra": galaxies["ra"],
            "dec": galaxies["dec"],
            "radius": galaxies["radius"],
            "source_uri": pc.binary_join_element_wise(f"{self._table}#galaxy=", pc.coalesce(ids, rows), ""),
            "source_version": pa.array(
                [f"{v}{_SEPARATOR}{r}" for v, r in zip(versions, radii, strict=True)], pa.string()
            ),
            "object_uri": pc.fill_null(uris, self._table),
            "row": numbers,
            # A field is read once for all its galaxies: each has its share.
            "size": pa.array(np.where(on, sizes // np.maximum(counts[np.maximum(field, 0)], 1), 0)),
        }
        return check_ids(set_rejects(with_columns(columns, len(galaxies)), self._rejects(galaxies, on)))

    def _find(self, ra: Floats, dec: Floats) -> Ints:
        """For each position the field in which it lies farthest from an edge, or -1."""
        usable = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
        best = np.full(len(ra), -1)
        margin = np.zeros(len(ra))
        places = np.flatnonzero(usable)
        if not len(places):
            return best
        count = min(_NEIGHBORS, len(self._fields))
        _, near = self._tree.query(
            directions(ra[places], dec[places]), k=count, distance_upper_bound=self._reach * 1.01
        )
        near = near.reshape(len(places), count)
        for index in np.unique(near[near < len(self._fields)]).tolist():
            mine = places[(near == index).any(axis=1)]
            inside = self._projections[index].edge_distance(ra[mine], dec[mine])
            better = inside > margin[mine]
            best[mine[better]], margin[mine[better]] = index, inside[better]
        return best

    def _rejects(self, galaxies: pa.Table, on: npt.NDArray[np.bool_]) -> dict[int, Reject]:
        rejects: dict[int, Reject] = {}
        for index in np.flatnonzero(~on).tolist():
            place = f"ra is {galaxies['ra'][index].as_py()}, dec is {galaxies['dec'][index].as_py()}"
            rejects[index] = Reject.of(Stage.PLAN, Reason.OFF_FRAME, place)
        radius = pc.fill_null(galaxies["radius"], 1.0).to_numpy()
        for index in np.flatnonzero(~((radius > 0) & (radius <= MAX_RADIUS_ARCSEC))).tolist():
            detail = f"the radius is {galaxies['radius'][index].as_py()} arcsec"
            rejects[index] = Reject.of(Stage.PLAN, Reason.BAD_POSITION, detail)
        return rejects


def _projection(field: Field) -> Projection:
    band = next(iter(sorted(field.versions)))
    uri = field.uri.replace(BAND, band)
    try:
        with open_binary(uri) as file:
            return Projection.of_header(fits.read_header(file))
    except (OSError, ValueError) as error:
        raise UsageError(f"the frame {uri} cannot be used: {error}; repair or remove it") from None
