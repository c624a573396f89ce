import numpy as np
import pytest
import tensorflow as tf
from labeled_galaxies import FEW_QUESTIONS, partly, random_fractions
from sklearn.svm import SVR

from gax_batch import gz2
from gax_batch.models.svr import Regressions
from training import regression

INPUTS = 6


def simulated(count, seed, noise=0.02):
    """Features, and fractions that are a smooth function of them but for noise."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(0, 1, (count, INPUTS)).astype(np.float32)
    mixing = np.random.default_rng(99).normal(0, 1, (INPUTS, gz2.N_ANSWERS))
    logits = np.tanh(inputs @ mixing) + rng.normal(0, noise, (count, gz2.N_ANSWERS))
    fractions = gz2.cumulative(gz2.conditional(np.exp(logits)))
    return inputs, fractions.astype(np.float32)


@pytest.fixture
def one_choice(monkeypatch):
    monkeypatch.setattr(regression, "GAMMAS", (0.3,))
    monkeypatch.setattr(regression, "COSTS", (1.0,))
    monkeypatch.setattr(regression, "TUBES", (0.03,))


def fitted(count, seed):
    inputs, fractions = simulated(count, seed)
    return regression.fit(inputs, fractions, simulated(40, seed + 1), lambda _: None)


def test_predictions_are_those_of_scikit_learns_kernel(one_choice):
    inputs, fractions = simulated(120, 1)
    arrays, record = regression.fit(inputs, fractions, simulated(40, 2), lambda _: None)
    others = simulated(16, 3)[0]
    found, _ = Regressions(arrays)(tf.constant(others))
    standard, standard_others = ((x - arrays["svr/mean"]) / arrays["svr/deviation"] for x in (inputs, others))
    for answer in (0, 7, 36):
        model = SVR(gamma=record["gamma"], C=record["C"], epsilon=record["epsilon"])
        expected = model.fit(standard, fractions[:, answer]).predict(standard_others)
        # LIBSVM stops at a tolerance of 1e-3.
        np.testing.assert_allclose(found[0, :, answer], expected, atol=1e-3)


def test_deviations_scatter_as_fits_to_other_galaxies_do(one_choice):
    others = tf.constant(simulated(16, 1000)[0])
    fits = [Regressions(fitted(100, seed)[0])(others)[0].numpy() for seed in range(0, 40, 2)]
    between = np.std([found[0] for found in fits], axis=0, ddof=1)
    within = np.sqrt(np.mean([np.square(found[1:]).mean(axis=0) for found in fits], axis=0))
    # Fits to half of the galaxies are further from linear than those to all: the estimate errs upwards.
    assert 0.8 < float(np.median(within / between)) < 1.6


def test_hyperparameters_are_those_of_the_smallest_error_on_held_out_galaxies(monkeypatch):
    monkeypatch.setattr(regression, "GAMMAS", (0.3, 300.0))
    monkeypatch.setattr(regression, "COSTS", (1.0,))
    monkeypatch.setattr(regression, "TUBES", (0.03,))
    held_out = simulated(60, 5)
    held_out[1][:, 20:] = np.nan
    _, record = regression.fit(*simulated(120, 4), held_out, lambda _: None)
    assert record["gamma"] == pytest.approx(0.3 / INPUTS)
    assert 0 < record["held_out_rmse"] < 0.2


def test_unknown_questions_are_the_teachers_and_the_tree_holds():
    labels, teacher = random_fractions(20, seed=1), random_fractions(20, seed=2)
    found = regression.complete(partly(labels), teacher)
    assert gz2.inconsistency(found) < 1e-5
    own, given, taught = (gz2.conditional(x) for x in (found, labels, teacher))
    for index, question in enumerate(gz2.QUESTIONS):
        expected = given if index in FEW_QUESTIONS else taught
        np.testing.assert_allclose(own[:, question.columns], expected[:, question.columns], atol=1e-4)


def test_known_fractions_stay_as_they_are():
    labels = random_fractions(20, seed=1)
    np.testing.assert_allclose(regression.complete(labels, random_fractions(20, seed=2)), labels, atol=1e-5)


def test_representative_galaxies_are_chosen_before_others():
    representative = np.arange(100) % 4 == 0
    few, many = (regression.choose_rows(representative, most) for most in (10, 40))
    assert len(few) == 10
    assert representative[few].all()
    assert len(many) == 40
    assert representative[many].sum() == 25
    assert len(np.unique(many)) == 40
    assert len(regression.choose_rows(representative, 1000)) == 100


def test_a_constant_feature_keeps_a_deviation():
    deviation = np.array([1.0, 2.0, 0.0, 1e-9], np.float32)
    found = regression.floor_deviation(deviation)
    assert found.min() > 0.1
