import numpy as np
import pytest
from scipy import special, stats

from gax_batch import tree
from gax_batch.evaluation import metrics
from gax_batch.labels import Labels


def galaxies(count, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 30, (count, tree.N_ANSWERS)).astype(np.float64)
    reached = np.stack([counts[:, q.columns].sum(axis=1) for q in tree.QUESTIONS], axis=1)
    fractions = tree.conditional(counts).astype(np.float32)
    classes = np.full(count, -1, np.int8)
    return Labels([str(i) for i in range(count)], fractions, reached.astype(np.float32), classes), counts


def test_the_votes_likelihood_is_scipys():
    labels, counts = galaxies(3)
    predicted = galaxies(3, seed=1)[0].cumulative
    found = metrics.votes_nll(predicted, labels, 30.0)
    conditional = tree.conditional(predicted.astype(np.float64))
    for row in range(3):
        for index, question in enumerate(tree.QUESTIONS):
            votes = counts[row, question.columns].astype(int)
            alpha = 30.0 * np.maximum(conditional[row, question.columns], 1e-6)
            log = stats.dirichlet_multinomial.logpmf(votes, alpha, votes.sum())
            coefficient = special.gammaln(votes.sum() + 1) - special.gammaln(votes + 1).sum()
            assert found[row, index] == pytest.approx(coefficient - log, rel=1e-4, abs=1e-4)


def test_a_perfect_prediction_has_no_error_but_the_votes_noise():
    labels, _ = galaxies(50)
    perfect = metrics.point_metrics(labels.cumulative, labels)
    assert perfect["rmse"] == 0
    assert all(question["rmse"] == 0 for question in perfect["questions"].values())
    other = metrics.point_metrics(galaxies(50, seed=1)[0].cumulative, labels)
    assert perfect["votes_nll"] < other["votes_nll"]
    assert 0.005 < metrics.vote_noise(labels) < 0.08


def test_coverage_counts_what_lies_inside_by_question():
    labels, _ = galaxies(40)
    labels.reached[:30, 9] = 0
    truth = labels.cumulative
    lo, hi = truth - 0.1, truth + 0.1
    hi[:, tree.QUESTIONS[0].columns] = lo[:, tree.QUESTIONS[0].columns]
    found = metrics.coverage(lo, hi, labels)
    assert found["coverage"] == pytest.approx(34 / 37, abs=1e-4)
    assert found["questions"]["t01_smooth_or_features"]["coverage"] == 0
    hi[:20, tree.QUESTIONS[9].columns] = lo[:20, tree.QUESTIONS[9].columns]
    arms = metrics.coverage(lo, hi, labels)["questions"]["t10_arms_winding"]
    assert arms == {"galaxies": 10, "coverage": 0.5, "coverage_asked": 1.0, "width": 0.1}


def test_risk_falls_towards_the_certain_if_uncertainty_tells():
    error = np.linspace(0, 1, 100) ** 2
    curve = metrics.risk_coverage(error, error)
    assert curve == sorted(curve)
    assert curve[-1] == pytest.approx(np.sqrt(error.mean()), abs=1e-4)
    assert metrics.risk_coverage(error, -error)[0] > curve[-1]


def test_the_confusion_has_truth_in_rows():
    predicted = np.zeros((3, tree.N_ANSWERS), np.float32)
    predicted[0, 15] = predicted[1, 17] = predicted[2, 7] = 1
    found = metrics.clear_metrics(predicted, np.array([0, 3, 4], np.int8))
    assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["confusion"][3][2] == 1
