"""Held-out numbers: what the model card says of galaxies that neither trained nor calibrated anything."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gax_batch import tree
from gax_batch.uncertainty import Summary
from training.data import Galaxies
from training.losses import negative_log_likelihood

Float = npt.NDArray[np.float32]


def rmse(predicted: Float, truth: Float) -> float:
    """Root of the mean squared error over galaxies and all 37 cumulative fractions."""
    return float(np.sqrt(np.mean(np.square(predicted - truth, dtype=np.float64))))


def votes_nll(predicted: Float, galaxies: Galaxies) -> float:
    """Mean negative log likelihood of a galaxy's votes, nats (see `training.losses`)."""
    logits = np.log(np.maximum(tree.conditional(predicted), 1e-6)).astype(np.float32)
    return float(tf.reduce_mean(negative_log_likelihood(logits, galaxies.fractions, galaxies.reached)))


def vote_noise(galaxies: Galaxies) -> float:
    """The RMSE that the finite number of votes alone gives to a perfect prediction."""
    truth = galaxies.cumulative
    return math.sqrt(float(np.mean(truth * (1 - truth) / galaxies.reached[:, :1])))


def point_metrics(galaxies: Galaxies, predictions: Mapping[str, Float]) -> dict[str, dict[str, float]]:
    """RMSE and votes' likelihood of each prediction."""
    return {
        name: {
            "rmse": round(rmse(predicted, galaxies.cumulative), 4),
            "votes_nll": round(votes_nll(predicted, galaxies), 2),
        }
        for name, predicted in predictions.items()
    }


def interval_metrics(galaxies: Galaxies, summary: Summary) -> dict[str, float]:
    """How often the 90 % intervals hold the vote fraction, over answers and for the worst one."""
    truth = galaxies.cumulative
    # Fractions and interval ends that are equal in decimals may differ in the last binary place.
    inside = (truth >= summary.lo - 1e-6) & (truth <= summary.hi + 1e-6)
    by_answer = inside.mean(axis=0)
    return {
        "coverage": round(float(inside.mean()), 4),
        "coverage_worst_answer": round(float(by_answer.min()), 4),
        "coverage_best_answer": round(float(by_answer.max()), 4),
        "mean_width": round(float(np.mean(summary.hi - summary.lo)), 4),
    }


def epistemic_metrics(galaxies: Galaxies, draws: Float) -> dict[str, Any]:
    """How often the 5th to 95th percentile of the draws alone would hold the vote fraction."""
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    truth = galaxies.cumulative
    return {
        "coverage_of_draws_alone": round(float(np.mean((truth >= low) & (truth <= high))), 4),
        "mean_std": round(float(draws.std(axis=0).mean()), 4),
    }
