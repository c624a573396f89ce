"""Scores of predictive distributions of vote fractions, which are given by their quantiles. NumPy only.

The continuous ranked probability score and the interval score are those of Gneiting & Raftery 2007 (JASA
102, 359). Vote fractions are often exactly 0, so distributions may have point masses, where several quantiles
are equal; the probability integral transform is then spread evenly over the levels of these quantiles
(Czado, Gneiting & Held 2009, Biometrics 65, 1254).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.analysis.evaluation.metrics import asked, by_answer
from gax_batch.analysis.labels import Labels

Float = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
PIT_BINS = 10
# Two levels belong to one central interval if they are symmetric up to rounding.
_SYMMETRIC = 1e-6


def crps(predictive: npt.NDArray[Any], levels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Values:
    """Return the continuous ranked probability score: twice the mean pinball loss over all levels.

    Each quantile stands for the levels up to halfway to its neighbors, so levels need not be equidistant.

    Args:
        predictive: Quantiles, float `[L, ...]`, non-decreasing along the first axis.
        levels: Increasing levels between 0 and 1, float `[L]`.
        truth: True values, float `[...]`; NaN if unknown.

    Returns:
        float64 `[...]`, in units of the truth; NaN if that is unknown.
    """
    levels = np.asarray(levels, np.float64)
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    total = np.zeros(truth.shape)
    for level, weight, quantile in zip(levels, np.diff(edges), predictive, strict=True):
        excess = truth.astype(np.float64) - quantile
        total += 2 * weight * np.maximum(level * excess, (level - 1) * excess)
    return total


def interval_score(
    lo: npt.NDArray[Any], hi: npt.NDArray[Any], truth: npt.NDArray[Any], level: float
) -> Values:
    """Return Winkler's score of central intervals: the width, and a penalty for each miss. Smaller is better.

    Args:
        lo: Lower ends, float `[...]`.
        hi: Upper ends, float `[...]`.
        truth: True values, float `[...]`; NaN if unknown.
        level: Probability of the intervals.

    Returns:
        float64 `[...]`; NaN if the truth is unknown.
    """
    low, high = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
    miss = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    return np.asarray(high - low + 2 / (1 - level) * miss)


def pit_range(
    predictive: npt.NDArray[Any], levels: npt.NDArray[Any], truth: npt.NDArray[Any]
) -> tuple[Values, Values]:
    """Return the range of levels that the truth has in its predictive distribution.

    Between two quantiles the level is interpolated and the range is one number. At a point mass it contains
    the levels of all equal quantiles. Beyond the outermost quantiles it extends to 0 or 1.

    Args:
        predictive: Quantiles, float `[L, ...]`, non-decreasing along the first axis.
        levels: Increasing levels between 0 and 1, float `[L]`.
        truth: True values, float `[...]`, all known.

    Returns:
        Lower and upper end, float64 `[...]` each.
    """
    count = len(levels)
    padded = np.concatenate([[0.0], np.asarray(levels, np.float64), [1.0]])
    below = (predictive < truth).sum(axis=0)
    upto = (predictive <= truth).sum(axis=0)
    left = np.take_along_axis(predictive, np.clip(below - 1, 0, count - 1)[None], axis=0)[0]
    right = np.take_along_axis(predictive, np.clip(upto, 0, count - 1)[None], axis=0)[0]
    inner = (below == upto) & (below > 0) & (below < count)
    part = (truth - left.astype(np.float64)) / np.where(inner, right - left, 1)
    between = padded[below] + part * (padded[np.minimum(below + 1, count + 1)] - padded[below])
    tied = upto > below
    # The point mass of the lowest quantile begins at level 0, that of the highest one ends at level 1.
    low = np.where(tied & (below > 0), padded[np.minimum(below + 1, count + 1)], padded[below])
    high = np.where(tied & (upto < count), padded[upto], padded[np.minimum(upto + 1, count + 1)])
    return np.where(inner, between, low), np.where(inner, between, high)


def pit_cumulative(low: Values, high: Values, at: npt.ArrayLike) -> Values:
    """Return the mean share of each range `[low, high]` that is at most some levels: `[len(at)]`."""
    width = np.where(high > low, high - low, 1)
    return np.array(
        [np.where(high > low, np.clip((x - low) / width, 0, 1), low <= x).mean() for x in np.asarray(at)]
    )


def distribution_metrics(predictive: Float, levels: npt.NDArray[Any], labels: Labels) -> dict[str, Any]:
    """Evaluate predictive distributions of cumulative fractions.

    Args:
        predictive: Quantiles, float32 `[L, N, 37]`, non-decreasing along the first axis.
        levels: Increasing levels between 0 and 1, float `[L]`.
        labels: Labels of the N galaxies, with at least one known fraction.

    Returns:
        For all known fractions (`all`), for those of the questions that a galaxy was asked (`asked`), and for
        each question among the galaxies that were asked it (`questions`): `fractions` (their number), `crps`,
        `interval_score` by level of each central interval, `pit` (shares of `PIT_BINS` equal bins, which are
        equal for calibrated distributions) and `calibration_error` (mean over the levels of the distance
        between a level and the share of fractions below its quantile).
    """
    truth, known, reached = labels.cumulative, labels.known, by_answer(asked(labels))
    scores = {"crps": crps(predictive, levels, truth)}
    pairs = _central(np.asarray(levels, np.float64))
    winkler = {
        name: interval_score(predictive[i], predictive[j], truth, float(name))
        for name, (i, j) in pairs.items()
    }
    low, high = pit_range(predictive, levels, np.where(known, truth, 0))

    def judge(cells: npt.NDArray[np.bool_]) -> dict[str, Any]:
        if not cells.any():
            return {}
        edges = np.linspace(0, 1, PIT_BINS + 1)
        shares = pit_cumulative(low[cells], high[cells], edges)
        shares[0] = 0
        error = np.abs(pit_cumulative(low[cells], high[cells], levels) - levels).mean()
        return {
            "fractions": int(cells.sum()),
            "crps": round(float(scores["crps"][cells].mean()), 5),
            "interval_score": {name: round(float(v[cells].mean()), 4) for name, v in winkler.items()},
            "pit": [round(float(share), 4) for share in np.diff(shares)],
            "calibration_error": round(float(error), 4),
        }

    result: dict[str, Any] = {"all": judge(known), "asked": judge(reached), "questions": {}}
    for question in gz2.QUESTIONS:
        cells = np.zeros_like(known)
        cells[:, question.columns] = reached[:, question.columns]
        if found := judge(cells):
            result["questions"][question.name] = found
    return result


def quantiles_of_intervals(
    predicted: Float, intervals: Mapping[str, tuple[Float, Float]]
) -> tuple[Float, npt.NDArray[np.float64]]:
    """Return central intervals, and the prediction as the median, as quantiles.

    Args:
        predicted: Predictions, float32 `[N, 37]`, inside all intervals.
        intervals: Lower and upper ends, float32 `[N, 37]`, by level, such as `0.9`. A larger level has a
            wider interval.

    Returns:
        Quantiles, float32 `[L, N, 37]`, and their levels, float64 `[L]`.
    """
    narrow = sorted(intervals, key=float)
    rows = [intervals[name][0] for name in reversed(narrow)] + [predicted] + [intervals[n][1] for n in narrow]
    tails = [(1 - float(name)) / 2 for name in reversed(narrow)]
    levels = np.array([*tails, 0.5, *(1 - tail for tail in reversed(tails))])
    # Rounding can make intervals of separately fitted levels cross.
    return np.maximum.accumulate(np.stack(rows), axis=0), levels


def _central(levels: Values) -> dict[str, tuple[int, int]]:
    """Return the places of the lower and the upper level of each central interval, by its probability."""
    pairs = {}
    for i in range(len(levels) // 2):
        j = len(levels) - 1 - i
        if abs(levels[i] + levels[j] - 1) < _SYMMETRIC:
            pairs[f"{levels[j] - levels[i]:.6g}"] = (i, j)
    return dict(reversed(pairs.items()))
