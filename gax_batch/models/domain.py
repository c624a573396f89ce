"""Comparison of the images of a run, as a whole, with those of the survey on which the model was trained.

The reference is a sample of images of that survey. Each statistic of a cutout (`gax_batch.models.appearance`)
becomes its normal score in the reference. The mean scores of a run are compared with the reference by their
Mahalanobis distance, the *shift*. It is an effect size, not a significance: it does not grow with the number
of galaxies. A part of the reference that is selected by any one statistic moves by at most 0.8 (the half) or
1.75 (the tenth) if the scores are normal. Another camera, seeing, pixel scale or stretch also moves the
directions in which galaxies of one survey hardly differ.

Measured on the Galaxy Zoo challenge, with 1,500 reference images: other samples 0.1 to 0.6; one class only
0.9 to 2.3 (edge-on disks); the half, tenth or twentieth with the least or most of any statistic at most 1.2,
2.5 and 3.0. For 200 of the same galaxies: blurred (sigma 1.5 pixels) 13.8 or more, with noise of 6 gray
levels 5.9, with channels weighted 0.8, 1 and 1.25 4.9, magnified 1.5 or 0.68 times 5.0.

Counts of units are integers that add up to those of a run, whatever the size of the units.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Self

import numpy as np

from gax_batch.errors import UsageError
from gax_batch.models.appearance import STATISTICS, Doubles, Images, measure

SHIFT_LIMIT = 3.0
"""Minimum shift that means another survey. It is larger than that of any plausible selection."""
FAR_LIMIT = 0.2
"""Minimum fraction of images beyond 99 % of the reference that means another survey, or a mixture."""
LEAST_GALAXIES = 50
"""Minimum number of galaxies for a verdict."""
LEAST_REFERENCE = 200
"""Minimum number of images in a reference."""

VERSION = 1
_PROBABILITIES = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)
_SCORES = np.array([NormalDist().inv_cdf(p) for p in _PROBABILITIES])
# Beyond the outer quantiles scores grow linearly, up to this value: a broken image must not dominate a run.
_LARGEST_SCORE = 8.0
_SHRINKAGE = 0.05
_FAR_PROBABILITY = 0.99
# Counts are in thousandths of scores, so that their sums are exact.
_PER_SCORE = 1000
# A mean score from here on is named as a reason.
_NOTABLE = 1.0
_MOST_REASONS = 5
# Numbers of images between which a run in progress is judged.
_EARLY_GALAXIES = (200, 20_000)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of cutouts on which the verdict depends. Counts can be added.

    Attributes:
        galaxies: Number of cutouts.
        far: Number of cutouts beyond 99 % of the reference.
        scores: Sums of the normal scores of each statistic, in thousandths.
    """

    galaxies: int = 0
    far: int = 0
    scores: tuple[int, ...] = (0,) * len(STATISTICS)

    def __add__(self, other: Self) -> "Counts":
        """Return the sum of two counts."""
        scores = tuple(a + b for a, b in zip(self.scores, other.scores, strict=True))
        return Counts(self.galaxies + other.galaxies, self.far + other.far, scores)

    def to_json(self) -> str:
        """Return the counts as short text, to be stored with a unit's part."""
        return json.dumps([self.galaxies, self.far, *self.scores], separators=(",", ":"))

    @classmethod
    def add_up(cls, texts: Iterable[str]) -> "Counts":
        """Add up the counts of any number of units, as text of `to_json`."""
        total = [0] * (2 + len(STATISTICS))
        for text in texts:
            total = [a + b for a, b in zip(total, json.loads(text), strict=True)]
        return cls(total[0], total[1], tuple(total[2:]))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of the comparison of a run's images with the reference.

    Attributes:
        galaxies: Number of images that were compared.
        another_survey: Whether the images are unlike those of the training survey; None if they are too few.
        shift: Mahalanobis distance of their mean scores from the reference, minus the distance expected by
            chance.
        far: Fraction of images beyond 99 % of the reference.
        reasons: The statistics that differ most, in words.
        scores: Mean normal score by statistic.
    """

    galaxies: int
    another_survey: bool | None
    shift: float
    far: float
    reasons: tuple[str, ...]
    scores: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON for the record of a run."""
        return {
            "galaxies": self.galaxies,
            "another_survey": self.another_survey,
            "shift": round(self.shift, 3),
            "shift_limit": SHIFT_LIMIT,
            "far": round(self.far, 4),
            "far_limit": FAR_LIMIT,
            "reasons": list(self.reasons),
            "scores": {name: round(score, 3) for name, score in self.scores.items()},
        }


class Reference:
    """The statistics of images of the training survey.

    Args:
        values: Plain JSON that `fit_reference` returned.

    Raises:
        UsageError: The values are not those of a reference that this release supports.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        size = len(STATISTICS)
        try:
            if values["version"] != VERSION or values["statistics"] != [s.name for s in STATISTICS]:
                raise ValueError("another version")
            self._galaxies = int(values["galaxies"])
            self._quantiles = np.asarray(values["quantiles"], np.float64).reshape(size, len(_SCORES))
            self._mean = np.asarray(values["mean"], np.float64).reshape(size)
            covariance = np.asarray(values["covariance"], np.float64).reshape(size, size)
            np.linalg.cholesky(covariance)  # raises unless every direction has a variance
            self._inverse = _inverse(covariance)
            self._far = float(values["far"])
            numbers = (self._quantiles, self._mean, self._inverse, np.array(self._far))
            finite = all(np.isfinite(each).all() for each in numbers)
            if not finite or (np.diff(self._quantiles) < 0).any() or self._galaxies < 1:
                raise ValueError("values out of range")
        except (KeyError, TypeError, ValueError, OverflowError, np.linalg.LinAlgError) as error:
            raise UsageError(
                f"the bundle's reference of images, domain in its manifest, cannot be used ({error}); "
                "use a matching release of gax-batch or train the bundle again"
            ) from None

    @classmethod
    def of_bundle(cls, manifest: Mapping[str, Any]) -> "Reference | None":
        """Return the reference of a bundle; None for an older bundle, which does not have one."""
        values = manifest.get("domain")
        return None if values is None else cls(values)

    def count(self, cutouts: Images) -> Counts:
        """Measure cutouts, uint8 `[N, 64, 64, 3]`."""
        if not len(cutouts):
            return Counts()
        scores = np.rint(_normal_scores(measure(cutouts), self._quantiles) * _PER_SCORE).astype(np.int64)
        far = _square_distances(scores / _PER_SCORE - self._mean, self._inverse) > self._far
        return Counts(len(cutouts), int(far.sum()), tuple(scores.sum(axis=0).tolist()))

    def judge(self, counts: Counts) -> Verdict:
        """Compare the images of a run with the reference."""
        number = max(counts.galaxies, 1)
        mean = np.array(counts.scores) / (_PER_SCORE * number) - self._mean * (counts.galaxies > 0)
        # Expected square distance of the mean of a random sample.
        chance = len(STATISTICS) * (1 / number + 1 / self._galaxies)
        square = float(_square_distances(mean[None], self._inverse)[0])
        shift, far = max(square - chance, 0.0) ** 0.5, counts.far / number
        another = None if counts.galaxies < LEAST_GALAXIES else shift >= SHIFT_LIMIT or far >= FAR_LIMIT
        return Verdict(
            galaxies=counts.galaxies,
            another_survey=another,
            shift=shift,
            far=far,
            reasons=self._reasons(mean) if another else (),
            scores={s.name: float(score) for s, score in zip(STATISTICS, mean, strict=True)},
        )

    def _reasons(self, mean: Doubles) -> tuple[str, ...]:
        """Return the statistics that moved most, one of each group, in words."""
        # If no statistic moved much by itself, name the one that moved most given the others.
        partial = self._inverse @ mean / np.sqrt(np.diag(self._inverse))
        values = mean if np.abs(mean).max() >= _NOTABLE else partial
        reasons: dict[str, str] = {}
        for place in np.argsort(-np.abs(values), kind="stable"):
            statistic, value = STATISTICS[place], values[place]
            if reasons and (abs(value) < _NOTABLE or len(reasons) == _MOST_REASONS):
                break
            side = "higher" if value > 0 else "lower"
            words = f"{statistic.label} is {side} by {abs(value):.1f} standard deviations"
            reasons.setdefault(statistic.group, words)
        return tuple(reasons.values())


class Alarm:
    """Warns once about images of another survey, early in a run, before most of the work is done.

    Args:
        reference: Reference of the bundle. With None, it never warns.
    """

    def __init__(self, reference: Reference | None) -> None:
        self._reference = reference

    def see(self, counts: Counts) -> list[str]:
        """Return the warning about the images that have been counted so far, if it is new."""
        least, most = _EARLY_GALAXIES
        if self._reference is None or counts.galaxies < least:
            return []
        lines = warning_lines(self._reference.judge(counts).as_dict())
        if lines or counts.galaxies > most:
            self._reference = None
        return lines


def fit_reference(cutouts: Images) -> dict[str, Any]:
    """Describe images of the training survey.

    Args:
        cutouts: A random sample, uint8 `[N, 64, 64, 3]`. A few thousand are enough.

    Returns:
        Plain JSON for `Reference`, stored as `domain` in the manifest.

    Raises:
        ValueError: The number of cutouts is below `LEAST_REFERENCE`.
    """
    if len(cutouts) < LEAST_REFERENCE:
        raise ValueError(f"a reference needs at least {LEAST_REFERENCE} cutouts, not {len(cutouts)}")
    values = measure(cutouts)
    quantiles = np.round(np.quantile(values, _PROBABILITIES, axis=0).T, 6)
    scores = _normal_scores(values, quantiles)
    mean = np.round(scores.mean(axis=0), 6)
    covariance = np.cov(scores.T)
    # Shrink the covariance to its diagonal, so that directions without variance do not decide alone. A
    # statistic that is the same in all images does not have a variance either.
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.diag(np.maximum(np.diag(covariance), 1.0))
    covariance = np.round(covariance, 6)
    squares = _square_distances(scores - mean, _inverse(covariance))
    return {
        "version": VERSION,
        "galaxies": len(cutouts),
        "statistics": [statistic.name for statistic in STATISTICS],
        "quantiles": quantiles.tolist(),
        "mean": mean.tolist(),
        "covariance": covariance.tolist(),
        "far": round(float(np.quantile(squares, _FAR_PROBABILITY)), 6),
    }


def warning_lines(verdict: Mapping[str, Any] | None) -> list[str]:
    """Return a warning for the user if images are of another survey, else an empty list.

    Args:
        verdict: Result of `Verdict.as_dict`, or None.
    """
    if not verdict or not verdict["another_survey"]:
        return []
    return [
        "WARNING: THESE IMAGES ARE NOT LIKE THOSE ON WHICH THE MODEL WAS TRAINED: do not trust its fractions "
        "and intervals before you have checked them against labels",
        f"  {verdict['galaxies']:,} images have a shift of {verdict['shift']:.1f} from the reference "
        f"(limit {verdict['shift_limit']:g}); {100 * verdict['far']:.0f} % of them are unlike 99 % of the "
        f"reference (limit {100 * verdict['far_limit']:.0f} %)",
        *(f"  {reason}" for reason in verdict["reasons"]),
        "  check the order and stretch of the bands, the crop and the pixel scale; measure the errors on "
        "labelled images of this survey with `gax evaluate`, or train a bundle on them",
    ]


def _normal_scores(values: Doubles, quantiles: Doubles) -> Doubles:
    """Convert values `[N, K]` to normal scores by the quantiles `[K, len(_SCORES)]` of the reference."""
    scores = np.empty_like(values)
    for place, (column, levels) in enumerate(zip(values.T, quantiles, strict=True)):
        # The outermost quantiles of a small sample scatter, so the next ones give the scale.
        spread = max((levels[-2] - levels[1]) / (_SCORES[-2] - _SCORES[1]), 1e-6)
        below, above = np.minimum(column - levels[0], 0), np.maximum(column - levels[-1], 0)
        scores[:, place] = np.interp(column, levels, _SCORES) + (below + above) / spread
    return np.clip(scores, -_LARGEST_SCORE, _LARGEST_SCORE)


def _inverse(matrix: Doubles) -> Doubles:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _square_distances(offsets: Doubles, inverse: Doubles) -> Doubles:
    """Return the squared Mahalanobis distance of each of `[N, K]` from 0, `[N]`."""
    squares: Doubles = (offsets @ inverse * offsets).sum(axis=1)
    return squares
