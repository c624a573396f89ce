import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from gax_batch import tree
from training import losses


def labels(count, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (count, tree.N_ANSWERS)).astype(np.float32)
    votes = rng.integers(0, 30, (count, tree.N_ANSWERS)).astype(np.float64)
    reached = np.stack([votes[:, q.columns].sum(axis=1) for q in tree.QUESTIONS], axis=1)
    return logits, votes, tree.conditional(votes).astype(np.float32), reached.astype(np.float32)


def coefficient(counts):
    return special.gammaln(counts.sum() + 1) - special.gammaln(counts + 1).sum()


@pytest.mark.parametrize("concentration", [30.0, math.inf])
def test_the_likelihood_is_scipys(concentration):
    logits, votes, fractions, reached = labels(4)
    computed = losses.negative_log_likelihood(logits, fractions, reached, concentration)
    for row in range(4):
        expected = 0.0
        for question in tree.QUESTIONS:
            counts = votes[row, question.columns].astype(int)
            probability = special.softmax(logits[row, question.columns].astype(np.float64))
            probability /= probability.sum()
            if math.isinf(concentration):
                log = stats.multinomial.logpmf(counts, counts.sum(), probability)
            else:
                log = stats.dirichlet_multinomial.logpmf(counts, concentration * probability, counts.sum())
            expected -= log - coefficient(counts)
        assert float(computed[row]) == pytest.approx(expected, rel=1e-4)


def test_questions_nobody_reached_cost_nothing_and_teach_nothing():
    logits, _, fractions, reached = labels(2)
    reached[:, 7] = 0
    logits = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = losses.negative_log_likelihood(logits, fractions, reached)
    gradient = tape.gradient(loss, logits).numpy()
    assert np.all(gradient[:, tree.QUESTIONS[7].columns] == 0)
    assert np.any(gradient[:, tree.QUESTIONS[0].columns] != 0)


def test_the_multinomial_is_least_at_the_votes_fractions():
    _, _, fractions, reached = labels(3)
    best = np.log(np.maximum(fractions, 1e-6))
    other = best + np.random.default_rng(1).normal(0, 0.3, best.shape).astype(np.float32)
    lowest, higher = (losses.negative_log_likelihood(x, fractions, reached, math.inf) for x in (best, other))
    assert np.all(lowest < higher)


def test_the_divergence_is_warmed_up_to_its_share():
    weights = [float(losses.kl_weight(tf.constant(s), 100, 500, 0.5)) for s in (0, 50, 100, 1000)]
    np.testing.assert_allclose(weights, [0, 0.0005, 0.001, 0.001], rtol=1e-6)


def test_the_squared_error_is_a_gaussians_likelihood():
    logits, _, fractions, _ = labels(3)
    target = tree.cumulative(fractions)
    probability = tree.cumulative(
        np.concatenate([special.softmax(logits[:, q.columns], axis=1) for q in tree.QUESTIONS], 1)
    )
    normal = stats.norm(0, losses.SCATTER)
    expected = (normal.logpdf(0) - normal.logpdf(probability - target)).sum(axis=1)
    np.testing.assert_allclose(losses.fraction_error(logits, target), expected, rtol=1e-4)


def test_a_facts_loss_is_the_chance_that_its_noisy_fraction_is_the_largest():
    logits, *_ = labels(5)
    paths = tree.cumulative(
        np.concatenate([special.softmax(logits[:, q.columns], axis=1) for q in tree.QUESTIONS], 1)
    )
    fraction = paths[:, [15, 16, 17, 3, 7]]
    noise = np.random.default_rng(0).gumbel(0, 1 / 10.0, (200_000, 5))
    classes = np.arange(5)
    for row, computed in enumerate(losses.fact_loss(logits, classes, 10.0).numpy()):
        largest = (fraction[row] + noise).argmax(axis=1) == classes[row]
        # 200,000 draws know a chance of 0.2 to 0.001.
        assert np.exp(-computed) == pytest.approx(largest.mean(), abs=0.005)


def test_a_fact_tells_nothing_of_questions_off_the_paths():
    logits, *_ = labels(2)
    logits = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = losses.fact_loss(logits, np.array([0, 4]))
    gradient = tape.gradient(loss, logits).numpy()
    for question in (2, 4, 5, 7, 8, 9, 10):
        assert np.all(gradient[:, tree.QUESTIONS[question].columns] == 0)
    assert np.any(gradient[:, tree.QUESTIONS[6].columns] != 0)
