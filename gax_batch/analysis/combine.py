"""Fractions of a population and their intervals from sums by draw: Rubin's rules.

Each draw of the networks gives the fractions of the whole population and their sampling error, as each
multiply imputed data set does (Rubin 1987, "Multiple imputation for nonresponse in surveys", section 3.3).
"""

from dataclasses import dataclass

import numpy as np

from gax_batch import gz2
from gax_batch.catalog.sums import EXPECTED, MOST_LIKELY, Doubles
from gax_batch.models.nesting import Nesting, freedom, mean_variance, variance

ALL = "all"
ASKED = "asked"


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over N galaxies by draw, see `gax_batch.catalog.sums`.

    Attributes:
        galaxies: Number N of galaxies.
        expected: Sums of the expected fractions, float64 `[S, 37]`.
        most_likely: Counts of galaxies by most likely answer, float64 `[S, 37]`.
        square: Sums of squared fractions, averaged over draws, float64 `[37]`.
        product: Sums of fractions times those of the parent answers, averaged over draws, float64 `[37]`.
    """

    galaxies: int
    expected: Doubles
    most_likely: Doubles
    square: Doubles
    product: Doubles


@dataclass(frozen=True, slots=True)
class Estimate:
    """37 fractions, their model and sampling standard errors, and intervals. Unknown values are NaN."""

    value: Doubles
    model_std: Doubles
    sampling_std: Doubles
    lo: Doubles
    hi: Doubles


def estimate(moments: Moments, statistic: str, of: str, level: float, nesting: Nesting) -> Estimate:
    """Combine the draws of one group of galaxies.

    With the fraction `Q_k` of draw k of S and its sampling variance `U_k`: the value is `mean(Q_k)`, the
    model variance the sum of the variance of one draw and of that of the mean, the sampling variance
    `mean(U_k)`, the total variance T their sum, and the interval's half-width the root of T times the
    quantile of Student's t with `f (T / model variance)**2` degrees of freedom. Counts of galaxies get
    Wilson's interval, for the effective number of galaxies that has the same T (Lott & Reiter 2020, American
    Statistician 74, 109).

    Rubin's rules assume independent draws: model variance `(1 + 1/S) var(Q_k)` and `f = S - 1`. The draws of
    this package share passes. The two variances and f are those of `gax_batch.models.nesting`, which include
    this case.

    Args:
        moments: Sums of the group.
        statistic: `expected` or `most_likely`.
        of: `all`, or `asked` for the volunteers who are asked: the fraction is then a ratio of two means.
        level: Probability of the interval.
        nesting: Nesting of the S draws.

    Returns:
        The estimate, each array float64 `[37]`.
    """
    from scipy import stats

    sums = moments.expected if statistic == EXPECTED else moments.most_likely
    asked = gz2.parents(sums / moments.galaxies) if of == ASKED else np.ones_like(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(asked > 0, sums / moments.galaxies / asked, np.nan)
        sampling = _sampling_variance(moments, statistic, of, each, asked.mean(axis=0))
        blocks = nesting.blocks()
        model = variance(each, blocks) + mean_variance(each, blocks)
        total = sampling + model
        degrees = np.where(model > 0, freedom(each, nesting) * np.square(total / model), np.inf)
        value, quantile = each.mean(axis=0), np.asarray(stats.t.ppf((1 + level) / 2, degrees))
        if statistic == MOST_LIKELY:
            lo, hi = _wilson(value, total, quantile, moments.galaxies * asked.mean(axis=0))
        else:
            lo, hi = value - quantile * np.sqrt(total), value + quantile * np.sqrt(total)
    return Estimate(value, np.sqrt(model), np.sqrt(sampling), np.clip(lo, 0, 1), np.clip(hi, 0, 1))


def _sampling_variance(moments: Moments, statistic: str, of: str, each: Doubles, asked: Doubles) -> Doubles:
    """Return the mean over draws of a ratio's variance, linearized (Cochran 1977, section 2.11).

    "Sampling techniques": it is the variance between galaxies of `answer - ratio * asked`, divided by N and
    by the squared mean of `asked`. For a mean, `asked` is 1 for every galaxy.
    """
    count = moments.galaxies
    if count < 2:
        return np.full(gz2.N_ANSWERS, np.nan)
    counted = moments.most_likely.mean(axis=0)
    # A value of 0 or 1 equals its square, and its product with that of its parent.
    square = moments.square if statistic == EXPECTED else counted
    if of == ASKED:
        product = moments.product if statistic == EXPECTED else counted
        asked_square = gz2.parents(square / count) * count
    else:
        product = (moments.expected if statistic == EXPECTED else moments.most_likely).mean(axis=0)
        asked_square = np.full_like(square, count)
    value = each.mean(axis=0)
    residual = square - 2 * value * product + np.square(value) * asked_square
    # The residuals are about each draw's own ratio, not about that of all draws.
    residual -= asked_square * each.var(axis=0)
    variance: Doubles = np.maximum(residual, 0) / (count * (count - 1) * np.square(asked))
    return variance


def _wilson(value: Doubles, total: Doubles, quantile: Doubles, counted: Doubles) -> tuple[Doubles, Doubles]:
    spread = value * (1 - value)
    # Inverse of the effective number of galaxies. If all galaxies and draws agree, it is their real number.
    inverse = np.where(spread > 0, total / spread, 1 / counted)
    bend = np.square(quantile) * inverse
    center = (value + bend / 2) / (1 + bend)
    reach = quantile * np.sqrt(inverse * spread + np.square(quantile * inverse) / 4) / (1 + bend)
    return center - reach, center + reach
