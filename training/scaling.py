"""Vector scaling of a blend, so that its fractions fit the votes and its classes the facts."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gax_batch import tree
from gax_batch.labels import CLASS_COLUMNS, Labels
from gax_batch.models.layers import cumulative_probabilities
from gax_batch.uncertainty import SMALLEST
from training.minimize import minimize

Float = npt.NDArray[np.float32]
# The votes' squared error in units of this RMSE, the weight of the facts beside it, how decided a class
# is by the odds of its path, and a pull to no change. Chosen on a development fold.
RMSE = 0.08
FACT_WEIGHT = 5.0
SHARPNESS = 3.0
RIDGE = 1.0
ITERATIONS = 100


def fit(prob: Float, labels: Labels) -> tuple[list[float], list[float]]:
    """Powers `[11]` and offsets `[37]` for `gax_batch.uncertainty.recalibrate`.

    Args:
        prob: `[N, 37]` cumulative fractions of galaxies that trained nothing of what predicts them.
        labels: N galaxies, with votes or a class.
    """
    logarithms = tf.constant(np.log(np.maximum(tree.conditional(prob), SMALLEST)), tf.float32)
    voted = np.flatnonzero(labels.voted)
    known = np.flatnonzero((labels.classes >= 0) & ~labels.voted)
    truth = tf.constant(labels.cumulative[voted])
    classes = tf.constant(labels.classes[known].astype(np.int32))

    def loss(parameters: Any) -> Any:
        fractions = scaled(logarithms, parameters)
        errors = tf.square(tf.gather(fractions, voted) - truth)
        total = tf.reduce_mean(tf.reduce_sum(errors, axis=1)) / (2 * RMSE**2)
        if len(known):
            paths = tf.gather(tf.gather(fractions, known), CLASS_COLUMNS, axis=1)
            odds = SHARPNESS * tf.math.log(paths + 1e-4)
            total += FACT_WEIGHT * tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(classes, odds)
            )
        return total + RIDGE * tf.reduce_mean(tf.square(parameters))

    found = minimize(loss, tree.N_QUESTIONS + tree.N_ANSWERS, ITERATIONS)
    powers, offsets = np.exp(found[: tree.N_QUESTIONS]), found[tree.N_QUESTIONS :]
    return [round(float(p), 4) for p in powers], [round(float(o), 4) for o in offsets]


def scaled(logarithms: Any, parameters: Any) -> Any:
    """Cumulative fractions `[N, 37]` under logarithms of the powers and offsets, together `[48]`."""
    sizes = [len(q.answers) for q in tree.QUESTIONS]
    powers = tf.repeat(tf.exp(parameters[: tree.N_QUESTIONS]), sizes)
    return cumulative_probabilities(logarithms * powers + parameters[tree.N_QUESTIONS :])
