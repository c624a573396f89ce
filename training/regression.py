"""Fit the CNN-SVR's 37 support vector regressions on limited numbers of galaxies.

Features of the galaxies on which the trunk was trained fit their labels better than those of others.
Hyperparameters are therefore chosen on galaxies that were not used for training.
"""

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVR

from gax_batch import gz2
from gax_batch.models import svr
from gax_batch.models.uncertainty import regression_to_fractions
from gax_batch.system.cpus import logical_cpus

Float = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]
BATCH = 16
# The kernel width in units of 1 / 256, the inverse of the mean squared distance to the mean.
GAMMAS = (0.06, 0.125, 0.25)
COSTS = (0.3, 1.0, 3.0)
TUBES = (0.03, 0.06)
# Maximum number of galaxies, and so of support vectors. The time and memory of a fit grow with its square.
MOST_GALAXIES = 4000
SEARCH_GALAXIES = 1600
# Pairs of complementary halves from which the regressions' own error is estimated.
PAIRS = 8
SMALLEST_SHARE = 1e-3


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Hyperparameters of an epsilon-SVR with an RBF kernel."""

    gamma: float
    cost: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class Regression:
    """The fitted regression of one answer: `kernel(x, rows) @ dual + intercept`."""

    rows: Rows
    dual: npt.NDArray[np.float64]
    intercept: float


def features(arrays: dict[str, Float], images: npt.NDArray[np.uint8], dtype: Any = tf.float32) -> Float:
    """Return pooled features `[N, 256]` of cutouts, as the engine computes them."""
    network = svr.Features(arrays, dtype)
    run = tf.function(lambda x: network(tf.cast(tf.cast(x, tf.float32) / 255.0, dtype)))
    padded = np.concatenate([images, np.zeros((-len(images) % BATCH, *images.shape[1:]), np.uint8)])
    parts = [run(padded[i : i + BATCH]).numpy() for i in range(0, len(padded), BATCH)]
    return np.concatenate(parts)[: len(images)]


def complete(cumulative: Float, teacher: Float) -> Float:
    """Return cumulative fractions `[N, 37]`, each question's from the labels or else from the teacher.

    Args:
        cumulative: Fractions of the labels, float32 `[N, 37]`; NaN if unknown.
        teacher: Fractions of the teacher, float32 `[N, 37]`.
    """
    known, filled = np.isfinite(cumulative), gz2.conditional(teacher)
    labels = gz2.conditional(np.nan_to_num(cumulative))
    for question in gz2.QUESTIONS:
        # Labels do not have conditional fractions where no volunteer was asked.
        sums = np.nansum(cumulative[:, question.columns], axis=1)
        rows = known[:, question.columns].all(axis=1) & (sums > 0)
        filled[rows, question.columns] = labels[rows, question.columns]
    return np.asarray(gz2.cumulative(filled), np.float32)


def choose_rows(representative: npt.NDArray[np.bool_], most: int = MOST_GALAXIES) -> Rows:
    """Return the galaxies to fit: first those of the representative sample, then others, evenly spaced."""
    first, others = np.flatnonzero(representative), np.flatnonzero(~representative)
    room = max(0, most - len(first))
    picked = others[np.unique(np.linspace(0, len(others) - 1, min(room, len(others))).astype(np.intp))]
    return np.sort(np.concatenate([first[:most], picked]))


def fit(
    inputs: Float, fractions: Float, held_out: tuple[Float, Float], say: Callable[[str], None] = print
) -> tuple[dict[str, Float], dict[str, float]]:
    """Standardize, choose hyperparameters on held-out galaxies, fit all answers, and estimate their error.

    Args:
        inputs: Features of the training galaxies, float32 `[N, 256]`.
        fractions: Their cumulative fractions, float32 `[N, 37]`.
        held_out: Features and cumulative fractions (NaN if unknown) of galaxies not used for training.
        say: Called with lines of progress.

    Returns:
        The arrays of `gax_batch.models.svr.Regressions`, and a record of the choice.
    """
    mean, deviation = inputs.mean(axis=0), floor_deviation(inputs.std(axis=0))
    points, others = ((x - mean) / deviation for x in (inputs, held_out[0]))
    choice, error = _search(points, fractions, others, held_out[1])
    say(f"regressions: {choice}, RMSE {error:.4f} on held-out galaxies")
    kernel = rbf_kernel(points, gamma=choice.gamma)
    whole = _fit_all(kernel, fractions, choice, [np.arange(len(points))])[0]
    halves = _halves(len(points))
    pairs = _fit_all(kernel, fractions, choice, [half for pair in halves for half in pair])
    dual, intercept = _gather(whole, len(points))
    # Half the difference of the fits of two independent halves scatters as the fit of the whole does.
    deviations = [
        [(a - b) / 2 for a, b in zip(_gather(first, len(points)), _gather(second, len(points)), strict=True)]
        for first, second in zip(pairs[::2], pairs[1::2], strict=True)
    ]
    used = (dual != 0).any(axis=1) | np.any([d[0] != 0 for d in deviations], axis=(0, 2))
    arrays = {
        "svr/mean": mean,
        "svr/deviation": deviation,
        "svr/support": points[used],
        "svr/dual": dual[used],
        "svr/intercept": intercept,
        "svr/gamma": np.array([choice.gamma]),
        "svr/half_dual": np.stack([d[0][used] for d in deviations]),
        "svr/half_intercept": np.stack([d[1] for d in deviations]),
    }
    record = {
        "gamma": choice.gamma,
        "C": choice.cost,
        "epsilon": choice.epsilon,
        "held_out_rmse": error,
        "support_vectors": float(used.sum()),
    }
    return {name: np.asarray(values, np.float32) for name, values in arrays.items()}, record


def floor_deviation(deviation: Float) -> Float:
    """Return deviations `[256]` bounded below: a constant feature must not amplify rounding errors."""
    middle = np.median(deviation)
    return np.where(deviation < SMALLEST_SHARE * middle, middle, deviation).astype(np.float32)


def _halves(count: int) -> list[tuple[Rows, Rows]]:
    """Return random complementary halves of `count` galaxies."""
    pairs = []
    for number in range(PAIRS):
        order = np.random.default_rng([number, count]).permutation(count)
        pairs.append((np.sort(order[: count // 2]), np.sort(order[count // 2 :])))
    return pairs


def _gather(
    regressions: list[Regression], count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return dual coefficients `[count, 37]` and intercepts `[37]`."""
    dual = np.zeros((count, len(regressions)))
    for answer, regression in enumerate(regressions):
        dual[regression.rows, answer] = regression.dual
    return dual, np.array([r.intercept for r in regressions])


def _fit_all(
    kernel: npt.NDArray[np.float64], fractions: Float, choice: Hyperparameters, subsets: Iterable[Rows]
) -> list[list[Regression]]:
    """Return the regressions of all answers on each subset of the galaxies."""
    results = []
    # LIBSVM releases Python's lock.
    with ThreadPoolExecutor(logical_cpus()) as pool:
        for rows in subsets:
            part = kernel[np.ix_(rows, rows)]
            columns = fractions[rows].astype(np.float64).T
            results.append(list(pool.map(partial(_fit_one, part, choice, rows), columns)))
    return results


def _fit_one(
    kernel: npt.NDArray[np.float64], choice: Hyperparameters, rows: Rows, values: npt.NDArray[np.float64]
) -> Regression:
    model = SVR(kernel="precomputed", C=choice.cost, epsilon=choice.epsilon, cache_size=500)
    model.fit(kernel, values)
    return Regression(rows[model.support_], model.dual_coef_[0], float(model.intercept_[0]))


def _search(points: Float, fractions: Float, others: Float, truth: Float) -> tuple[Hyperparameters, float]:
    few = choose_rows(np.zeros(len(points), bool), SEARCH_GALAXIES)
    scores: dict[Hyperparameters, float] = {}
    for gamma in GAMMAS:
        width = gamma / points.shape[1]
        kernel, across = (rbf_kernel(x, points[few], gamma=width) for x in (points[few], others))
        for cost, epsilon in itertools.product(COSTS, TUBES):
            choice = Hyperparameters(width, cost, epsilon)
            dual, intercept = _gather(
                _fit_all(kernel, fractions[few], choice, [np.arange(len(few))])[0], len(few)
            )
            predicted = regression_to_fractions((across @ dual + intercept).astype(np.float32))
            scores[choice] = float(np.sqrt(np.nanmean(np.square(predicted - truth, dtype=np.float64))))
    best = min(scores, key=lambda choice: scores[choice])
    return best, scores[best]
