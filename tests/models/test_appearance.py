"""What is measured of a cutout moves with what it is named for, and depends on that cutout alone."""

import numpy as np
import pytest
from simulated_galaxies import OTHER_CAMERAS, galaxies

from gax_batch.models.appearance import STATISTICS, measure

NAMES = [statistic.name for statistic in STATISTICS]


def moved(change: str) -> dict[str, float]:
    """The median change of each statistic of 64 galaxies."""
    before = galaxies(64)
    after = OTHER_CAMERAS[change](before)
    return dict(zip(NAMES, np.median(measure(after) - measure(before), axis=0), strict=True))


def test_names_are_unique():
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(
    ("change", "lower", "higher"),
    [
        ("blurred", ["sharpness", "coarse_sharpness", "core_sharpness", "noise_green", "grain"], []),
        ("noisier", [], ["noise_red", "noise_green", "noise_blue", "sharpness"]),
        ("bluer", ["color_red_green", "noise_red_green", "noise_red"], ["color_blue_green", "noise_blue"]),
        ("redder", ["color_blue_green", "noise_blue"], ["color_red_green", "noise_red_green"]),
        ("stretched", [], ["background_red", "background_blue", "brightness", "peak"]),
        ("enlarged", ["light_inner", "light_middle", "sharpness"], ["brightness"]),
        ("shrunk", ["brightness"], ["light_inner", "light_middle"]),
    ],
)
def test_statistics_move_with_what_they_are_named_for(change, lower, higher):
    shift = moved(change)
    assert all(shift[name] < 0 for name in lower)
    assert all(shift[name] > 0 for name in higher)


def test_a_level_that_is_added_moves_the_background_alone():
    before = galaxies(64)[galaxies(64).max(axis=(1, 2, 3)) < 240]
    shift = dict(zip(NAMES, (measure(before + np.uint8(10)) - measure(before)).T, strict=True))
    for color in ("red", "green", "blue"):
        np.testing.assert_allclose(shift.pop(f"background_{color}"), 10)
    np.testing.assert_allclose(shift.pop("peak"), 30)
    assert max(np.abs(values).max() for values in shift.values()) < 1e-9


def test_a_cutout_is_measured_the_same_alone_and_among_others():
    images = galaxies(70)
    together = measure(images)
    assert np.array_equal(together, np.concatenate([measure(images[i : i + 1]) for i in range(70)]))
    assert np.array_equal(together[::-1], measure(images[::-1]))
    assert measure(images[:0]).shape == (0, len(STATISTICS))


def test_neighbors_in_two_corners_do_not_matter():
    plain = galaxies(64)
    crowded = plain.copy()
    crowded[:, :14, :14] = 200
    crowded[:, -14:, -14:] = np.random.default_rng(0).integers(0, 255, (64, 14, 14, 3), np.uint8)
    difference = measure(crowded) - measure(plain)
    level = difference[:, NAMES.index("background_green")]
    noise = difference[:, NAMES.index("noise_green")]
    assert np.median(np.abs(level)) < 2
    assert np.median(np.abs(noise)) < 0.3


def test_hostile_pixels_give_finite_numbers():
    rng = np.random.default_rng(0)
    images = np.stack(
        [
            np.zeros((64, 64, 3)),
            np.full((64, 64, 3), 255),
            np.pad(np.full((2, 2, 3), 255), [(31, 31), (31, 31), (0, 0)]),
            rng.integers(0, 256, (64, 64, 3)),
            255 * (np.indices((64, 64, 3)).sum(axis=0) % 2),
        ]
    ).astype(np.uint8)
    assert np.isfinite(measure(images)).all()
