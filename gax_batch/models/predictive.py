"""The predictive distribution of vote fractions: conformal quantiles within groups known in advance.

An interval that contains 90 % of all fractions may contain far fewer of those that matter: most galaxies are
never asked how many arms they have, and their fractions of 0 are easy. Residuals are therefore measured in
units of a fitted scale. They are compared within groups of similar predicted share of volunteers who are
asked the question, and of similar predicted fraction (Mondrian conformal prediction: Vovk, Gammerman &
Shafer 2005, section 4.5).

One distribution is of cumulative fractions (of all volunteers). The other is of conditional fractions (of the
volunteers who are asked the question) of galaxies for which at least one volunteer is asked. Both are
functions of a catalog's `_prob` and `_std`. This module needs only NumPy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize

from gax_batch import gz2
from gax_batch.errors import UsageError
from gax_batch.gz2 import QUESTION_OF

Float = npt.NDArray[np.float32]
Groups = npt.NDArray[np.intp]
# Probabilities at which the distribution is tabulated. Quantiles between them are interpolated.
GRID = (0.005, 0.025, 0.05, 0.1, 0.16, 0.25, 0.4, 0.5, 0.6, 0.75, 0.84, 0.9, 0.95, 0.975, 0.995)
# Boundaries of the groups in the predicted share of volunteers who are asked a question.
EDGES = (0.1, 0.3, 0.6)
# Boundaries of the groups in the predicted fraction. Small fractions cannot err downward by much: with all
# sizes in one group, 90 % intervals contained 76 to 96 % by tenth of the predicted fraction. With these
# groups they contain 86 to 95 %, and the interval score is better by 5 % (cross-validated on the
# calibration).
FRACTION_EDGES = (0.005, 0.02, 0.05, 0.15, 0.3, 0.6, 0.85)
# A group with fewer fractions is merged with those around it. Counting galaxies instead merges the few
# that were asked about their bulge with others: 80 % instead of 87 % were contained (cross-validated).
FEWEST = 60
GROUPS = (len(EDGES) + 1, len(FRACTION_EDGES) + 1)
FLOOR = 0.02
# A fraction of 0 of a question that was not asked is easy to predict. With equal weights, galaxies for which
# it was asked would suffer: intervals of the arms contained 83 % instead of 90 %. Calibrated on these alone,
# intervals contained 95 % of all.
UNASKED_WEIGHT = 0.3
# If at least one volunteer was asked, it was one of about 40 or more.
LEAST_SHARE = 1 / 40
_ROOT = np.array([question.parent is None for question in gz2.QUESTIONS])[QUESTION_OF]


@dataclass(frozen=True, slots=True)
class Predictive:
    """The distribution of residuals of held-out galaxies. Plain data of a bundle's calibration.

    Attributes:
        scale: float32 `[11, 3]`, by question the weights of `variance_terms` in the variance of a residual.
        quantiles: float32 `[11, G, F, L]`, by question, group of the share asked, group of the fraction and
            probability of `GRID`, quantiles of the residuals in units of the scale. `G` and `F` are one more
            than the lengths of `EDGES` and `FRACTION_EDGES`.
        conditional: Whether the fractions are of the volunteers who are asked the question.
    """

    scale: Float
    quantiles: Float
    conditional: bool = False

    @classmethod
    def of_json(cls, values: Mapping[str, Any], *, conditional: bool = False) -> "Predictive":
        """Read the result of `as_json`.

        Raises:
            UsageError: A question or a group is missing, or a value is not a number.
        """
        try:
            scale, quantiles = (np.array(values[name], np.float32) for name in ("scale", "quantiles"))
        except (KeyError, TypeError, ValueError):
            # Rows of unequal lengths also raise ValueError.
            raise UsageError(
                "the bundle's calibration lacks all or some scales or quantiles, so it has no "
                "intervals; use another bundle"
            ) from None
        if quantiles.ndim == 3:
            # Bundles of earlier releases do not have groups of the fraction.
            quantiles = np.repeat(quantiles[:, :, None], len(FRACTION_EDGES) + 1, axis=2)
        wanted = ((gz2.N_QUESTIONS, 3), (gz2.N_QUESTIONS, *GROUPS, len(GRID)))
        if (scale.shape, quantiles.shape) != wanted:
            raise UsageError(
                f"the bundle's calibration has scales {list(scale.shape)} and quantiles "
                f"{list(quantiles.shape)}, not {list(wanted[0])} and {list(wanted[1])}; use another bundle"
            )
        if not (np.isfinite(scale).all() and np.isfinite(quantiles).all() and scale.min() >= 0):
            raise UsageError(
                "the bundle's calibration has quantiles or scales that are not finite, or negative scales; "
                "use another bundle"
            )
        return cls(scale, quantiles, conditional)

    @classmethod
    def certain(cls, *, conditional: bool = False) -> "Predictive":
        """Return the distribution of width zero, for use during calibration."""
        return cls(
            np.zeros((gz2.N_QUESTIONS, 3), np.float32),
            np.zeros((gz2.N_QUESTIONS, *GROUPS, len(GRID)), np.float32),
            conditional,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the distribution as nested lists of rounded numbers."""
        return {
            "scale": np.round(self.scale.astype(np.float64), 6).tolist(),
            "quantiles": np.round(self.quantiles.astype(np.float64), 5).tolist(),
        }

    def at(self, prob: Float, std: Float, levels: Sequence[float]) -> Float:
        """Return the quantiles of the vote fractions.

        Args:
            prob: Predicted cumulative fractions, float32 `[N, 37]`.
            std: Their standard deviations, float32 `[N, 37]`. NaN counts as zero.
            levels: L probabilities.

        Returns:
            Quantiles, float32 `[L, N, 37]` in [0, 1], non-decreasing along L.
        """
        expected = self.expected(prob)
        widths = residual_scale(self.scale, prob, std, conditional=self.conditional)
        table = _interpolated(self.quantiles, levels)
        reach = table[QUESTION_OF[None, :], share_groups(prob), fraction_groups(expected)]
        values = expected[None] + widths[None] * np.moveaxis(reach, -1, 0)
        return np.asarray(np.clip(values, 0, 1), np.float32)

    def expected(self, prob: Float) -> Float:
        """Return the predicted fractions, `[N, 37]`: `prob`, or its conditional fractions."""
        return np.asarray(gz2.conditional(prob), np.float32) if self.conditional else prob

    def interval(self, prob: Float, std: Float, level: float) -> tuple[Float, Float]:
        """Return the central interval, `[N, 37]` each end, widened to contain the predicted fraction."""
        low, high = self.at(prob, std, [(1 - level) / 2, (1 + level) / 2])
        expected = self.expected(prob)
        return np.minimum(low, expected), np.maximum(high, expected)


def share_groups(prob: Float) -> Groups:
    """Return how many of `EDGES` the predicted share asked of each galaxy and answer exceeds, `[N, 37]`."""
    return np.searchsorted(np.array(EDGES, np.float32), gz2.parents(prob), side="right")


def fraction_groups(expected: Float) -> Groups:
    """Return how many of `FRACTION_EDGES` each predicted fraction exceeds, `[N, 37]`."""
    return np.searchsorted(np.array(FRACTION_EDGES, np.float32), expected, side="right")


def variance_terms(prob: Float, std: Float, *, conditional: bool = False) -> Float:
    """Return the terms of the variance of a residual, float32 `[3, N, 37]`.

    The terms are 1, the variance of one vote and the squared spread. Where few volunteers are asked, a
    conditional fraction is of few votes, and its spread is that of a quotient.

    Args:
        prob: Predicted cumulative fractions, float32 `[N, 37]`.
        std: Their standard deviations, float32 `[N, 37]`. NaN counts as zero.
        conditional: Whether the residuals are those of conditional fractions.
    """
    fraction, spread = prob, np.square(np.nan_to_num(std))
    share: Float | float = 1.0
    if conditional:
        fraction = np.asarray(gz2.conditional(prob), np.float32)
        share = np.maximum(gz2.parents(prob), np.float32(LEAST_SHARE))
        above = np.where(_ROOT, np.float32(0), gz2.parents(spread))
        # Assumes that the errors of the share and of the conditional fraction, factors of `prob`, are
        # independent.
        spread = np.maximum(spread - np.square(fraction) * above, 0) / np.square(share)
    votes = np.maximum(fraction * (1 - fraction), 0) / share
    return np.stack([np.ones_like(prob), votes, spread])


def residual_scale(scale: Float, prob: Float, std: Float, *, conditional: bool = False) -> Float:
    """Return the expected scatter of fractions around their prediction, float32 `[N, 37]`."""
    terms = variance_terms(prob, std, conditional=conditional)
    variance = (terms * scale[QUESTION_OF].T[:, None]).sum(axis=0)
    return np.asarray(np.sqrt(variance), np.float32)


def fit(prob: Float, std: Float, truth: Float, *, conditional: bool = False) -> Predictive:
    """Fit scales and quantiles.

    Args:
        prob: Predicted cumulative fractions of N galaxies that were not used for training, float32 `[N, 37]`.
        std: Their standard deviations, float32 `[N, 37]`, or NaN.
        truth: Their vote fractions, float32 `[N, 37]`; NaN if unknown.
        conditional: Whether `truth` is of the volunteers who were asked; NaN also where none was.
    """
    terms = variance_terms(prob, std, conditional=conditional)
    expected = Predictive.certain(conditional=conditional).expected(prob)
    residuals = truth - expected
    scale = np.stack([_fit_scale(terms[:, :, q.columns], residuals[:, q.columns]) for q in gz2.QUESTIONS])
    scores = residuals / residual_scale(scale, prob, std, conditional=conditional)
    shares, fractions = share_groups(prob), fraction_groups(expected)
    unasked = np.zeros(truth.shape, bool) if conditional else gz2.parents(truth) == 0
    weights = np.where(unasked, UNASKED_WEIGHT, 1.0)
    quantiles = [
        group_quantiles(
            scores[:, q.columns], weights[:, q.columns], shares[:, q.columns], fractions[:, q.columns]
        )
        for q in gz2.QUESTIONS
    ]
    return Predictive(scale, np.stack(quantiles), conditional)


def _fit_scale(terms: Float, residuals: Float) -> Float:
    """Fit the squared residuals by non-negative least squares, relative to their expected size.

    Args:
        terms: Variance terms of a question's answers, float32 `[3, N, A]`.
        residuals: Residuals, float32 `[N, A]`; NaN if unknown.
    """
    known = np.isfinite(residuals)
    if not known.any():
        return np.array([FLOOR**2, 0, 0], np.float32)
    design, squares = terms[:, known].astype(np.float64).T, np.square(residuals[known], dtype=np.float64)
    votes = design[:, 1]
    weight = 1 / (FLOOR**2 + votes * squares.mean() / max(votes.mean(), 1e-9))
    solution, _ = scipy.optimize.nnls(design * weight[:, None], squares * weight)
    solution[0] = max(solution[0], FLOOR**2)
    return np.asarray(solution, np.float32)


def group_quantiles(
    scores: Float, weights: npt.NDArray[np.float64], shares: Groups, fractions: Groups
) -> Float:
    """Return the quantiles of a question, `[G, F, L]`.

    Args:
        scores: Residuals in units of the scale, float32 `[N, A]`; NaN if unknown.
        weights: Weights of the scores, float64 `[N, A]`.
        shares: Groups of the scores by share asked, `[N, A]`.
        fractions: Groups of the scores by predicted fraction, `[N, A]`.
    """
    known = np.isfinite(scores)
    quantiles = np.empty((*GROUPS, len(GRID)), np.float32)
    for share, fraction in np.ndindex(*GROUPS):
        for around in _around(shares, fractions, share, fraction):
            cells = known & around
            if cells.sum() >= FEWEST:
                break
        quantiles[share, fraction] = conformal_quantiles(scores[cells], weights[cells])
    return quantiles


def _around(shares: Groups, fractions: Groups, share: int, fraction: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the members of a group, then of ever more groups around it: first by share, then by fraction."""
    for reach in range(GROUPS[1]):
        near = np.abs(fractions - fraction) <= reach
        for lowest in range(share, -1, -1):
            yield near & (lowest <= shares) & (shares <= share)
        for highest in range(share + 1, GROUPS[0]):
            yield near & (shares <= highest)


def conformal_quantiles(
    scores: npt.NDArray[np.floating[Any]], weights: npt.NDArray[np.float64] | None = None
) -> Float:
    """Return the quantiles of `GRID` that hold for a further score of the same kind.

    The k-th of n scores of equal weight has the probability k / (n + 1) (weighted: Tibshirani et al. 2019,
    NeurIPS). If the scores are too few for a tail, it extends to the most extreme score. Without any score,
    the tails extend to every fraction.

    Args:
        scores: Scores, float `[n]`.
        weights: Their weights, float64 `[n]`; None for equal weights.

    Returns:
        Quantiles, float32 `[L]`.
    """
    if not len(scores):
        return np.asarray(np.sign(np.array(GRID) - 0.5) / FLOOR, np.float32)
    order = np.argsort(scores, kind="stable")
    heavy = np.ones(len(scores)) if weights is None else weights[order]
    below = np.cumsum(heavy) / (heavy.sum() + heavy.max())
    grid, last = np.array(GRID), len(scores) - 1
    # Keep rounding errors from moving a rank.
    low = np.searchsorted(below, grid + 1e-9, side="right") - 1
    high = np.searchsorted(below, grid - 1e-9, side="left")
    ranks = np.clip(np.where(grid < 0.5, low, high), 0, last)
    return np.asarray(scores[order][ranks], np.float32)


def _interpolated(quantiles: Float, levels: Sequence[float]) -> Float:
    """Interpolate quantiles `[11, G, F, L]` at other probabilities."""
    grid = np.array(GRID)
    flat = quantiles.reshape(-1, len(GRID))
    rows = [np.interp(levels, grid, row) for row in flat]
    return np.asarray(rows, np.float32).reshape(*quantiles.shape[:-1], len(levels))
