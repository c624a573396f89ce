import math

import numpy as np
import pytest
import tensorflow as tf
from labeled_galaxies import random_fractions
from scipy import special, stats

from gax_batch import gz2
from gax_batch.analysis.labels import CLASS_CONDITIONS, LARGEST_COLUMNS, NO_CLASS
from training import losses

SPIRAL = 4


def votes(count, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (count, gz2.N_ANSWERS)).astype(np.float32)
    counts = rng.integers(0, 30, (count, gz2.N_ANSWERS)).astype(np.float64)
    reached = np.stack([counts[:, q.columns].sum(axis=1) for q in gz2.QUESTIONS], axis=1)
    return logits, counts, gz2.conditional(counts).astype(np.float32), reached.astype(np.float32)


def gradient(function, values):
    variable = tf.Variable(values)
    with tf.GradientTape() as tape:
        loss = function(variable)
    return tape.gradient(loss, variable).numpy()


@pytest.mark.parametrize("concentration", [30.0, math.inf])
def test_the_likelihood_of_votes_is_scipys(concentration):
    logits, counts, fractions, reached = votes(4)
    computed = losses.negative_log_likelihood(logits, fractions, reached, concentration)
    for row in range(4):
        expected = 0.0
        for question in gz2.QUESTIONS:
            found = counts[row, question.columns].astype(int)
            probability = special.softmax(logits[row, question.columns].astype(np.float64))
            probability /= probability.sum()
            if math.isinf(concentration):
                log = stats.multinomial.logpmf(found, found.sum(), probability)
            else:
                log = stats.dirichlet_multinomial.logpmf(found, concentration * probability, found.sum())
            coefficient = special.gammaln(found.sum() + 1) - special.gammaln(found + 1).sum()
            expected -= log - coefficient
        assert float(computed[row]) == pytest.approx(expected, rel=1e-4)


def test_questions_that_nobody_reached_add_nothing_and_teach_nothing():
    logits, _, fractions, reached = votes(2)
    reached[:, 7] = 0
    slope = gradient(lambda x: losses.negative_log_likelihood(x, fractions, reached), logits)
    assert np.all(slope[:, gz2.QUESTIONS[7].columns] == 0)
    assert np.any(slope[:, gz2.QUESTIONS[0].columns] != 0)


def test_the_multinomial_is_least_at_the_votes_fractions():
    _, _, fractions, reached = votes(3)
    best = np.log(np.maximum(fractions, 1e-6))
    other = best + np.random.default_rng(1).normal(0, 0.3, best.shape).astype(np.float32)
    lowest, higher = (losses.negative_log_likelihood(x, fractions, reached, math.inf) for x in (best, other))
    assert np.all(lowest < higher)


def test_the_error_of_fractions_is_a_gaussian_density():
    predicted, truth = random_fractions(3), random_fractions(3, seed=1)
    weight = np.ones_like(truth)
    normal = stats.norm(0, losses.SCATTER)
    expected = (normal.logpdf(0) - normal.logpdf(predicted.astype(np.float64) - truth)).sum(axis=1)
    np.testing.assert_allclose(losses.fraction_error(predicted, truth, weight), expected, rtol=1e-4)


def test_a_weight_below_one_is_a_wider_gaussian_and_of_zero_none():
    predicted, truth = random_fractions(3), random_fractions(3, seed=1)
    wide = stats.norm(0, losses.SCATTER / math.sqrt(0.57))
    expected = (wide.logpdf(0) - wide.logpdf(predicted.astype(np.float64) - truth))[:, 5:].sum(axis=1)
    weight = np.full_like(truth, 0.57)
    weight[:, :5] = 0
    np.testing.assert_allclose(losses.fraction_error(predicted, truth, weight), expected, rtol=1e-4)
    slope = gradient(lambda x: losses.fraction_error(x, truth, weight), predicted)
    assert np.all(slope[:, :5] == 0)
    assert np.all(slope[:, 5:] != 0)


def log_holds(fractions, index, limit=None):
    """The closed form: the probability of the weakest condition."""
    margins = [
        fractions[:, column] - (limit if limit is not None and (index, column) == (SPIRAL, 7) else threshold)
        for column, threshold in CLASS_CONDITIONS[index]
    ]
    return stats.norm(0, losses.SCATTER).logcdf(np.min(margins, axis=0))


@pytest.mark.parametrize("index", range(NO_CLASS))
@pytest.mark.parametrize("strict", [True, False])
def test_a_class_is_the_probability_that_its_weakest_condition_holds(index, strict):
    fractions = random_fractions(20)
    expected = -log_holds(fractions.astype(np.float64), index, 0.69 if strict else None)
    found = losses.class_error(fractions, np.full(20, index), np.full(20, strict))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_only_a_spiral_depends_on_which_threshold_it_held():
    fractions = np.tile(random_fractions(1), (NO_CLASS, 1))
    # All conditions of a spiral hold but the one that has two thresholds.
    fractions[:, [1, 4]], fractions[:, 7] = 0.95, 0.65
    relaxed, strict = (losses.class_error(fractions, np.arange(5), np.full(5, s)) for s in (False, True))
    assert np.array_equal(relaxed[:SPIRAL], strict[:SPIRAL])
    normal = stats.norm(0, losses.SCATTER)
    assert float(relaxed[SPIRAL]) == pytest.approx(-normal.logcdf(0.65 - 0.619), rel=1e-4)
    assert float(strict[SPIRAL]) == pytest.approx(-normal.logcdf(0.65 - 0.69), rel=1e-4)


def test_none_of_the_five_is_the_probability_that_each_class_fails():
    fractions = random_fractions(20).astype(np.float64)
    strict = np.arange(20) % 2 == 0
    holds = [log_holds(fractions, i) for i in range(SPIRAL)]
    holds.append(np.where(strict, log_holds(fractions, SPIRAL, 0.69), log_holds(fractions, SPIRAL)))
    expected = -np.log1p(-np.exp(holds)).sum(axis=0)
    found = losses.class_error(fractions.astype(np.float32), np.full(20, NO_CLASS), strict)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_an_unknown_class_and_an_unknown_largest_fraction_teach_nothing():
    fractions, unknown = random_fractions(6), np.full(6, -1)
    for function in (
        lambda x: losses.class_error(x, unknown, np.ones(6, bool)),
        lambda x: losses.largest_error(x, unknown),
    ):
        assert np.all(function(fractions).numpy() == 0)
        assert np.all(gradient(function, fractions) == 0)


def test_gradients_of_hopeless_classes_are_finite_and_point_to_the_class():
    fractions = np.zeros((NO_CLASS + 1, gz2.N_ANSWERS), np.float32)
    # The last galaxy is certainly round and was published as none of the five.
    fractions[-1, [0, 15]] = 1
    slope = gradient(
        lambda x: losses.class_error(x, np.arange(NO_CLASS + 1), np.ones(NO_CLASS + 1, bool)), fractions
    )
    assert np.isfinite(slope).all()
    assert np.all(slope[:NO_CLASS].min(axis=1) < -10)


def test_the_largest_fraction_is_the_softmax_of_the_five():
    fractions, largest = random_fractions(5), np.arange(5)
    expected = -special.log_softmax(
        fractions[:, list(LARGEST_COLUMNS)].astype(np.float64) / losses.LARGEST_SCALE, axis=1
    )
    found = losses.largest_error(fractions, largest)
    np.testing.assert_allclose(found, expected[np.arange(5), largest], rtol=1e-4, atol=1e-5)


def test_the_largest_fraction_is_as_likely_as_with_noise_of_that_scale():
    fractions = random_fractions(5)
    five = fractions[:, list(LARGEST_COLUMNS)]
    noise = np.random.default_rng(0).gumbel(0, losses.LARGEST_SCALE, (100_000, 5))
    # The difference of two noises scatters as that of two fractions does.
    assert np.std(noise[:, 0] - noise[:, 1]) == pytest.approx(losses.SCATTER * math.sqrt(2), rel=0.02)
    for row, computed in enumerate(losses.largest_error(fractions, np.arange(5)).numpy()):
        first = (five[row] + noise).argmax(axis=1) == row
        assert np.exp(-computed) == pytest.approx(first.mean(), abs=0.008)


def test_the_log_of_the_normal_distribution_is_scipys_above_minus_ten():
    values = np.linspace(-9.9, 8, 400).astype(np.float32)
    np.testing.assert_allclose(
        losses.log_normal_probability(values), special.log_ndtr(values.astype(np.float64)), 1e-4, 1e-6
    )


def test_the_log_of_the_normal_distribution_is_continuous_and_pulls_below_minus_ten():
    edge = losses.log_normal_probability(np.float32([-10.001, -10, -9.999])).numpy()
    np.testing.assert_allclose(np.diff(edge), 0.0101, atol=5e-4)
    slope = gradient(losses.log_normal_probability, np.float32([-9.99, -11, -40]))
    # The derivative of log_ndtr at -10.
    expected = math.exp(stats.norm.logpdf(-10) - special.log_ndtr(-10))
    np.testing.assert_allclose(slope, expected, rtol=2e-3)


def test_the_divergence_is_warmed_up_to_its_share():
    weights = [float(losses.kl_weight(tf.constant(s), 100, 500, 0.5)) for s in (0, 50, 100, 1000)]
    np.testing.assert_allclose(weights, [0, 0.0005, 0.001, 0.001], rtol=1e-6)
