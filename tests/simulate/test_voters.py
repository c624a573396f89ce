from collections.abc import Callable

import numpy as np
import pytest

from gax_batch import gz2
from gax_batch.simulate.population import Kind, Population, draw_population
from gax_batch.simulate.voters import vote_fractions

Build = Callable[..., Population]
SPIRAL = {"n_arms": 2, "pitch_angle": -12, "arm_strength": 0.9, "bulge_fraction": 0.15, "flocculence": 0.3}


def gz2_class(population: Population) -> str:
    return gz2.gz2_class(vote_fractions(population))[0]


def test_votes_are_tree_consistent_probabilities() -> None:
    votes = vote_fractions(draw_population(np.random.default_rng(1), 5000))
    assert votes.shape == (5000, gz2.N_ANSWERS)
    assert votes.dtype == np.float32
    assert np.isfinite(votes).all()
    assert votes.min() >= 0
    assert votes.max() <= 1
    assert gz2.inconsistency(votes) < 1e-6


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (
            {"kind": Kind.EARLY_TYPE, "bulge_fraction": 0.9, "axis_ratio": 0.95, "bulge_axis_ratio": 0.95},
            "Er",
        ),
        ({"kind": Kind.EARLY_TYPE, "bulge_fraction": 0.9, "axis_ratio": 0.6, "bulge_axis_ratio": 0.6}, "Ei"),
        ({"cos_inclination": 0.05, "axis_ratio": 0.2, "bulge_fraction": 0.5}, "Ser"),
        ({"cos_inclination": 0.05, "axis_ratio": 0.2, "bulge_fraction": 0.5, "boxiness": 1}, "Seb"),
        ({"cos_inclination": 0.05, "axis_ratio": 0.2}, "Sen"),
        (SPIRAL, "Sc2t"),
        (SPIRAL | {"bar_strength": 0.3}, "SBc2t"),
        (SPIRAL | {"n_arms": 4, "pitch_angle": 35}, "Sc4l"),
        (SPIRAL | {"bulge_fraction": 0.45, "pitch_angle": 20}, "Sb2m"),
        (SPIRAL | {"merger_ratio": 0.9}, "Sc2t(m)"),
        (SPIRAL | {"ring_strength": 0.5}, "Sc2t(r)"),
        ({"kind": Kind.IRREGULAR, "flocculence": 1}, "Sd(i)"),
        ({"kind": Kind.STAR}, "A"),
    ],
)
def test_the_class_follows_from_the_structure(
    galaxy: Build, structure: dict[str, float], expected: str
) -> None:
    assert gz2_class(galaxy(**structure)) == expected


def test_fewer_see_arms_that_the_seeing_washes_out(galaxy: Build) -> None:
    column = gz2.ANSWERS.index("t04_spiral_a08_spiral")
    sharp, blurred = (vote_fractions(galaxy(**SPIRAL, seeing=s))[0, column] for s in (1.5, 8.0))
    assert sharp > blurred + 0.2


def test_the_population_is_as_mixed_as_galaxy_zoo_2() -> None:
    """Mean fractions of the Galaxy Zoo challenge's training set, within a third or 0.05."""
    mean = dict(
        zip(
            gz2.ANSWERS,
            vote_fractions(draw_population(np.random.default_rng(2), 20_000)).mean(0),
            strict=True,
        )
    )
    published = {
        "t01_smooth_or_features_a01_smooth": 0.44,
        "t01_smooth_or_features_a02_features_or_disk": 0.52,
        "t01_smooth_or_features_a03_star_or_artifact": 0.03,
        "t02_edgeon_a04_yes": 0.11,
        "t03_bar_a06_bar": 0.09,
        "t04_spiral_a08_spiral": 0.20,
        "t06_odd_a14_yes": 0.19,
    }
    for answer, fraction in published.items():
        assert mean[answer] == pytest.approx(fraction, rel=1 / 3, abs=0.05), answer
