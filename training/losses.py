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
# Odds of the clear classes go with this power of the fractions along their paths.
SHARPNESS = 1.0
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


def fact_loss(logits: Any, classes: Any, sharpness: float = SHARPNESS) -> Any:
    """Negative log likelihood of each galaxy's clear class, in nats.

    Given that a galaxy is one of the five, the class is taken to be a draw with odds in proportion to
    the fractions along the classes' paths, to the power of `sharpness`. The galaxies were selected for
    being clear, so only which class it is tells something; and the thresholds are on the challenge's
    fractions, which differ from those of Hart et al. 2016 that the networks predict, so that the plain
    probability of passing them pulls the fractions away from the votes: in a short trial on one fold
    (which also showed more sky at low resolution) the votes' RMSE was 0.134 with each class as likely
    as its threshold was to be passed, and 0.103 with these odds.

    Args:
        logits: `[N, 37]` float32.
        classes: `[N]` integers, index into `gax_batch.labels.CLEAR_CLASSES`.
        sharpness: see above.

    Returns:
        `[N]` float32.
    """
    fraction = tf.gather(cumulative_probabilities(logits), CLASS_COLUMNS, axis=1)
    scores = sharpness * tf.math.log(fraction + 1e-4)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(classes, tf.int32), scores)


def kl_weight(step: Any, warm_up_steps: int, examples: int, temperature: float) -> Any:
    """The divergence's share in one example's loss: it grows linearly to `temperature / examples`.

    Below a temperature of 1 the posterior is a cold one (Wenzel et al. 2020, ICML): the evidence
    bound's balance between 446,000 weights and a few hundred galaxies would leave only the prior.
    """
    growth = tf.minimum(1.0, tf.cast(step, tf.float32) / max(1, warm_up_steps))
    return growth * temperature / examples
