"""Answers that an ideal population of volunteers would give for an object of known structure.

Each question of the Galaxy Zoo 2 tree is answered from the corresponding structure, with soft thresholds
instead of a single answer, since volunteers disagree most near the thresholds. The fractions are
those of infinitely many volunteers: without vote noise, and without the biases of distance.
"""

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.simulate.population import EDGE_ON_COSINE, Kind, Population

Array = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def vote_fractions(galaxies: Population) -> Array:
    """Return the 37 cumulative answer fractions of every object.

    Args:
        galaxies: N objects.

    Returns:
        Fractions, float32 `[N, 37]`, consistent with the tree (see `gax_batch.gz2`).
    """
    side, spiral = _side(galaxies), _spiral(galaxies)
    odd, odd_feature = _oddities(galaxies)
    answers = [
        _smooth_or_features(galaxies, side, spiral, odd),
        _yes_no(side),
        _yes_no(_sigmoid(22 * galaxies.bar_strength - 2.8)),
        _yes_no(spiral),
        # Bulge fractions at which the bulge is absent, just noticeable, obvious, dominant.
        _nearest(galaxies.bulge_fraction, (0.0, 0.13, 0.4, 0.85), (0.07, 0.12, 0.17, 0.17)),
        _yes_no(odd),
        _nearest(_roundness(galaxies), (1.0, 0.6, 0.2), (0.15, 0.15, 0.12)),
        odd_feature,
        _bulge_shape(galaxies),
        _nearest(np.abs(galaxies.pitch_angle), (9.0, 20.0, 34.0), (6.0, 6.0, 7.0)),
        _arms_number(galaxies, spiral),
    ]
    return gz2.cumulative(np.concatenate(answers, axis=1)).astype(np.float32)


def _sigmoid(evidence: npt.ArrayLike) -> Float64:
    return 1 / (1 + np.exp(-np.asarray(evidence, np.float64)))


def _yes_no(yes: Float64) -> Float64:
    return np.stack([yes, 1 - yes], axis=1)


def _normalized(weights: list[npt.ArrayLike]) -> Float64:
    """Return rows of sum one from columns of non-negative weights."""
    table = np.stack(np.broadcast_arrays(*(np.asarray(w, np.float64) for w in weights)), axis=1)
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def _nearest(value: Array, centers: tuple[float, ...], widths: tuple[float, ...]) -> Float64:
    """Return the answers to a question of degree: Gaussian in the distance from each typical value."""
    steps = (np.asarray(value, np.float64)[:, None] - np.array(centers)) / np.array(widths)
    # Votes are at most exp(-20) apart, so that no row is all zeros.
    weights = np.exp(np.maximum(-0.5 * np.square(steps), -20))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _resolved(galaxies: Population) -> Float64:
    """Return how well structure is resolved through the seeing, 0 to 1."""
    return _sigmoid(1.2 * (galaxies.half_light_radius / galaxies.seeing - 1.0))


def _side(galaxies: Population) -> Float64:
    """Return the probability that volunteers see a disk viewed edge-on."""
    disk = _sigmoid(24 * (EDGE_ON_COSINE + 0.03 - galaxies.cos_inclination))
    other = 0.6 * _sigmoid(20 * (0.3 - galaxies.axis_ratio))
    return np.asarray(np.where(galaxies.kind == Kind.DISK, disk, other))


def _spiral(galaxies: Population) -> Float64:
    """Return the probability that volunteers see a spiral arm pattern."""
    # A dominant bulge, bad seeing and a tilted disk hide the arms.
    clarity = galaxies.arm_strength * _resolved(galaxies) * np.sqrt(1 - galaxies.bulge_fraction)
    return _sigmoid(9 * clarity * np.minimum(1, 2 * galaxies.axis_ratio) - 2.6)


def _smooth_or_features(galaxies: Population, side: Float64, spiral: Float64, odd: Float64) -> Float64:
    disk = (galaxies.kind == Kind.DISK) * (1.6 * (1 - galaxies.bulge_fraction) - 0.2)
    evidence = -2.4 + disk + 4.0 * side * (galaxies.kind == Kind.DISK) + 3.5 * spiral
    evidence += 7 * galaxies.bar_strength + 5 * galaxies.ring_strength + 1.5 * odd
    evidence += 2.0 * (galaxies.kind == Kind.IRREGULAR) * galaxies.flocculence
    features = _sigmoid(evidence)
    not_galaxy = np.where(galaxies.kind >= Kind.STAR, 0.92, 0.01)
    return np.stack([(1 - not_galaxy) * (1 - features), (1 - not_galaxy) * features, not_galaxy], axis=1)


def _roundness(galaxies: Population) -> Array:
    """Return the axis ratio of bulge and disk together."""
    share = galaxies.bulge_fraction
    ratio = share * galaxies.bulge_axis_ratio + (1 - share) * galaxies.axis_ratio
    return np.where(galaxies.kind == Kind.STAR, np.float32(1), ratio)


def _oddities(galaxies: Population) -> tuple[Float64, Float64]:
    """Return the probability that something is odd, and the fractions of the seven odd features."""
    seen = _resolved(galaxies)
    ring = 6 * galaxies.ring_strength * seen
    disturbed = 8 * galaxies.disturbance
    irregular = 3.0 * (galaxies.kind == Kind.IRREGULAR)
    merger = 6 * np.sqrt(galaxies.merger_ratio)
    dust = 0.8 * galaxies.dust * seen
    other = 0.3 + 1.5 * (galaxies.kind >= Kind.STAR)
    odd = _sigmoid(1.3 * (ring + disturbed + irregular + merger + dust) - 2.6)
    return odd, _normalized([ring, 0.06, disturbed, irregular, other, merger, dust])


def _bulge_shape(galaxies: Population) -> Float64:
    none = 1 - _sigmoid(18 * (galaxies.bulge_fraction - 0.12))
    boxy = (1 - none) * (0.03 + 0.75 * galaxies.boxiness)
    return np.stack([1 - none - boxy, boxy, none], axis=1)


def _arms_number(galaxies: Population, spiral: Float64) -> Float64:
    counts = np.arange(1, 6)
    distance = np.abs(np.minimum(galaxies.n_arms, 5)[:, None] - counts)
    # Many arms are harder to count than two.
    confusion = 0.15 + 0.12 * galaxies.n_arms[:, None]
    weights = np.exp(-distance / confusion)
    weights /= weights.sum(axis=1, keepdims=True)
    lost = np.clip(1 - spiral, 0.05, 0.9)[:, None]
    lost = np.where(galaxies.n_arms[:, None] == 0, 0.9, lost)
    return np.concatenate([(1 - lost) * weights, lost], axis=1)
