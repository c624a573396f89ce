"""Fit the CNN-SVR's 37 support vector regressions; hyperparameters by cross-validation."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.model_selection import KFold
from sklearn.svm import SVR

from gax_batch.labels import CLASS_COLUMNS, CLEAR_CLASSES, Labels
from gax_batch.models import layers, svr
from gax_batch.uncertainty import regression_to_fractions

Float = npt.NDArray[np.float32]
FOLDS = 4
BATCH = 16
# The kernel width in units of 1 / 256, the inverse of the mean squared distance to the mean.
GAMMAS = (0.125, 0.25, 0.5)
COSTS = (1.0, 3.0)
# A galaxy of which only the class is known: by how much that class shall lead, and its weight beside one
# with votes; chosen on a development fold, where the votes' RMSE rose by 0.0004 (at a weight of 1: by
# 0.005) and the accuracy on the clear classes by 5 points.
MARGIN = 0.3
FACT_WEIGHT = 0.3
CLEARLY = 0.4
# Every galaxy becomes a support vector, and a fit takes time and memory as their number squared.
MOST_GALAXIES = 6000
SMALLEST_SHARE = 1e-3
TUBES = (0.03,)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Of an epsilon-SVR with an RBF kernel."""

    gamma: float
    cost: float
    epsilon: float


def features(arrays: dict[str, Float], images: npt.NDArray[np.uint8], dtype: Any = tf.bfloat16) -> Float:
    """Pooled features `[N, 256]` of cutouts, as the engine computes them."""
    network = svr.Features(arrays, dtype)
    run = tf.function(lambda x: network(tf.cast(tf.cast(x, tf.float32) / 255.0, dtype)))
    padded = np.concatenate([images, np.zeros((-len(images) % BATCH, *images.shape[1:]), np.uint8)])
    parts = [run(padded[i : i + BATCH]).numpy() for i in range(0, len(padded), BATCH)]
    return np.concatenate(parts)[: len(images)]


def targets(inputs: Float, model: Any, labels: Labels) -> Float:
    """Cumulative fractions for the regressions to learn, `[N, 37]`.

    Where there are votes, they are theirs. Where only the clear class is known, they are the network's
    own, mixed with the mean of the voted galaxies that are clearly of this class just so far that the
    known class leads the other four by `MARGIN`. (Every mixture of consistent fractions is consistent.)
    No vote is invented: they teach what the network already believes, and the fact.

    Args:
        inputs: pooled features `[N, 256]` of the trained network.
        model: that network.
        labels: N galaxies.
    """
    kernel, bias = model.get_layer("logits").get_weights()
    result = layers.cumulative_probabilities(tf.constant(inputs @ kernel + bias)).numpy()
    truth = labels.cumulative[labels.voted]
    paths = truth[:, list(CLASS_COLUMNS)]
    for index in range(len(CLEAR_CLASSES)):
        rows = np.flatnonzero((labels.classes == index) & ~labels.voted)
        clear = truth[(paths.argmax(axis=1) == index) & (paths[:, index] >= CLEARLY)]
        if len(clear) and len(rows):
            result[rows] = _mix(result[rows], clear.mean(axis=0), index)
    result[labels.voted] = truth
    return np.asarray(result, np.float32)


def _mix(own: Float, pure: Float, index: int) -> Float:
    columns = np.array(CLASS_COLUMNS)
    # By how much each class is short of lying a margin below the known one, now and in the pure mean.
    short = own[:, columns] - own[:, columns[index], None] + MARGIN
    pure_short = pure[columns] - pure[columns[index]] + MARGIN
    short[:, index] = 0
    share = (short / np.maximum(short - pure_short, 1e-6)).max(axis=1, initial=0)
    share = np.clip(share, 0, 1)[:, None].astype(np.float32)
    return np.asarray((1 - share) * own + share * pure, np.float32)


def fit(
    inputs: Float, fractions: Float, voted: npt.NDArray[np.bool_] | None = None
) -> tuple[dict[str, Float], dict[str, float]]:
    """Standardize, choose hyperparameters, fit, on at most `MOST_GALAXIES` galaxies.

    Args:
        inputs: features of the training galaxies `[N, 256]`.
        fractions: their cumulative fractions `[N, 37]`.
        voted: which of them have votes, and so choose the hyperparameters; all of them by default.

    Returns:
        The arrays of `gax_batch.models.svr.export_regressions`, and a record of the choice.
    """
    few = np.unique(np.linspace(0, len(inputs) - 1, min(len(inputs), MOST_GALAXIES)).astype(np.intp))
    inputs, fractions = inputs[few], fractions[few]
    mean, deviation = inputs.mean(axis=0), floor_deviation(inputs.std(axis=0))
    standardized = (inputs - mean) / deviation
    chosen = np.ones(len(inputs), bool) if voted is None else voted[few]
    choice, error = _cross_validate(standardized[chosen], fractions[chosen])
    weights = np.where(chosen, 1.0, FACT_WEIGHT)
    regressions = _fit_all(standardized, fractions, choice, weights)
    arrays = svr.export_regressions(regressions, standardized, mean=mean, deviation=deviation)
    record = {
        "gamma": choice.gamma,
        "C": choice.cost,
        "epsilon": choice.epsilon,
        "cv_rmse": error,
        "support_vectors": float(len(arrays["svr/support"])),
    }
    return arrays, record


def floor_deviation(deviation: Float) -> Float:
    """Deviations `[256]`, none of them tiny: a feature that never varies must not magnify rounding errors."""
    middle = np.median(deviation)
    return np.where(deviation < SMALLEST_SHARE * middle, middle, deviation).astype(np.float32)


def _fit_all(
    inputs: Float,
    fractions: Float,
    choice: Hyperparameters,
    weights: npt.NDArray[np.float64] | None = None,
) -> list[Any]:
    options = {"gamma": choice.gamma, "C": choice.cost, "epsilon": choice.epsilon}
    return [SVR(**options).fit(inputs, column, sample_weight=weights) for column in fractions.T]


def _cross_validate(inputs: Float, fractions: Float) -> tuple[Hyperparameters, float]:
    scores: dict[Hyperparameters, float] = {}
    for gamma, cost, epsilon in itertools.product(GAMMAS, COSTS, TUBES):
        choice = Hyperparameters(gamma / inputs.shape[1], cost, epsilon)
        errors = []
        for train, held_out in KFold(FOLDS).split(inputs):
            regressions = _fit_all(inputs[train], fractions[train], choice)
            raw = np.stack([r.predict(inputs[held_out]) for r in regressions], axis=1)
            predicted = regression_to_fractions(raw.astype(np.float32))
            errors.append(float(np.mean((predicted - fractions[held_out]) ** 2)))
        scores[choice] = float(np.sqrt(np.mean(errors)))
    best = min(scores, key=lambda choice: scores[choice])
    return best, scores[best]
