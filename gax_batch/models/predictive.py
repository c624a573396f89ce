"""The predictive distribution of vote fractions: conformal quantiles by what is known in advance.

An interval that holds 90 % of all fractions may hold far fewer of those that matter: most galaxies are never
asked how many arms they have, and their fractions of 0 are easy. Residuals are therefore measured in units of
a fitted scale and compared within groups of the same predicted share of volunteers who are asked the question
and of about the same predicted fraction (Mondrian conformal prediction: Vovk, Gammerman & Shafer 2005,
section 4.5).

There is one distribution of cumulative fractions (of all volunteers), and one of conditional fractions (of
the volunteers who are asked the question) at galaxies where somebody is asked. Both are functions of a
catalog's `_prob` and `_std`. NumPy only.
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
# Probabilities at which the distribution is tabulated; between them quantiles are interpolated.
GRID = (0.005, 0.025, 0.05, 0.1, 0.16, 0.25, 0.4, 0.5, 0.6, 0.75, 0.84, 0.9, 0.95, 0.975, 0.995)
# Predicted share of volunteers who are asked a question, between the groups.
EDGES = (0.1, 0.3, 0.6)
# Predicted fraction, between the groups. Small fractions cannot err downwards by much: with those of all
# sizes in one group, 90 % intervals held 76 to 96 % by tenth of the predicted fraction. With these groups
# they hold 86 to 95 %, and the interval score is better by 5 % (cross-validated where it is calibrated).
FRACTION_EDGES = (0.005, 0.02, 0.05, 0.15, 0.3, 0.6, 0.85)
# Below this many fractions a group is merged with those around it. Counting galaxies instead merges the few
# that were asked about their bulge with others: 80 % of theirs held instead of 87 % (cross-validated).
FEWEST = 60
GROUPS = (len(EDGES) + 1, len(FRACTION_EDGES) + 1)
FLOOR = 0.02
# A fraction of 0 of a question that nobody was asked is easy to hold. With equal weights the galaxies that
# were asked would pay for it: their arms' intervals held 83 % instead of 90 %; on them alone, 95 % of all.
UNASKED_WEIGHT = 0.3
# Where somebody was asked, it was one of about 40 volunteers at least.
LEAST_SHARE = 1 / 40
_ROOT = np.array([question.parent is None for question in gz2.QUESTIONS])[QUESTION_OF]


@dataclass(frozen=True, slots=True)
class Predictive:
    """What held-out galaxies taught of the residuals; plain data of a bundle's calibration.

    Attributes:
        scale: float32 `[11, 3]`, by question the weights of `variance_terms` in the variance of a residual.
        quantiles: float32 `[11, G, F, L]`, by question, group of the share asked, group of the fraction and
            probability of `GRID`, of the residuals in units of the scale; `G` and `F` are one more than the
            numbers of `EDGES` and of `FRACTION_EDGES`.
        conditional: Whether the fractions are of the volunteers who are asked the question.
    """

    scale: Float
    quantiles: Float
    conditional: bool = False

    @classmethod
    def of_json(cls, values: Mapping[str, Any], *, conditional: bool = False) -> "Predictive":
        """Read what `as_json` returned.

        Raises:
            UsageError: It lacks a question or a group, or holds something else than numbers.
        """
        try:
            scale, quantiles = (np.array(values[name], np.float32) for name in ("scale", "quantiles"))
        except (KeyError, TypeError, ValueError):
            # Rows of unequal lengths are a ValueError too.
            raise UsageError(
                "the bundle's calibration lacks scales or quantiles, or a part of them, so it has no "
                "intervals; use another bundle"
            ) from None
        if quantiles.ndim == 3:
            # Bundles of earlier releases have no groups of the fraction.
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
        """Return the distribution without any width, to calibrate with."""
        return cls(
            np.zeros((gz2.N_QUESTIONS, 3), np.float32),
            np.zeros((gz2.N_QUESTIONS, *GROUPS, len(GRID)), np.float32),
            conditional,
        )

    def as_json(self) -> dict[str, Any]:
        """Return nested lists of rounded numbers."""
        return {
            "scale": np.round(self.scale.astype(np.float64), 6).tolist(),
            "quantiles": np.round(self.quantiles.astype(np.float64), 5).tolist(),
        }

    def at(self, prob: Float, std: Float, levels: Sequence[float]) -> Float:
        """Return the quantiles of the vote fractions.

        Args:
            prob: float32 `[N, 37]`, predicted cumulative fractions.
            std: float32 `[N, 37]`, their spreads; NaN counts as none.
            levels: L probabilities.

        Returns:
            float32 `[L, N, 37]` in [0, 1], not decreasing along L.
        """
        expected = self.expected(prob)
        widths = residual_scale(self.scale, prob, std, conditional=self.conditional)
        table = _interpolated(self.quantiles, levels)
        reach = table[QUESTION_OF[None, :], share_groups(prob), fraction_groups(expected)]
        values = expected[None] + widths[None] * np.moveaxis(reach, -1, 0)
        return np.asarray(np.clip(values, 0, 1), np.float32)

    def expected(self, prob: Float) -> Float:
        """Return the predicted fractions, `[N, 37]`: `prob`, or the conditional fractions that it implies."""
        return np.asarray(gz2.conditional(prob), np.float32) if self.conditional else prob

    def interval(self, prob: Float, std: Float, level: float) -> tuple[Float, Float]:
        """Return the central interval, `[N, 37]` each end, widened to hold the predicted fraction."""
        low, high = self.at(prob, std, [(1 - level) / 2, (1 + level) / 2])
        expected = self.expected(prob)
        return np.minimum(low, expected), np.maximum(high, expected)


def share_groups(prob: Float) -> Groups:
    """Return the group of each galaxy and answer, `[N, 37]`: how many of `EDGES` its share asked exceeds."""
    return np.searchsorted(np.array(EDGES, np.float32), gz2.parents(prob), side="right")


def fraction_groups(expected: Float) -> Groups:
    """Return how many of `FRACTION_EDGES` each predicted fraction exceeds, `[N, 37]`."""
    return np.searchsorted(np.array(FRACTION_EDGES, np.float32), expected, side="right")


def variance_terms(prob: Float, std: Float, *, conditional: bool = False) -> Float:
    """Return what the variance of a residual is made of, float32 `[3, N, 37]`.

    Terms are 1, the scatter of one vote and the squared spread. A conditional fraction is of few votes where
    few volunteers are asked, and its spread is that of a quotient.

    Args:
        prob: float32 `[N, 37]`, predicted cumulative fractions.
        std: float32 `[N, 37]`, their spreads; NaN counts as none.
        conditional: Whether the residuals are those of conditional fractions.
    """
    fraction, spread = prob, np.square(np.nan_to_num(std))
    share: Float | float = 1.0
    if conditional:
        fraction = np.asarray(gz2.conditional(prob), np.float32)
        share = np.maximum(gz2.parents(prob), np.float32(LEAST_SHARE))
        above = np.where(_ROOT, np.float32(0), gz2.parents(spread))
        # As if the share and the conditional fraction, whose product `prob` is, erred independently.
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
        prob: Predictions of N galaxies that trained nothing, cumulative `[N, 37]`.
        std: Their spreads, or NaN.
        truth: Their fractions, NaN where unknown.
        conditional: Whether `truth` is of the volunteers who were asked; NaN also where nobody was.
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
    """Non-negative least squares of the squared residuals, relative to what they are expected to be.

    Args:
        terms: Those of a question's answers, `[3, N, A]`.
        residuals: `[N, A]`, NaN where unknown.
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
        scores: `[N, A]`, NaN where unknown.
        weights: Of the scores, `[N, A]`.
        shares: Their groups by share asked, `[N, A]`.
        fractions: Their groups by predicted fraction, `[N, A]`.
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
    """Yield a group's members, then those of more groups around it: of other shares, then of fractions."""
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
    NeurIPS). A tail that the scores are too few for reaches to the most extreme of them; without any score,
    tails reach to every fraction.
    """
    if not len(scores):
        return np.asarray(np.sign(np.array(GRID) - 0.5) / FLOOR, np.float32)
    order = np.argsort(scores, kind="stable")
    heavy = np.ones(len(scores)) if weights is None else weights[order]
    below = np.cumsum(heavy) / (heavy.sum() + heavy.max())
    grid, last = np.array(GRID), len(scores) - 1
    # Rounding must not move a rank.
    low = np.searchsorted(below, grid + 1e-9, side="right") - 1
    high = np.searchsorted(below, grid - 1e-9, side="left")
    ranks = np.clip(np.where(grid < 0.5, low, high), 0, last)
    return np.asarray(scores[order][ranks], np.float32)


def _interpolated(quantiles: Float, levels: Sequence[float]) -> Float:
    """Quantiles `[11, G, F, L]` at other probabilities."""
    grid = np.array(GRID)
    flat = quantiles.reshape(-1, len(GRID))
    rows = [np.interp(levels, grid, row) for row in flat]
    return np.asarray(rows, np.float32).reshape(*quantiles.shape[:-1], len(levels))
