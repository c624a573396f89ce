"""Footprints of frames on the sky, and the frame that contains a position: a HEALPix join in NumPy.

A footprint consists of the HEALPix cells (Gorski et al. 2005, ApJ 622, 759; nested numbering) that the
frame's circumscribed circle touches, about as wide as the circle's radius, and of two polynomials of degree
`DEGREE`. They give the column and row from gnomonic coordinates about the frame's center (Calabretta &
Greisen 2002, A&A 395, 1077, section 5.1.3). For a TAN projection without distortion the true relation is
linear. For distorted projections, the error of the polynomials is measured for each frame. A position
therefore needs only a few footprints and products, no header, and memory grows only with the number of
frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.imaging.wcs import Projection, directions

DEGREE = 5
TERMS = (DEGREE + 1) * (DEGREE + 2) // 2
MAX_ERROR_PIXELS = 1.0
MAX_ORDER = 29
BLOCK_POSITIONS = 16_384

# A cell covers 1 / (12 nside^2) of the sky: its side is 58.6 degrees at order 0.
_SIDE_DEGREES = np.degrees(np.sqrt(4 * np.pi / 12))
# tan of 70 degrees: gnomonic coordinates are inaccurate farther from a frame's center.
_MAX_EXTENT = 2.75
_GRID = 13

FOOTPRINT_FIELDS = [
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("pixel_arcsec", pa.float64(), nullable=False),
    pa.field("ra", pa.float64(), nullable=False),
    pa.field("dec", pa.float64(), nullable=False),
    pa.field("extent", pa.float64(), nullable=False),
    pa.field("healpix_order", pa.int8(), nullable=False),
    pa.field("healpix", pa.list_(pa.field("element", pa.int64())), nullable=False),
    pa.field("pixels", pa.list_(pa.field("element", pa.float32()), 2 * TERMS), nullable=False),
    pa.field("error_pixels", pa.float32(), nullable=False),
]
"""Fields of a frame's footprint.

Size in pixels, scale, center (degrees ICRS), tangent of the circle's radius, HEALPix cells of one order,
coefficients of column and of row, and their largest error in pixels.
"""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Frames = npt.NDArray[np.int32]


def footprint(projection: Projection) -> dict[str, object]:
    """Return a frame's footprint, a row of `FOOTPRINT_FIELDS`.

    Raises:
        ValueError: The frame is too wide, or too distorted, for this description.
    """
    ra, dec = _position(projection.center)
    basis = _bases(np.array([ra]), np.array([dec]))[0]

    def grid(count: int) -> tuple[Floats, Floats]:
        """Return pixels `[count^2, 2]`, out to the edges, and their gnomonic coordinates `[count^2, 2]`."""
        columns, rows = (
            np.linspace(-0.5, side - 0.5, count) for side in (projection.width, projection.height)
        )
        pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        east, north, depth = basis @ directions(*projection.positions(pixels)).T
        if not (depth > 0).all():
            raise ValueError("it covers too much of the sky")
        return pixels, np.stack([east, north], axis=1) / depth[:, None]

    pixels, plane = grid(_GRID)
    extent = float(np.hypot(*plane.T).max())
    if not 0 < extent < _MAX_EXTENT:
        raise ValueError("it covers too much of the sky")
    coefficients, *_ = np.linalg.lstsq(_terms(plane / extent), pixels, rcond=None)
    stored = coefficients.T.astype(np.float32)
    pixels, plane = grid(2 * _GRID - 1)  # also between the points that were fitted
    error = float(np.abs(_terms(plane / extent) @ stored.T.astype(np.float64) - pixels).max())
    if not error < MAX_ERROR_PIXELS:
        raise ValueError(f"its distortion would put positions {error:.1f} pixels off")
    order, cells = _cells(ra, dec, extent)
    return {
        "width": projection.width,
        "height": projection.height,
        "pixel_arcsec": projection.pixel_arcsec,
        "ra": ra,
        "dec": dec,
        "extent": extent,
        "healpix_order": order,
        "healpix": cells,
        "pixels": stored.reshape(-1),
        "error_pixels": error,
    }


def are_valid(frames: pa.Table) -> bool:
    """Return whether footprints, `FOOTPRINT_FIELDS`, are such as `footprint` returns."""
    if any(frames[field.name].null_count for field in FOOTPRINT_FIELDS):
        return False
    numbers = {name: frames[name].to_numpy() for name in ("width", "height", "ra", "dec", "extent")}
    orders = frames["healpix_order"].to_numpy().astype(np.int64)
    lists = frames["healpix"].combine_chunks()
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    cells, cells_in_all = lists.flatten(), 12 * 4 ** np.clip(orders, 0, MAX_ORDER)
    coefficients = frames["pixels"].combine_chunks().flatten()
    if cells.null_count or coefficients.null_count:
        return False
    cells = cells.to_numpy(zero_copy_only=False)
    return bool(
        (numbers["width"] > 0).all()
        and (numbers["height"] > 0).all()
        and (np.abs(numbers["dec"]) <= 90).all()
        and np.isfinite(numbers["ra"]).all()
        and ((numbers["extent"] > 0) & (numbers["extent"] < _MAX_EXTENT)).all()
        and ((orders >= 0) & (orders <= MAX_ORDER)).all()
        and np.isfinite(coefficients.to_numpy(zero_copy_only=False)).all()
        and (lengths > 0).all()
        and ((cells >= 0) & (cells < np.repeat(cells_in_all, lengths))).all()
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """The cells of one order, sorted, and the frame of each cell."""

    order: int
    cells: Ints
    frames: Frames


@dataclass(frozen=True, slots=True)
class Footprints:
    """The footprints of all frames, prepared for positions. Takes about 500 bytes per frame."""

    _layers: list[_Layer]
    _bases: Floats
    _extents: Floats
    _sides: Floats
    _coefficients: npt.NDArray[np.float32]

    @classmethod
    def of_table(cls, frames: pa.Table) -> Self:
        """Prepare footprints, `FOOTPRINT_FIELDS`, one or more."""
        lists = frames["healpix"].combine_chunks()
        cells: Ints = lists.flatten().to_numpy()
        owners = pc.list_parent_indices(lists).to_numpy().astype(np.int32)
        orders = frames["healpix_order"].to_numpy()
        layers = []
        for order in np.unique(orders).tolist():
            mine = orders[owners] == order
            ranks = np.argsort(cells[mine], kind="stable")
            layers.append(_Layer(order, cells[mine][ranks], owners[mine][ranks]))
        return cls(
            layers,
            _bases(frames["ra"].to_numpy(), frames["dec"].to_numpy()),
            frames["extent"].to_numpy(),
            np.stack([frames["width"].to_numpy(), frames["height"].to_numpy()], axis=1).astype(np.float64),
            frames["pixels"].combine_chunks().flatten().to_numpy().reshape(-1, 2, TERMS),
        )

    def find(self, ra: Floats, dec: Floats) -> Ints:
        """Find the frame in which each position is farthest from an edge, in pixels.

        Args:
            ra: Right ascensions, degrees ICRS, float64 `[N]`; NaN for no position.
            dec: Declinations, degrees ICRS, float64 `[N]`; NaN for no position.

        Returns:
            `[N]`, the index of the frame in the table, the first of equals; -1 for none.
        """
        found = np.full(len(ra), -1, np.int64)
        for start in range(0, len(ra), BLOCK_POSITIONS):
            block = slice(start, start + BLOCK_POSITIONS)
            usable = start + np.flatnonzero(
                np.isfinite(ra[block]) & np.isfinite(dec[block]) & (np.abs(dec[block]) <= 90)
            )
            found[usable] = self._find(ra[usable], dec[usable])
        return found

    def _find(self, ra: Floats, dec: Floats) -> Ints:
        vectors = directions(ra, dec)
        best = np.full(len(ra), -1, np.int64)
        margins = np.zeros(len(ra))
        for places, frames in self._candidates(ra, dec):
            inside = self._edge_distances(vectors[places], frames)
            on = inside > 0
            places, frames, inside = places[on], frames[on], inside[on]
            ranks = np.lexsort((frames, -inside, places))
            places, first = np.unique(places[ranks], return_index=True)
            frames, inside = frames[ranks][first], inside[ranks][first]
            nearer = (inside == margins[places]) & (frames < best[places])
            better = (inside > margins[places]) | nearer
            best[places[better]], margins[places[better]] = frames[better], inside[better]
        return best

    def _candidates(self, ra: Floats, dec: Floats) -> Iterator[tuple[Ints, Frames]]:
        """Yield pairs of a position and a frame whose cells contain it, one order at a time."""
        for layer in self._layers:
            cells = _healpix(ra, dec, layer.order)
            start = np.searchsorted(layer.cells, cells, "left")
            counts = np.searchsorted(layer.cells, cells, "right") - start
            places = np.repeat(np.arange(len(ra)), counts)
            within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
            yield places, layer.frames[np.repeat(start, counts) + within]

    def _edge_distances(self, vectors: Floats, frames: Frames) -> Floats:
        """Return pixels from directions `[P, 3]` to the nearest edge of a frame each, negative outside."""
        distances = np.full(len(frames), -1.0)
        # The cosine of a radius slightly larger than the circle's.
        near = np.einsum("pj,pj->p", self._bases[frames, 2], vectors) > 1 / np.hypot(
            1, 1.001 * self._extents[frames]
        )
        frames = frames[near]
        east, north, depth = np.einsum("pij,pj->ip", self._bases[frames], vectors[near])
        plane = np.stack([east, north], axis=1) / (depth * self._extents[frames])[:, None]
        pixels = np.einsum("pt,pkt->pk", _terms(plane), self._coefficients[frames])
        distances[near] = np.minimum(pixels + 0.5, self._sides[frames] - 0.5 - pixels).min(axis=1)
        return distances


def _position(vector: Floats) -> tuple[float, float]:
    """Return the right ascension and declination, degrees, of a direction."""
    x, y, z = vector.tolist()
    return float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def _bases(ra: Floats, dec: Floats) -> Floats:
    """Return the east, north and outward unit vectors at positions, `[N, 3, 3]`."""
    outward = directions(ra, dec)
    ra = np.radians(ra)
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros_like(ra)], axis=1)
    return np.stack([east, np.cross(outward, east), outward], axis=1)


def _terms(plane: Floats) -> Floats:
    """Return the monomials of two coordinates `[N, 2]` up to `DEGREE`, `[N, TERMS]`."""
    x, y = plane.T
    xs, ys = [np.ones_like(x)], [np.ones_like(y)]
    for _ in range(DEGREE):
        xs.append(xs[-1] * x)
        ys.append(ys[-1] * y)
    return np.stack([xs[n - m] * ys[m] for n in range(DEGREE + 1) for m in range(n + 1)], axis=1)


def _healpix(ra: Floats, dec: Floats, order: int) -> Ints:
    from astropy import units
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix.nested import lonlat_to_healpix

    cells = lonlat_to_healpix(Longitude(ra % 360, units.deg), Latitude(dec, units.deg), order)
    return np.asarray(cells).astype(np.int64)


def _cells(ra: float, dec: float, extent: float) -> tuple[int, Ints]:
    """Return the HEALPix order with cells about as wide as a circle's radius, and the cells it touches."""
    from astropy import units
    from astropy.coordinates import Angle, Latitude, Longitude
    from cdshealpix.nested import cone_search  # its import takes half a second, and workers never need it

    radius = float(np.degrees(np.arctan(extent * 1.001)))
    order = int(np.clip(np.ceil(np.log2(_SIDE_DEGREES / radius)), 0, MAX_ORDER))
    cells, _, _ = cone_search(
        Longitude(ra, units.deg), Latitude(dec, units.deg), Angle(radius, units.deg), order, flat=True
    )
    return order, np.asarray(cells).astype(np.int64)
