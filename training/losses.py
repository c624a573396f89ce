"""The likelihood of Galaxy Zoo votes: a Dirichlet-multinomial for each question of the tree.

A multinomial would take the network's probabilities for exact. The Dirichlet-multinomial lets the
true fraction scatter around them (Walmsley et al. 2020, MNRAS 491, 1554); with its concentration going
to infinity it becomes the multinomial.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from gax_batch.labels import CLASS_COLUMNS
from gax_batch.models.layers import conditional_probabilities, cumulative_probabilities
from gax_batch.tree import N_QUESTIONS, QUESTIONS

# Sum of a question's Dirichlet parameters: fractions scatter by sqrt(p (1 - p) / 31), about 0.09 at most.
CONCENTRATION = 30.0
# The inverse scale of the noise between the two catalogs' fractions.
SHARPNESS = 10.0
# Scatter of cumulative fractions around a good prediction.
SCATTER = 0.08
_QUESTION_OF = np.repeat(np.arange(N_QUESTIONS), [len(q.answers) for q in QUESTIONS])


def negative_log_likelihood(
    logits: Any, fractions: Any, reached: Any, concentration: float = CONCENTRATION
) -> Any:
    """Negative log probability of each galaxy's votes, in nats, without the multinomial coefficient.

    The coefficient depends on the votes alone; leaving it out changes no gradient. Votes are weighted
    and so need not be whole numbers.

    Args:
        logits: `[N, 37]` float32.
        fractions: `[N, 37]` conditional vote fractions.
        reached: `[N, 11]` votes that reached each question; questions nobody reached add nothing.
        concentration: sum of the Dirichlet parameters, or infinity for a multinomial.

    Returns:
        `[N]` float32.
    """
    probability = tf.maximum(conditional_probabilities(logits), 1e-6)
    counts = fractions * tf.gather(reached, _QUESTION_OF, axis=1)
    if math.isinf(concentration):
        return -tf.reduce_sum(counts * tf.math.log(probability), axis=1)
    alpha = concentration * probability
    answers = tf.math.lgamma(alpha + counts) - tf.math.lgamma(alpha)
    questions = tf.math.lgamma(concentration + reached) - tf.math.lgamma(concentration)
    return tf.reduce_sum(questions, axis=1) - tf.reduce_sum(answers, axis=1)


def fraction_error(logits: Any, cumulative: Any) -> Any:
    """Half the squared error of each galaxy's cumulative fractions, in units of `SCATTER`.

    It is the negative log likelihood of a Gaussian scatter, up to a constant; its root mean is what the
    Galaxy Zoo challenge was judged by.

    Args:
        logits: `[N, 37]` float32.
        cumulative: `[N, 37]` cumulative vote fractions.

    Returns:
        `[N]` float32.
    """
    errors = tf.square(cumulative_probabilities(logits) - cumulative)
    return tf.reduce_sum(errors, axis=1) / (2 * SCATTER**2)


def fact_loss(logits: Any, classes: Any, sharpness: float = SHARPNESS) -> Any:
    """Negative log likelihood of each galaxy's clear class, in nats.

    Given that a galaxy is one of the five, its class is taken to be the one whose fraction is largest in
    the challenge, and that fraction to be the predicted one plus Gumbel noise of scale `1 / sharpness`
    (the multinomial logit of McFadden 1974, in Frontiers in Econometrics). The noise stands for how the
    challenge's fractions differ from those of Hart et al. 2016 that the networks predict. A fact that
    leads clearly is satisfied and pulls no further. Two other likelihoods did worse: the plain
    probability of passing the thresholds pulled the fractions away from the votes (RMSE 0.134 in a short
    trial), and odds in proportion to the fractions themselves went on pulling (86.1 % of the clear
    classes right on a development fold, against 89.0 %).

    Args:
        logits: `[N, 37]` float32.
        classes: `[N]` integers, index into `gax_batch.labels.CLEAR_CLASSES`.
        sharpness: see above.

    Returns:
        `[N]` float32.
    """
    fraction = tf.gather(cumulative_probabilities(logits), CLASS_COLUMNS, axis=1)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(classes, tf.int32), sharpness * fraction)


def kl_weight(step: Any, warm_up_steps: int, examples: int, temperature: float) -> Any:
    """The divergence's share in one example's loss: it grows linearly to `temperature / examples`.

    Below a temperature of 1 the posterior is a cold one (Wenzel et al. 2020, ICML): the evidence
    bound's balance between 446,000 weights and a few hundred galaxies would leave only the prior.
    """
    growth = tf.minimum(1.0, tf.cast(step, tf.float32) / max(1, warm_up_steps))
    return growth * temperature / examples
