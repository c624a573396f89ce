import numpy as np
import pytest
import scoringrules
from labeled_galaxies import labels_of
from scipy.stats import norm

from gax_batch import gz2
from gax_batch.analysis.evaluation import distributions

LEVELS = (np.arange(20) + 0.5) / 20


def test_the_crps_is_that_of_scoringrules():
    rng = np.random.default_rng(0)
    predictive = np.sort(rng.random((20, 50)), axis=0)
    truth = rng.random(50)
    expected = scoringrules.crps_quantile(truth, predictive.T, LEVELS)
    np.testing.assert_allclose(distributions.crps(predictive, LEVELS, truth), expected, rtol=1e-12)


@pytest.mark.parametrize("levels", [np.linspace(0.005, 0.995, 100), np.linspace(0.005, 0.995, 100) ** 1.5])
def test_the_crps_is_the_closed_form_of_a_uniform_distribution(levels):
    truth = np.array([-0.2, 0.0, 0.3, 0.9, 1.4])
    predictive = np.repeat(levels[:, None], len(truth), axis=1)
    expected = scoringrules.crps_uniform(truth, 0.0, 1.0)
    np.testing.assert_allclose(distributions.crps(predictive, levels, truth), expected, atol=2e-3)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_interval_score_is_that_of_scoringrules(level):
    rng = np.random.default_rng(1)
    low, high = np.sort(rng.random((2, 60)), axis=0)
    truth = rng.random(60)
    expected = scoringrules.interval_score(truth, low, high, 1 - level)
    np.testing.assert_allclose(distributions.interval_score(low, high, truth, level), expected, rtol=1e-12)


def test_a_truth_has_a_level_between_quantiles_and_a_range_beyond_or_at_a_point_mass():
    levels = np.array([0.1, 0.3, 0.5, 0.9])
    quantiles = np.array([0.0, 0.0, 0.2, 0.6])
    truth = np.array([0.0, 0.1, 0.2, 0.4, 0.6, 0.7, -0.1])
    low, high = distributions.pit_range(np.repeat(quantiles[:, None], 7, axis=1), levels, truth)
    np.testing.assert_allclose(low, [0, 0.4, 0.5, 0.7, 0.9, 0.9, 0])
    np.testing.assert_allclose(high, [0.3, 0.4, 0.5, 0.7, 1, 1, 0.1])


def simulated(count, seed, scale=1.0, shift=0.0):
    """Fractions of a known distribution with a point mass at zero, and quantiles that are right or not."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(-0.1, 0.6, (count, gz2.N_ANSWERS))
    spread = rng.uniform(0.02, 0.2, (count, gz2.N_ANSWERS))
    truth = np.clip(center + spread * rng.standard_normal(center.shape), 0, 1)
    steps = norm.ppf(LEVELS)[:, None, None]
    predictive = np.clip(center + shift + scale * spread * steps, 0, 1).astype(np.float32)
    return predictive, labels_of(truth)


def judged(*arguments):
    predictive, labels = simulated(*arguments)
    return distributions.distribution_metrics(predictive, LEVELS, labels)


def test_right_distributions_have_a_flat_pit_in_spite_of_point_masses():
    predictive, labels = simulated(1000, 0)
    found = distributions.distribution_metrics(predictive, LEVELS, labels)
    assert (labels.cumulative == 0).mean() > 0.1
    np.testing.assert_allclose(found["all"]["pit"], 0.1, atol=0.01)
    assert found["all"]["calibration_error"] < 0.005
    assert set(found["questions"]) == set(gz2.QUESTION_NAMES)


def test_wrong_distributions_are_told_apart():
    right, narrow, shifted = (judged(500, 0, *wrong) for wrong in ((), (0.4,), (1.0, 0.1)))
    for wrong in (narrow, shifted):
        assert wrong["all"]["crps"] > right["all"]["crps"]
        assert wrong["all"]["interval_score"]["0.95"] > right["all"]["interval_score"]["0.95"]
        assert wrong["all"]["calibration_error"] > 10 * right["all"]["calibration_error"]
    outer = narrow["all"]["pit"]
    assert outer[0] + outer[-1] > 0.3
    assert shifted["all"]["pit"][0] > 0.2 > shifted["all"]["pit"][-1]


def test_unknown_fractions_are_in_no_score():
    predictive, labels = simulated(100, 0)
    cumulative = labels.cumulative.copy()
    arms = gz2.QUESTIONS[9]
    cumulative[:, arms.columns] = np.nan
    found = distributions.distribution_metrics(predictive, LEVELS, labels_of(cumulative))
    assert found["all"]["fractions"] == 100 * 34
    assert arms.name not in found["questions"]
    assert np.isfinite(found["all"]["crps"])


def test_scores_among_the_asked_are_of_galaxies_that_were_asked():
    predictive, labels = simulated(200, 0)
    found = distributions.distribution_metrics(predictive, LEVELS, labels)
    bar = gz2.QUESTIONS[2]
    asked = labels.cumulative[:, bar.parent] > 0
    assert 0 < asked.sum() < 200
    assert found["questions"][bar.name]["fractions"] == 2 * asked.sum()


def test_intervals_are_quantiles():
    predicted = np.full((2, gz2.N_ANSWERS), 0.5, np.float32)
    intervals = {"0.9": (predicted - 0.3, predicted + 0.3), "0.5": (predicted - 0.1, predicted + 0.2)}
    quantiles, levels = distributions.quantiles_of_intervals(predicted, intervals)
    np.testing.assert_allclose(levels, [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(quantiles[:, 0, 0], [0.2, 0.4, 0.5, 0.7, 0.8], rtol=1e-6)
    found = distributions.distribution_metrics(quantiles, levels, labels_of(np.full((2, 37), 0.5)))
    assert set(found["all"]["interval_score"]) == {"0.5", "0.9"}
