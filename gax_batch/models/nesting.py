"""Assign posterior draws to passes through the convolutions, and estimate the variance of their mean.

A draw is a sample of all weights. Its convolutions cost 2,000 times as much as its dense head. Therefore
several draws share the convolution weights of one pass, and each has its own head. Only NumPy is used.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.models import DEFAULT_DRAWS, DEFAULT_PASSES

PASS_SET = 8
"""Number of passes in a set: one for each of the 8 orientations of the square, in 4 antithetic pairs."""

_HALF = PASS_SET // 2


@dataclass(frozen=True, slots=True)
class Nesting:
    """The assignment of S draws to passes and heads.

    Passes are grouped in sets of 8. Within a set, draw k has the pass `k mod 8` and the head `k // 8`. Thus
    the first draws do not depend on the number of draws. Passes p and p + 4 are antithetic: their noises add
    up to zero (Hammersley & Morton 1956). So are the heads 2 h and 2 h + 1 of a pass.

    Attributes:
        draws: Number of draws, S.
        heads: Number of draws that share a pass, H.
    """

    draws: int
    heads: int

    @classmethod
    def of(cls, draws: int, passes: int) -> "Nesting":
        """Distribute draws over passes, or over one pass per draw if there are fewer draws."""
        return cls(draws, -(-draws // passes))

    @property
    def passes(self) -> int:
        """Number of passes."""
        whole, rest = divmod(self.draws, PASS_SET * self.heads)
        return whole * PASS_SET + min(rest, PASS_SET)

    def place(self, draw: int) -> tuple[int, int]:
        """Return the pass of a draw, and its head among those of the pass."""
        whole, rest = divmod(draw, PASS_SET * self.heads)
        return whole * PASS_SET + rest % PASS_SET, rest // PASS_SET

    def blocks(self) -> npt.NDArray[np.int64]:
        """Return the pair of antithetic passes of each draw, int64 `[S]`. Different pairs are independent."""
        passes = [self.place(draw)[0] for draw in range(self.draws)]
        return np.array([number // PASS_SET * _HALF + number % _HALF for number in passes])


DEFAULT = Nesting.of(DEFAULT_DRAWS, DEFAULT_PASSES)


def allows_stages(draws: int) -> bool:
    """Return whether a maximum number of draws consists of whole stages, see `stages`."""
    return draws % DEFAULT.draws == 0 and draws >= 2 * DEFAULT.draws


def stages(draws: int) -> list[range]:
    """Return the draws of each stage of adaptive sampling.

    Stages are whole sets, and each stage doubles the number of draws. The first stage has two sets, because
    the four pairs of one set are too few to estimate its error.

    Args:
        draws: Maximum number of draws, see `allows_stages`.
    """
    ends = [2 * DEFAULT.draws]
    while ends[-1] < draws:
        ends.append(min(2 * ends[-1], draws))
    return [range(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]


def mean_variance(values: npt.NDArray[Any], blocks: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the variance of the mean of draws, from the scatter of the means of independent blocks.

    A pair of antithetic passes with all their heads is one independent sample of the mean (Owen 2013, "Monte
    Carlo theory, methods and examples", section 8.2). The pairs of a set have different orientations, which
    are strata (ibid., section 8.4). With two or more whole sets, the variance is computed from pairs of the
    same orientation. With one set, it also contains the difference between orientations, which does not
    affect the mean: the variance is too large rather than too small. Fractions of many galaxies do not depend
    on the orientation.

    Args:
        values: Values of the draws, float `[S, ...]`.
        blocks: Block of each draw, int64 `[S]`, from `Nesting.blocks`. At least two blocks.

    Returns:
        The variance of the mean, float `[...]`.
    """
    names = np.unique(blocks)
    means = np.stack([values[blocks == name].mean(axis=0) for name in names])
    if len(names) > _HALF and not len(names) % _HALF:
        strata = means.reshape(-1, _HALF, *means.shape[1:])
        return np.asarray(strata.var(axis=0, ddof=1).mean(axis=0) / len(names))
    return np.asarray(means.var(axis=0, ddof=1) / len(names))


def variance(values: npt.NDArray[Any], blocks: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the unbiased variance of one draw: mean square around the mean plus variance of the mean.

    `E (x - m)**2 = E x**2 - E m**2` holds for any dependence between the draws with the mean m. For
    independent draws, each of which is a block, the result is the usual sample variance.

    Args:
        values: Values of the draws, float `[S, ...]`.
        blocks: Block of each draw, int64 `[S]`, from `Nesting.blocks`. At least two blocks.

    Returns:
        The variance of one draw, float `[...]`.
    """
    return np.asarray(values.var(axis=0) + mean_variance(values, blocks))


def freedom(values: npt.NDArray[Any], nesting: Nesting) -> npt.NDArray[Any]:
    """Return the degrees of freedom of `variance` (Satterthwaite 1946, Biometrics Bulletin 2, 110).

    The variance is the sum of the variance between passes and the variance within a pass. An antithetic pair
    has one degree of freedom, because its members deviate from the mean by opposite amounts.

    Args:
        values: Values of the draws, float `[S, ...]`.
        nesting: Assignment of these draws to passes and heads.

    Returns:
        The degrees of freedom, float `[...]`, at least 1. Infinite where all draws are equal.
    """
    places = np.array([nesting.place(draw) for draw in range(len(values))])
    passes, pairs = places[:, 0], places[:, 1] // 2
    several = [number for number in np.unique(passes) if len(np.unique(pairs[passes == number])) > 1]
    each = [variance(values[passes == number], pairs[passes == number]) for number in several]
    whole = variance(values, nesting.blocks())
    within = np.minimum(np.mean(each, axis=0), whole) if each else np.zeros_like(whole)
    between_freedom = _pairs_freedom(nesting.passes, len(np.unique(nesting.blocks())))
    heads = len(values), len(np.unique(places[:, 0] * len(values) + pairs))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.square(whole - within) / between_freedom + np.square(within) / _pairs_freedom(*heads)
        return np.asarray(np.where(whole > 0, np.square(whole) / spread, np.inf))


def _pairs_freedom(members: int, pairs: int) -> int:
    """Return the degrees of freedom of members that are all in antithetic pairs, or all independent."""
    return max(members - pairs if members > pairs else pairs - 1, 1)
