"""The likelihood of every kind of label, as a function of the 37 predicted fractions.

A label is information about a galaxy's true fractions, which scatter by `SCATTER` about the predicted ones:

- published fractions are those values themselves (all 37 or some of them);
- a class means that some of them exceed thresholds, "none of the five" that for each class one does not;
- the largest of five answers means that its fraction exceeds the other four.

Fractions therefore have a Gaussian density, and the other labels are probabilities under the same Gaussian
(Tobin 1958, Econometrica 26, 24). Fractions are also votes: a Dirichlet-multinomial for each question of the
tree, which lets the true fraction scatter around the network's probability (Walmsley et al. 2020, MNRAS 491,
1554). All values are in nats for each galaxy.
"""

import math
from typing import Any

import tensorflow as tf

from gax_batch.analysis.labels import CLASS_CONDITIONS, LARGEST_COLUMNS, NO_CLASS, STRICT_SPIRAL
from gax_batch.gz2 import QUESTION_OF
from gax_batch.models.layers import conditional_probabilities

# Sum of a question's Dirichlet parameters: fractions scatter by sqrt(p (1 - p) / 31), about 0.09 at most.
CONCENTRATION = 30.0
# Scatter of cumulative fractions around a good prediction.
SCATTER = 0.1
# Scale of the Gumbel noise of the five fractions of which the largest is known. The difference of two such
# noises has the standard deviation of the difference of two fractions that scatter by `SCATTER`.
LARGEST_SCALE = SCATTER * math.sqrt(6.0) / math.pi
# Relaxed spirals were selected with another threshold on the share of spirals among all volunteers.
_SPIRAL, _SPIRAL_COLUMN = 4, 7
_SMALLEST = 1e-6


def negative_log_likelihood(
    logits: Any, fractions: Any, reached: Any, concentration: float = CONCENTRATION
) -> Any:
    """Return the negative log probability of each galaxy's votes, without the multinomial coefficient.

    The coefficient depends only on the votes, so omitting it does not change gradients. Votes are weighted,
    and need not be integers.

    Args:
        logits: Logits, float32 `[N, 37]`.
        fractions: Conditional vote fractions, float32 `[N, 37]`.
        reached: Number of votes that reached each question, float32 `[N, 11]`. Questions without votes add
            zero.
        concentration: Sum of the Dirichlet parameters, or infinity for a multinomial.

    Returns:
        float32 `[N]`, nats.
    """
    probability = tf.maximum(conditional_probabilities(logits), _SMALLEST)
    counts = fractions * tf.gather(reached, QUESTION_OF, axis=1)
    if math.isinf(concentration):
        return -tf.reduce_sum(counts * tf.math.log(probability), axis=1)
    alpha = concentration * probability
    answers = tf.math.lgamma(alpha + counts) - tf.math.lgamma(alpha)
    questions = tf.math.lgamma(concentration + reached) - tf.math.lgamma(concentration)
    return tf.reduce_sum(questions, axis=1) - tf.reduce_sum(answers, axis=1)


def fraction_error(cumulative: Any, truth: Any, weight: Any) -> Any:
    """Return the negative log density of published fractions, without its constant.

    Args:
        cumulative: Predicted fractions, float32 `[N, 37]`.
        truth: Published fractions, float32 `[N, 37]`; any finite number if unknown.
        weight: float32 `[N, 37]`, 0 if unknown, less than 1 for less accurate fractions.

    Returns:
        float32 `[N]`, nats.
    """
    return tf.reduce_sum(weight * tf.square(truth - cumulative), axis=1) / (2 * SCATTER**2)


def class_error(cumulative: Any, classes: Any, strict: Any) -> Any:
    """Return the negative log probability of each galaxy's known class.

    The conditions of one class are on one path through the tree, and one noise moves all of its fractions.
    The probability of the class is therefore that of its weakest condition. The noises of different classes
    are assumed independent: the probability of "none of the five" is the product of the probabilities that
    each of them does not apply.

    Args:
        cumulative: Predicted fractions, float32 `[N, 37]`.
        classes: Index into `gax_batch.analysis.labels.CLEAR_CLASSES`, `NO_CLASS`, or -1 for unknown, int
            `[N]`.
        strict: Whether a spiral is known to pass the stricter threshold, bool `[N]`.

    Returns:
        float32 `[N]`, nats; 0 if the class is unknown.
    """
    holds = tf.stack([_log_class(cumulative, index, strict) for index in range(NO_CLASS)], axis=1)
    own = tf.gather(holds, tf.clip_by_value(classes, 0, NO_CLASS - 1), batch_dims=1)
    none = tf.reduce_sum(tf.math.log(tf.maximum(1 - tf.exp(holds), _SMALLEST)), axis=1)
    known = tf.where(classes == NO_CLASS, none, own)
    return tf.where(classes < 0, tf.zeros_like(known), -known)


def _log_class(cumulative: Any, index: int, strict: Any) -> Any:
    margins = []
    for column, threshold in CLASS_CONDITIONS[index]:
        limit: Any = threshold
        if (index, column) == (_SPIRAL, _SPIRAL_COLUMN):
            limit = tf.where(strict, STRICT_SPIRAL, threshold)
        margins.append((cumulative[:, column] - limit) / SCATTER)
    return log_normal_probability(tf.reduce_min(tf.stack(margins), axis=0))


def log_normal_probability(values: Any) -> Any:
    """Return the logarithm of the standard normal distribution function, extended linearly below -10."""
    inner = tf.maximum(values, -10.0)
    inside = tf.math.log(0.5 * tf.math.erfc(-inner / math.sqrt(2.0)))
    # The slope at -10, so that a very wrong prediction still has a gradient.
    return inside + 10.0981 * (tf.minimum(values, -10.0) + 10.0)


def largest_error(cumulative: Any, largest: Any) -> Any:
    """Return the negative log probability that the known one of five fractions is the largest.

    The five predicted fractions have Gumbel noise: a multinomial logit (McFadden 1974, in Frontiers in
    Econometrics).

    Args:
        cumulative: Predicted fractions, float32 `[N, 37]`.
        largest: Index into `gax_batch.analysis.labels.LARGEST_COLUMNS`, or -1 for unknown, int `[N]`.

    Returns:
        float32 `[N]`, nats; 0 if it is unknown.
    """
    five = tf.gather(cumulative, LARGEST_COLUMNS, axis=1) / LARGEST_SCALE
    error = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(largest, 0), five)
    return tf.where(largest < 0, tf.zeros_like(error), error)


def kl_weight(step: Any, warm_up_steps: int, examples: int, temperature: float) -> Any:
    """Return the weight of the divergence in one example's loss, growing to `temperature / examples`.

    It grows linearly over the warm-up. A temperature below 1 gives a cold posterior (Wenzel et al. 2020,
    ICML).
    """
    growth = tf.minimum(1.0, tf.cast(step, tf.float32) / max(1, warm_up_steps))
    return growth * temperature / examples
