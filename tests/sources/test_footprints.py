"""Footprints: the frame that a position is found in is the one that its WCS says."""

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from sky_fields import header

from gax_batch.imaging.wcs import Projection
from gax_batch.sources import footprints as module
from gax_batch.sources.footprints import FOOTPRINT_FIELDS, Footprints, are_valid, footprint

SCHEMA = pa.schema(FOOTPRINT_FIELDS)
SIP = {
    "A_ORDER": 3,
    "A_2_0": 2e-5,
    "A_1_1": -1e-5,
    "A_0_3": 3e-9,
    "B_ORDER": 2,
    "B_0_2": 1.5e-5,
    "B_2_0": 1e-5,
}


def projection(
    ra: float, dec: float, side: int = 300, *, kind: str = "TAN", pixel: float = 0.4, turned: float = 0.0
) -> Projection:
    head = header(ra, dec, side, pixel, turned)
    head["NAXIS1"], head["NAXIS2"] = side, side
    head["CTYPE1"], head["CTYPE2"] = f"RA---{kind}", f"DEC--{kind}"
    del head["LONPOLE"], head["LATPOLE"]  # of TAN
    return Projection.of_header(head)


def distorted(side: int = 1000) -> Projection:
    """Like a wide camera's: its corners are off by 8 pixels."""
    head = header(210.0, 54.0, side, 0.8, 30)
    head["NAXIS1"], head["NAXIS2"] = side, side
    head["CTYPE1"], head["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    head.update(SIP)
    return Projection.of_header(head)


def table(*projections: Projection) -> pa.Table:
    return pa.Table.from_pylist([footprint(p) for p in projections], SCHEMA)


def around(frame: Projection, count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions on and near a frame, and their pixels from its nearest edge."""
    rng = np.random.default_rng(1)
    pixels = rng.uniform(-0.3, 1.3, (count, 2)) * [frame.width, frame.height] - 0.5
    ra, dec = frame.positions(pixels)
    columns, rows = frame.pixels(ra, dec)
    edges = [columns + 0.5, frame.width - 0.5 - columns, rows + 0.5, frame.height - 0.5 - rows]
    return ra, dec, np.min(edges, axis=0)


@pytest.mark.parametrize(
    ("frame", "tolerance"),
    [
        (projection(150, 2), 1e-3),
        (projection(0.0, 0.0), 1e-3),
        (projection(359.999, -45, turned=77), 1e-3),
        (projection(30, 90), 1e-3),
        (projection(30, -89.99), 1e-3),
        (projection(150, 2, 10_000, pixel=0.2), 1e-2),
        (projection(150, 2, kind="ZEA"), 1e-3),
        (projection(150, 2, kind="SIN"), 1e-3),
        (projection(150, 2, 2000, kind="CAR", pixel=36.0), 0.1),
        (distorted(), 0.05),
    ],
    ids=str,
)
def test_a_position_is_on_a_frame_where_its_wcs_says_so(frame, tolerance):
    ra, dec, edge = around(frame)
    found = Footprints.of_table(table(frame)).find(ra, dec) == 0
    told = footprint(frame)
    assert told["error_pixels"] < tolerance
    clear = np.abs(edge) > tolerance
    np.testing.assert_array_equal(found[clear], edge[clear] > 0)
    assert clear.mean() > 0.99


def test_a_frame_away_from_its_reference_pixel_is_told_as_well():
    head = header(150.0, 2.0, 500)
    head["NAXIS1"] = head["NAXIS2"] = 500
    head["CRPIX1"] += 40_000
    frame = Projection.of_header(head)
    ra, dec, edge = around(frame)
    found = Footprints.of_table(table(frame)).find(ra, dec) == 0
    np.testing.assert_array_equal(found, edge > 0)


def test_of_many_frames_the_one_with_the_farthest_edge_is_found():
    rng = np.random.default_rng(3)
    # Frames of all sizes, so that there are cells of many orders, many of them in the way of others.
    frames = [
        projection(rng.uniform(0, 360), rng.uniform(-90, 90), 200, pixel=10 ** rng.uniform(1.5, 2.7),
                   turned=rng.uniform(0, 360))
        for _ in range(150)
    ]  # fmt: skip
    ra, dec = rng.uniform(0, 360, 20_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    edges = []
    for frame in frames:
        x, y = frame.pixels(ra, dec)
        edges.append(np.nan_to_num(np.min([x + 0.5, 199.5 - x, y + 0.5, 199.5 - y], axis=0), nan=-1.0))
    margins = np.array(edges)
    expected = np.where(margins.max(axis=0) > 0, margins.argmax(axis=0), -1)
    first, second = np.sort(margins, axis=0)[[-1, -2]]
    clear = (np.abs(first) > 0.01) & (first - second > 0.01)
    found = Footprints.of_table(table(*frames)).find(ra, dec)
    np.testing.assert_array_equal(found[clear], expected[clear])
    assert 0.2 < (found >= 0).mean() < 0.9
    assert ((margins > 0).sum(axis=0) > 1).mean() > 0.05


def test_of_equal_frames_the_first_is_found_whatever_the_order_of_their_cells():
    twin = projection(150, 2)
    ra, dec, edge = around(twin, 200)
    found = Footprints.of_table(table(twin, twin)).find(ra, dec)
    np.testing.assert_array_equal(found, np.where(edge > 0, 0, -1))


def test_no_position_is_on_no_frame():
    lookup = Footprints.of_table(table(projection(150, 2)))
    ra = np.array([np.nan, 150, np.inf, 150, 150 - 360, 150 + 720, 330])
    dec = np.array([2, np.nan, 2, 91, 2, 2, -2])
    assert lookup.find(ra, dec).tolist() == [-1, -1, -1, -1, 0, 0, -1]
    assert lookup.find(np.empty(0), np.empty(0)).tolist() == []


def test_blocks_make_no_difference(monkeypatch):
    frame = projection(150, 2)
    ra, dec, _ = around(frame, 500)
    lookup = Footprints.of_table(table(frame))
    whole = lookup.find(ra, dec)
    monkeypatch.setattr(module, "BLOCK_POSITIONS", 7)
    np.testing.assert_array_equal(lookup.find(ra, dec), whole)


def test_a_frame_of_half_the_sky_is_refused():
    footprint(projection(150, 2, 300, pixel=36.0))
    with pytest.raises(ValueError):  # noqa: PT011 (it has no fact to match)
        footprint(projection(150, 2, 300, pixel=3600.0))


def test_a_frame_that_no_polynomial_follows_is_refused():
    head = header(150.0, 2.0, 1000, 20.0)
    head["NAXIS1"] = head["NAXIS2"] = 1000
    head["CTYPE1"], head["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    head.update({"A_ORDER": 9, "A_9_0": 3e-23, "B_ORDER": 2, "B_0_2": 0.0})
    with pytest.raises(ValueError, match=r"\d+\.\d"):
        footprint(Projection.of_header(head))


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, None),
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, None),
        ({"CUNIT1": "furlong"}, None),
        ({"CUNIT1": "m", "CUNIT2": "m"}, None),
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "GLON.*GLAT"),
        ({"RADESYS": "FK4", "EQUINOX": 1950.0}, "B1950"),
        ({"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0}, None),
        ({"CRVAL1": "x"}, "CRVAL1"),
        ({"CRVAL2": 95.0}, None),
    ],
    ids=str,
)
def test_a_header_that_places_nothing_is_one_error(cards, words):
    head = fits.Header()
    for name, value in header(150.0, 2.0, 300).items():
        # The matrix as CD alone, so that it can be changed.
        if name in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CTYPE1", "CTYPE2"):
            head[name] = value
    head.update({"NAXIS1": 300, "NAXIS2": 300, "CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4})
    footprint(Projection.of_header(head))
    head.update(cards)
    with pytest.raises(ValueError, match=words):
        footprint(Projection.of_header(head))


def test_a_header_without_a_reference_position_is_not_taken_for_one_at_zero():
    head = header(150.0, 2.0, 300)
    head["NAXIS1"] = head["NAXIS2"] = 300
    del head["CRVAL2"]
    with pytest.raises(ValueError, match="CRVAL2"):
        Projection.of_header(head)


def test_declination_first_is_told_from_right_ascension():
    head = header(150.0, 2.0, 300)
    swapped = head.copy()
    for name in ("CTYPE", "CRVAL", "CRPIX"):
        swapped[f"{name}1"], swapped[f"{name}2"] = head[f"{name}2"], head[f"{name}1"]
    swapped["NAXIS1"] = swapped["NAXIS2"] = 300
    frame = Projection.of_header(swapped)
    assert footprint(frame)["ra"] == pytest.approx(150, abs=1e-3)
    assert Footprints.of_table(table(frame)).find(np.array([150.0]), np.array([2.0])).tolist() == [0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0),
        ("height", -5),
        ("ra", float("nan")),
        ("dec", 91.0),
        ("extent", 0.0),
        ("extent", float("inf")),
        ("healpix_order", 30),
        ("healpix_order", -1),
        ("healpix", []),
        ("healpix", [-1]),
        ("healpix", [12 * 4**13]),
        ("healpix", [1, None]),
        ("pixels", [float("nan")] * 42),
        ("pixels", [None] * 42),
    ],
)
def test_values_that_no_footprint_has_are_found(name, value):
    good = footprint(projection(150, 2))
    assert are_valid(pa.Table.from_pylist([good, good], SCHEMA))
    assert not are_valid(pa.Table.from_pylist([good, good | {name: value}], SCHEMA))


def test_lookups_are_fast_and_take_memory_by_the_frame():
    from time import process_time

    frames = table(
        *(projection(ra, dec, 2000, pixel=4.0) for ra in range(0, 360, 12) for dec in range(-60, 61, 12))
    )
    lookup = Footprints.of_table(frames)
    assert frames.nbytes / len(frames) < 500
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 200_000), rng.uniform(-60, 60, 200_000)
    start = process_time()
    lookup.find(ra, dec)
    assert len(ra) / (process_time() - start) > 30_000
