from pathlib import Path

import numpy as np
from scipy.stats import kstest

from gax_batch.simulate.footprint import FOOTPRINT, draw_positions, in_footprint


def test_positions_are_inside_the_footprint() -> None:
    ra, dec = draw_positions(np.random.default_rng(1), 20_000)
    assert in_footprint(ra, dec).all()
    assert ra.min() >= 0
    assert ra.max() < 360
    assert not in_footprint([80, 180, 0], [0, -20, 50]).any()


def test_wedges_do_not_overlap_and_add_up_to_the_survey() -> None:
    areas = [wedge.square_degrees for wedge in FOOTPRINT]
    assert 7000 < sum(areas) < 8500
    # A sphere's uniform points fall inside as often as the areas say, which overlaps would lower.
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 200_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 200_000)))
    share = in_footprint(ra, dec).mean()
    assert abs(share - sum(areas) / 41252.96) < 4 * np.sqrt(share / 200_000)


def test_positions_are_uniform_on_the_sphere() -> None:
    ra, dec = draw_positions(np.random.default_rng(3), 50_000)
    for wedge in FOOTPRINT:
        along = (ra - wedge.ra_start) % 360
        inside = (along < wedge.ra_stop - wedge.ra_start) & (dec > wedge.dec_start) & (dec < wedge.dec_stop)
        expected = wedge.square_degrees / sum(w.square_degrees for w in FOOTPRINT)
        assert abs(inside.mean() - expected) < 5 * np.sqrt(expected / len(ra))
        low, high = (np.sin(np.radians(d)) for d in (wedge.dec_start, wedge.dec_stop))
        height = (np.sin(np.radians(dec[inside])) - low) / (high - low)
        assert kstest(height, "uniform").pvalue > 1e-4
        assert kstest(along[inside] / (wedge.ra_stop - wedge.ra_start), "uniform").pvalue > 1e-4


def test_real_sdss_galaxies_lie_in_the_footprint(shared_data: Path) -> None:
    ra, dec = np.genfromtxt(shared_data / "sky/sdss_positions.csv", delimiter=",", skip_header=1)[:, 1:].T
    assert in_footprint(ra, dec).mean() > 0.9
