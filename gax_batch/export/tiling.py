"""The HEALPix pixels of a HATS catalog that cover the sky, and the pixels to which a galaxy belongs.

Tiles are adaptive (Górski et al. 2005, ApJ 622, 759, nested): the largest pixels with at most a given number
of galaxies. A galaxy is in one of them, and in the margin of each tile near it. The margin is defined as in
HATS: pixels of a fine order, no smaller than the margin's width, that touch the tile from outside.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from gax_batch.errors import UsageError

Ints = npt.NDArray[np.int64]

CELL_ORDER = 10
"""HEALPix order in which galaxies are counted (side 3.4 arcmin); also the highest order of a tile."""

INDEX_ORDER = 29


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tiles that cover the sky without overlap, in the order of the index.

    Attributes:
        orders: HEALPix order of each tile, int64 `[T]`.
        pixels: Number of each tile within its order, nested, int64 `[T]`.
        occupied: Whether each tile has galaxies, bool `[T]`. The others exist for their margins.
        margin_order: Order of the pixels around a tile that are its margin; None without margins.
    """

    orders: Ints
    pixels: Ints
    occupied: npt.NDArray[np.bool_]
    margin_order: int | None

    @classmethod
    def of_counts(cls, cells: Ints, counts: Ints, threshold: int, margin_arcsec: float) -> Self:
        """Choose tiles.

        Args:
            cells: Pixels of `CELL_ORDER` that have galaxies, int64 `[C]`.
            counts: Number of galaxies in each, int64 `[C]`.
            threshold: Maximum number of galaxies in a tile.
            margin_arcsec: Width of the margins, arcsec; 0 for none.

        Raises:
            UsageError: A single cell has more galaxies than a tile may have.
        """
        from hats.pixel_math import HealpixPixel
        from hats.pixel_tree.negative_tree import compute_negative_tree_pixels
        from hats.pixel_tree.pixel_tree import PixelTree

        orders = _orders(cells, counts, threshold)
        numbers = cells >> 2 * (CELL_ORDER - orders)
        full = {HealpixPixel(*tile) for tile in zip(orders.tolist(), numbers.tolist(), strict=True)}
        empty = compute_negative_tree_pixels(PixelTree.from_healpix(sorted(full)))
        tiles = sorted([*full, *empty], key=lambda tile: tile.pixel << 2 * (INDEX_ORDER - tile.order))
        return cls(
            np.array([tile.order for tile in tiles], np.int64),
            np.array([tile.pixel for tile in tiles], np.int64),
            np.array([tile in full for tile in tiles]),
            margin_order_of(margin_arcsec),
        )

    def __len__(self) -> int:
        return len(self.orders)

    def find(self, index: Ints) -> Ints:
        """Return the tile of each value of the index."""
        starts = self.pixels << 2 * (INDEX_ORDER - self.orders)
        return np.searchsorted(starts, index, side="right") - 1

    def margins_of(self, index: Ints) -> tuple[Ints, Ints]:
        """Return the margins that contain galaxies.

        Args:
            index: HEALPix pixel of order 29 of each galaxy, int64 `[N]`.

        Returns:
            Indices of galaxies and of the tiles in whose margins they are, one pair of values per
            combination.
        """
        import cdshealpix

        if self.margin_order is None or len(index) == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        shift = 2 * (INDEX_ORDER - self.margin_order)
        around = cdshealpix.neighbours(index >> shift, self.margin_order).astype(np.int64)
        own = self.find(index)[:, None]
        # At eight points of the sphere, a pixel has only seven neighbors.
        near = np.sort(np.where(around < 0, own, self.find(around << shift)), axis=1)
        new = np.concatenate([np.ones_like(own, bool), near[:, 1:] != near[:, :-1]], axis=1) & (near != own)
        rows, columns = np.nonzero(new)
        return rows, near[rows, columns]

    def margin_cells(self) -> tuple[Ints, Ints]:
        """Return pairs of a tile and a cell touching it from outside, a possible part of its margin."""
        from hats.pixel_math import get_margin

        if self.margin_order is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        cells = [
            get_margin(int(order), int(pixel), CELL_ORDER - int(order))
            for order, pixel in zip(self.orders, self.pixels, strict=True)
        ]
        tiles = np.repeat(np.arange(len(self)), [len(found) for found in cells])
        return tiles, np.array([cell for found in cells for cell in found], np.int64)


def margin_order_of(margin_arcsec: float) -> int | None:
    """Return the order of the pixels that form margins; None without margins.

    Raises:
        UsageError: The margins are too wide.
    """
    from hats.pixel_math import healpix_shim

    if margin_arcsec == 0:
        return None
    order = int(healpix_shim.margin2order(margin_arcsec / 60))
    if order <= CELL_ORDER:
        widest = healpix_shim.order2mindist(CELL_ORDER + 1) * 60
        raise UsageError(f"--margin {margin_arcsec:g} is too wide; at most {widest:.0f} arcsec are possible")
    return order


def index_of(ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]) -> Ints:
    """Return the HEALPix pixel of order 29, nested, of positions in degrees: the column `_healpix_29`."""
    from hats.pixel_math.spatial_index import compute_spatial_index

    return np.asarray(compute_spatial_index(ra, dec), np.int64)


def histogram_of(cells: Ints, counts: Ints, order: int) -> Ints:
    """Sum counts by cell over all pixels of a lower order, `[12 * 4**order]`."""
    length = 12 * 4**order
    return np.bincount(cells >> 2 * (CELL_ORDER - order), weights=counts, minlength=length).astype(np.int64)


def _orders(cells: Ints, counts: Ints, threshold: int) -> Ints:
    """Return the order of the tile of each cell: the lowest at which it does not have too many galaxies.

    The tiles are those of `hats.pixel_math.partition_stats.generate_alignment`, which iterates over all 12
    million pixels of the highest order one by one.
    """
    orders = np.full(len(cells), -1, np.int64)
    for order in range(CELL_ORDER + 1):
        _, where = np.unique(cells >> 2 * (CELL_ORDER - order), return_inverse=True)
        fits = np.bincount(where, weights=counts)[where] <= threshold
        orders[fits & (orders < 0)] = order
    if (orders < 0).any():
        raise UsageError(
            f"{int(counts.max()):,} galaxies are in one HEALPix pixel of order {CELL_ORDER}; "
            "raise --pixel-threshold to at least that"
        )
    return orders
