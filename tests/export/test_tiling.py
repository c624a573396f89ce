"""Tiles and margins against what the hats library makes of the same galaxies."""

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord

from gax_batch.errors import UsageError
from gax_batch.export.tiling import (
    CELL_ORDER,
    INDEX_ORDER,
    Tiling,
    histogram_of,
    index_of,
    margin_order_of,
)

pytest.importorskip("hats")

COUNT = 4000


@pytest.fixture(scope="module")
def index():
    rng = np.random.default_rng(1)
    # Around the pole and across the zero of right ascension, where pixels have odd neighbors.
    ra = np.concatenate([rng.uniform(0, 360, COUNT // 2), rng.uniform(-2, 2, COUNT // 2) % 360])
    dec = np.concatenate([rng.uniform(86, 90, COUNT // 2), rng.uniform(-2, 2, COUNT // 2)])
    return index_of(ra, dec)


@pytest.fixture(scope="module")
def tiling(index):
    return make(index, 100)


def cells_of(index):
    return np.unique(index >> 2 * (INDEX_ORDER - CELL_ORDER), return_counts=True)


def make(index, threshold, margin=30.0):
    return Tiling.of_counts(*cells_of(index), threshold, margin)


def test_tiles_cover_the_sky_once(tiling):
    starts = tiling.pixels << 2 * (INDEX_ORDER - tiling.orders)
    ends = (tiling.pixels + 1) << 2 * (INDEX_ORDER - tiling.orders)
    assert starts[0] == 0
    assert (ends[:-1] == starts[1:]).all()
    assert ends[-1] == 12 * 4**INDEX_ORDER


def test_tiles_are_those_of_the_library(tiling, index):
    from hats.pixel_math.partition_stats import generate_alignment

    alignment = generate_alignment(histogram_of(*cells_of(index), 7), highest_order=7, threshold=100)
    expected = {(int(entry[0]), int(entry[1])) for entry in alignment if entry is not None}
    found = zip(tiling.orders[tiling.occupied].tolist(), tiling.pixels[tiling.occupied].tolist(), strict=True)
    assert set(found) == expected
    counts = np.bincount(tiling.find(index), minlength=len(tiling))
    assert counts.max() <= 100
    assert ((counts > 0) == tiling.occupied).all()


def test_margins_are_those_of_the_library(tiling, index):
    from hats.pixel_math import get_margin

    rows, margins = tiling.margins_of(index)
    fine = index >> 2 * (INDEX_ORDER - tiling.margin_order)
    expected = {
        (row, tile)
        for tile in range(len(tiling))
        for row in np.flatnonzero(
            np.isin(
                fine,
                get_margin(
                    int(tiling.orders[tile]),
                    int(tiling.pixels[tile]),
                    tiling.margin_order - int(tiling.orders[tile]),
                ),
            )
        ).tolist()
    }
    assert len(expected) > 50
    assert set(zip(rows.tolist(), margins.tolist(), strict=True)) == expected


def test_every_pair_within_the_margin_shares_a_tile_or_a_margin(index):
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 4, 20_000), rng.uniform(0, 4, 20_000)
    near = SkyCoord(ra * units.deg, dec * units.deg)
    moved = near.directional_offset_by(rng.uniform(0, 360, 20_000) * units.deg, 29.9 * units.arcsec)
    tiling = make(index_of(ra, dec), 200)
    here, there = tiling.find(index_of(ra, dec)), index_of(moved.ra.deg, moved.dec.deg)
    rows, margins = tiling.margins_of(there)
    reached = {*zip(rows.tolist(), margins.tolist(), strict=True), *enumerate(tiling.find(there).tolist())}
    assert (here != tiling.find(there)).sum() > 20
    assert all((row, tile) in reached for row, tile in enumerate(here.tolist()))


def test_margins_come_only_from_the_cells_around_their_tile(tiling, index):
    tiles, cells = tiling.margin_cells()
    around = set(zip(tiles.tolist(), cells.tolist(), strict=True))
    rows, margins = tiling.margins_of(index)
    pairs = zip(margins.tolist(), (index[rows] >> 2 * (INDEX_ORDER - CELL_ORDER)).tolist(), strict=True)
    assert set(pairs) <= around


def test_without_margins_there_are_none(index):
    tiling = make(index, 100, margin=0)
    assert len(tiling.margins_of(index)[0]) == len(tiling.margin_cells()[0]) == 0


def test_one_more_galaxy_splits_only_its_own_tile(index):
    few = make(index, 100)
    crowd = np.repeat(index[:1], 60) + np.arange(60) * 4 ** (INDEX_ORDER - CELL_ORDER)
    more = make(np.concatenate([index, crowd]), 100)

    def tiles(tiling):
        return set(zip(tiling.orders.tolist(), tiling.pixels.tolist(), strict=True))

    assert 0 < len(tiles(few) - tiles(more)) <= 3


def test_what_cannot_be_tiled_is_one_line():
    with pytest.raises(UsageError, match=r"\b7\b.*--pixel-threshold"):
        make(np.repeat(index_of(np.array([1.0]), np.array([2.0])), 7), 6)
    with pytest.raises(UsageError, match="--margin 3000"):
        margin_order_of(3000)
