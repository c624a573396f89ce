"""Fit the CNN-SVR's 37 support vector regressions; hyperparameters by cross-validation."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.model_selection import KFold
from sklearn.svm import SVR

from gax_batch.models import svr
from gax_batch.uncertainty import regression_to_fractions

Float = npt.NDArray[np.float32]
FOLDS = 5
BATCH = 16
# The kernel width in units of 1 / 256, the inverse of the mean squared distance to the mean.
GAMMAS = (0.125, 0.25, 0.5)
COSTS = (0.3, 1.0, 3.0)
TUBES = (0.02, 0.05)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Of an epsilon-SVR with an RBF kernel."""

    gamma: float
    cost: float
    epsilon: float


def features(arrays: dict[str, Float], images: npt.NDArray[np.uint8], dtype: Any = tf.bfloat16) -> Float:
    """Pooled features `[N, 256]` of cutouts, as the engine computes them."""
    network = svr.Predictor(arrays, dtype)
    run = tf.function(lambda x: network.features(tf.cast(tf.cast(x, tf.float32) / 255.0, dtype)))
    padded = np.concatenate([images, np.zeros((-len(images) % BATCH, *images.shape[1:]), np.uint8)])
    parts = [run(padded[i : i + BATCH]).numpy() for i in range(0, len(padded), BATCH)]
    return np.concatenate(parts)[: len(images)]


def fit(inputs: Float, fractions: Float) -> tuple[dict[str, Float], dict[str, float]]:
    """Standardize, choose hyperparameters, fit.

    Args:
        inputs: features of the training galaxies `[N, 256]`.
        fractions: their cumulative vote fractions `[N, 37]`.

    Returns:
        The arrays of `gax_batch.models.svr.export_regressions`, and a record of the choice.
    """
    mean, deviation = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), np.float32(1e-6))
    standardized = (inputs - mean) / deviation
    choice, error = _cross_validate(standardized, fractions)
    regressions = _fit_all(standardized, fractions, choice)
    arrays = svr.export_regressions(regressions, standardized, mean=mean, deviation=deviation)
    record = {"gamma": choice.gamma, "C": choice.cost, "epsilon": choice.epsilon, "cv_rmse": error}
    return arrays, record


def _fit_all(inputs: Float, fractions: Float, choice: Hyperparameters) -> list[Any]:
    options = {"gamma": choice.gamma, "C": choice.cost, "epsilon": choice.epsilon}
    return [SVR(**options).fit(inputs, column) for column in fractions.T]


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
