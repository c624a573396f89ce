"""How posterior draws share passes through the convolutions, and what follows for their mean and variance.

A draw is a sample of all weights. Its convolutions cost 2,000 times as much as its dense head, so several
draws share the weights of one pass and have heads of their own. NumPy only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.models import DEFAULT_DRAWS, DEFAULT_PASSES

PASS_SET = 8
"""Passes of a set: together they see all 8 orientations of the square, as 4 antithetic pairs."""

_HALF = PASS_SET // 2


@dataclass(frozen=True, slots=True)
class Nesting:
    """Which pass and head make each of S draws.

    Passes come in sets of 8. Within a set, draw k has the pass `k mod 8` and the head `k // 8`, so that the
    first draws are the same however many follow. Passes p and p + 4 are antithetic (their noises add up to
    zero: Hammersley & Morton 1956), and so are the heads 2 h and 2 h + 1 of a pass.

    Attributes:
        draws: S.
        heads: Draws that share a pass, H.
    """

    draws: int
    heads: int

    @classmethod
    def of(cls, draws: int, passes: int) -> "Nesting":
        """Share draws among passes, or among as many of them as there are draws."""
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
        """Return the pair of antithetic passes of each draw, `[S]`: pairs are independent of one another."""
        passes = [self.place(draw)[0] for draw in range(self.draws)]
        return np.array([number // PASS_SET * _HALF + number % _HALF for number in passes])


DEFAULT = Nesting.of(DEFAULT_DRAWS, DEFAULT_PASSES)


def stages(draws: int) -> list[range]:
    """Draws to make one after the other until there are enough: whole sets, each time as many as before.

    The first stage has two sets, since one tells its error by four pairs alone.
    """
    ends = [2 * DEFAULT.draws]
    while ends[-1] < draws:
        ends.append(min(2 * ends[-1], draws))
    return [range(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]


def mean_variance(values: npt.NDArray[Any], blocks: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Variance of the mean of draws: the scatter of the means of independent blocks.

    A pair of antithetic passes with all their heads is one independent sample of the mean (Owen 2013, "Monte
    Carlo theory, methods and examples", section 8.2). The pairs of a set see different orientations, which
    are strata (ibid., section 8.4): of two or more whole sets, the scatter of the pairs that see the same
    ones counts. Of one set, the difference between orientations counts too, although its mean is free of it:
    the variance is then too large rather than too small. Fractions of many galaxies do not depend on the
    orientation.

    Args:
        values: `[S, ...]`, one for each draw.
        blocks: `[S]`, see `Nesting.blocks`; two or more different ones.

    Returns:
        `[...]`.
    """
    names = np.unique(blocks)
    means = np.stack([values[blocks == name].mean(axis=0) for name in names])
    if len(names) > _HALF and not len(names) % _HALF:
        strata = means.reshape(-1, _HALF, *means.shape[1:])
        return np.asarray(strata.var(axis=0, ddof=1).mean(axis=0) / len(names))
    return np.asarray(means.var(axis=0, ddof=1) / len(names))


def variance(values: npt.NDArray[Any], blocks: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Unbiased variance of one draw: the mean square around the mean, and the variance of that mean.

    `E (x - m)**2 = E x**2 - E m**2` holds however the draws that have the mean m depend on one another.
    Independent draws, each of which is a block, have the usual sample variance.

    Args:
        values: `[S, ...]`, one for each draw.
        blocks: `[S]`, see `Nesting.blocks`; two or more different ones.

    Returns:
        `[...]`.
    """
    return np.asarray(values.var(axis=0) + mean_variance(values, blocks))


def freedom(values: npt.NDArray[Any], nesting: Nesting) -> npt.NDArray[Any]:
    """Degrees of freedom of `variance`, by Satterthwaite's approximation (1946, Biometrics Bulletin 2, 110).

    The variance is the sum of that between passes and of that within a pass. An antithetic pair has one
    degree of freedom, since its members deviate from the mean by opposite amounts.

    Args:
        values: `[S, ...]`, one for each draw.
        nesting: Of these draws.

    Returns:
        `[...]`, at least 1; infinite where the draws agree.
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
    """Degrees of freedom of members that come in antithetic pairs, or all alone."""
    return max(members - pairs if members > pairs else pairs - 1, 1)
