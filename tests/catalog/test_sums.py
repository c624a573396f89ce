"""Sums by draw: they are what they say, add up, and tell galaxies apart."""

import numpy as np
import pyarrow as pa
import pytest

from gax_batch import gz2
from gax_batch.catalog.sums import (
    EXPECTED,
    MOST_LIKELY,
    PRODUCT,
    SQUARE,
    Grouping,
    add_up,
    sums_of,
    values_of,
)
from gax_batch.imaging.wcs import healpix_cells

GROUPING = Grouping(1, {"ood_score": (0.0, 0.25, 1.0)})


def galaxies(count, seed=0):
    rng = np.random.default_rng(seed)
    ra = [None if i % 5 == 0 else float(x) for i, x in enumerate(rng.uniform(0, 360, count))]
    dec = [None if r is None else float(x) for r, x in zip(ra, rng.uniform(-90, 90, count), strict=True)]
    score = [None if i % 7 == 0 else float(x) for i, x in enumerate(rng.random(count))]
    return pa.table({"ra": ra, "dec": dec, "ood_score": pa.array(score, pa.float32())})


def random_draws(count, draws=3, seed=0):
    raw = np.random.default_rng(seed).gamma(0.7, size=(count, draws, gz2.N_ANSWERS)) + 1e-3
    return gz2.cumulative(gz2.conditional(raw)).astype(np.float32)


def by_key(table):
    keys = zip(*(table[n].to_pylist() for n in ("grouping", "bin", "statistic", "draw")), strict=True)
    return dict(zip(keys, zip(table["galaxies"].to_pylist(), values_of(table), strict=True), strict=True))


def test_sums_are_those_of_a_loop_over_galaxies():
    rows, draws = galaxies(40), random_draws(40)
    found = by_key(add_up([sums_of(rows, draws, GROUPING)]))
    exact = draws.astype(np.float64)
    parent = [-1 if q.parent is None else q.parent for q in gz2.QUESTIONS for _ in q.answers]
    product = np.zeros(37)
    for i in range(40):
        for a, p in enumerate(parent):
            product[a] += np.mean(exact[i, :, a] * (1 if p < 0 else exact[i, :, p]))
    for k in range(3):
        np.testing.assert_allclose(found["all", None, EXPECTED, k][1], exact[:, k].sum(0), rtol=1e-12)
        likely = sum(gz2.most_likely(draws[i, k]).astype(int) for i in range(40))
        np.testing.assert_array_equal(found["all", None, MOST_LIKELY, k][1], likely)
    square = (exact**2).mean(1).sum(0)
    np.testing.assert_allclose(found["all", None, SQUARE, None][1], square, rtol=1e-12)
    np.testing.assert_allclose(found["all", None, PRODUCT, None][1], product, rtol=1e-12)


def test_groups_hold_their_own_galaxies_and_together_all():
    rows, draws = galaxies(200), random_draws(200)
    found = by_key(add_up([sums_of(rows, draws, GROUPING)]))
    whole = found["all", None, EXPECTED, 0]
    for grouping in ("healpix1", "ood_score"):
        mine = {k: v for k, v in found.items() if k[0] == grouping and k[2:] == (EXPECTED, 0)}
        assert sum(n for n, _ in mine.values()) == whole[0] == 200
        np.testing.assert_allclose(sum(v for _, v in mine.values()), whole[1], rtol=1e-12)
    score = np.array([np.nan if x is None else x for x in rows["ood_score"].to_pylist()])
    low = (score >= 0) & (score < 0.25)
    assert found["ood_score", 0, EXPECTED, 1][0] == low.sum()
    expected = draws[low, 1].astype(np.float64).sum(0)
    np.testing.assert_allclose(found["ood_score", 0, EXPECTED, 1][1], expected, rtol=1e-12)
    assert found["ood_score", None, EXPECTED, 1][0] == np.isnan(score).sum()
    assert found["healpix1", None, EXPECTED, 1][0] == 40


def test_edges_belong_to_the_bin_above_and_the_last_one_to_the_last_bin():
    rows = pa.table({"ood_score": pa.array([0.0, 0.25, 1.0, 1.5, -0.1, None], pa.float32())})
    bins = Grouping(None, {"ood_score": (0.0, 0.25, 1.0)}).assign(rows)
    assert bins["ood_score"].tolist() == [0, 1, 1, -1, -1, -1]
    table = sums_of(rows, random_draws(6), Grouping(None, {"ood_score": (0.0, 0.25, 1.0)}))
    edges = set(zip(*(table[name].to_pylist() for name in ("bin", "low", "high")), strict=True))
    assert edges == {(None, None, None), (0, 0.0, 0.25), (1, 0.25, 1.0)}


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_adding_up_any_slices_gives_the_same_sums(size):
    rows, draws = galaxies(300), random_draws(300)
    whole = add_up([sums_of(rows, draws, GROUPING)])
    slices = [sums_of(rows.slice(i, size), draws[i : i + size], GROUPING) for i in range(0, 300, size)]
    added = add_up(add_up([each]) for each in slices)
    assert added.drop_columns("values").equals(whole.drop_columns("values"))
    np.testing.assert_allclose(values_of(added), values_of(whole), rtol=1e-9, atol=1e-9)


def test_no_galaxies_and_no_draws_have_no_sums():
    assert len(sums_of(galaxies(0), random_draws(0), GROUPING)) == 0
    assert len(sums_of(galaxies(3), random_draws(3, draws=0), GROUPING)) == 0
    assert len(add_up([])) == 0


def test_cells_are_healpix_nested():
    # Corners of the sky whose cells of order 0 are known: 4 around each pole, 4 on the equator.
    ra = np.array([45.0, 135.0, 0.0, 90.0, 45.0, 315.0, 360.0])
    dec = np.array([60.0, 60.0, 0.0, 0.0, -60.0, -60.0, 0.0])
    assert healpix_cells(ra, dec, 0).tolist() == [0, 1, 4, 5, 8, 11, 4]
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 1000), np.degrees(np.arcsin(rng.uniform(-1, 1, 1000)))
    # Nested: a cell's parent is a quarter of its number.
    np.testing.assert_array_equal(healpix_cells(ra, dec, 3) // 4, healpix_cells(ra, dec, 2))
    assert healpix_cells(np.array([np.nan]), np.array([0.0]), 2).tolist() == [-1]
