"""The likelihood of Galaxy Zoo votes: a Dirichlet-multinomial for each question of the tree.

A multinomial would take the network's probabilities for exact. The Dirichlet-multinomial lets the
true fraction scatter around them (Walmsley et al. 2020, MNRAS 491, 1554); with its concentration going
to infinity it becomes the multinomial.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from gax_batch.models.layers import conditional_probabilities
from gax_batch.tree import N_QUESTIONS, QUESTIONS

# Sum of a question's Dirichlet parameters: fractions scatter by sqrt(p (1 - p) / 31), about 0.09 at most.
CONCENTRATION = 30.0
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


def kl_weight(step: Any, warm_up_steps: int, examples: int, temperature: float) -> Any:
    """The divergence's share in one example's loss: it grows linearly to `temperature / examples`.

    Below a temperature of 1 the posterior is a cold one (Wenzel et al. 2020, ICML): the evidence
    bound's balance between 446,000 weights and a few hundred galaxies would leave only the prior.
    """
    growth = tf.minimum(1.0, tf.cast(step, tf.float32) / max(1, warm_up_steps))
    return growth * temperature / examples
