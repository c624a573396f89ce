from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from gax_batch import gz2
from gax_batch.analysis.evaluation import metrics
from gax_batch.analysis.labels import NO_CLASS, Labels

EDGE_ON, BAR, ARMS = 1, 2, 9


def galaxies(count, seed=0):
    """Votes of 30 to 60 people, who all answer what they are asked; and the number of each answer."""
    rng = np.random.default_rng(seed)
    volunteers = rng.integers(30, 60, count)
    counts = np.zeros((count, gz2.N_ANSWERS))
    for index in gz2.TOPOLOGICAL:
        question = gz2.QUESTIONS[index]
        asked = volunteers if question.parent is None else counts[:, question.parent]
        shares = rng.dirichlet(np.ones(len(question.answers)), count)
        counts[:, question.columns] = rng.multinomial(asked.astype(int), shares)
    ids = [str(i) for i in range(count)]
    cumulative = counts / volunteers[:, None]
    return Labels.of_fractions(
        ids, cumulative, volunteers, definition="debiased", numbering="GalaxyID"
    ), counts


def without(labels, *questions):
    cumulative = labels.cumulative.copy()
    for index in questions:
        cumulative[:, gz2.QUESTIONS[index].columns] = np.nan
    return replace(labels, cumulative=cumulative)


def test_the_votes_likelihood_is_scipys():
    labels, counts = galaxies(3)
    predicted = galaxies(3, seed=1)[0].cumulative
    found = metrics.votes_nll(predicted, labels, 30.0)
    conditional = gz2.conditional(predicted.astype(np.float64))
    for row in range(3):
        for index, question in enumerate(gz2.QUESTIONS):
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


def test_unknown_fractions_are_in_no_mean():
    whole, _ = galaxies(40)
    predicted = galaxies(40, seed=1)[0].cumulative
    partial = without(whole, BAR, ARMS)
    all_of_it, some = metrics.point_metrics(predicted, whole), metrics.point_metrics(predicted, partial)
    names = set(gz2.QUESTION_NAMES) - {gz2.QUESTION_NAMES[BAR], gz2.QUESTION_NAMES[ARMS]}
    assert some["questions"] == {
        name: all_of_it["questions"][name] for name in all_of_it["questions"] if name in names
    }
    known = partial.known
    assert some["rmse"] == pytest.approx(
        np.sqrt(np.mean((predicted - whole.cumulative)[known] ** 2)), abs=1e-4
    )
    assert np.all(metrics.votes_nll(predicted, partial)[:, [BAR, ARMS]] == 0)
    assert np.isfinite(metrics.squared_error(predicted, partial)).all()
    covered = metrics.coverage(predicted - 0.1, predicted + 0.1, partial, predicted)
    assert set(covered["questions"]) <= names
    assert 0 < metrics.vote_noise(partial) < 0.08


def test_coverage_counts_what_lies_inside_by_question():
    labels, _ = galaxies(40)
    truth, arms = labels.cumulative, gz2.QUESTIONS[ARMS]
    lo, hi = truth - 0.1, truth + 0.1
    hi[:, gz2.QUESTIONS[0].columns] = lo[:, gz2.QUESTIONS[0].columns]
    found = metrics.coverage(lo, hi, labels)
    assert found["coverage"] == pytest.approx(34 / 37, abs=1e-4)
    assert found["questions"]["t01_smooth_or_features"]["coverage"] == 0
    # Intervals fail exactly where somebody was asked, which an average over all galaxies hides.
    asked = metrics.asked(labels)[:, ARMS]
    assert 0 < asked.sum() < 40
    assert np.array_equal(asked, truth[:, arms.parent] > 0)
    hi[asked, arms.columns] = lo[asked, arms.columns]
    found = metrics.coverage(lo, hi, labels)["questions"][arms.name]
    assert (found["galaxies"], found["galaxies_asked"]) == (40, asked.sum())
    assert found["coverage"] == pytest.approx(1 - asked.mean(), abs=1e-4)
    assert found["coverage_asked"] == 0
    assert found["width_asked"] == 0 < found["width"]


def test_coverage_by_predicted_fraction_and_by_predicted_share():
    labels, _ = galaxies(200)
    predicted = galaxies(200, seed=1)[0].cumulative
    share = gz2.parents(predicted)
    truth = labels.cumulative
    lo, hi = truth - 0.1, truth + 0.1
    rare = share < 0.05
    hi[rare] = lo[rare]
    large = predicted >= 0.9
    hi[large] = lo[large]
    found = metrics.coverage(lo, hi, labels, predicted)
    by_share = {group["from"]: group for group in found["by_share"]}
    assert by_share[0.0]["coverage"] == by_share[0.0]["coverage_asked"] == 0
    assert by_share[0.2]["coverage"] == 1
    by_fraction = {group["from"]: group for group in found["by_fraction"]}
    assert by_fraction[0.9]["coverage"] == 0
    assert sum(group["fractions"] for group in found["by_fraction"]) == labels.known.sum()
    # The two questions that everybody is asked have no share to group by.
    followed = sum(len(q.answers) for q in gz2.QUESTIONS if q.parent is not None)
    assert sum(group["fractions"] for group in found["by_share"]) == 200 * followed
    questions = found["questions"]
    assert "by_share" not in questions["t01_smooth_or_features"]
    assert questions["t03_bar"]["by_share"][0]["coverage"] == 0


def test_reliability_compares_means_by_predicted_fraction():
    labels, _ = galaxies(300)
    predicted = np.clip(labels.cumulative + 0.05, 0, 1).astype(np.float32)
    found = metrics.reliability(predicted, labels)
    middle = found[4]
    assert middle["predicted"] - middle["true"] == pytest.approx(0.05, abs=1e-3)
    assert sum(group["fractions"] for group in found) == labels.known.sum()


def test_risk_falls_towards_the_certain_if_uncertainty_tells():
    error = np.linspace(0, 1, 100) ** 2
    curve = metrics.risk_coverage(error, error)
    assert curve == sorted(curve)
    assert curve[-1] == pytest.approx(np.sqrt(error.mean()), abs=1e-4)
    assert metrics.risk_coverage(error, -error)[0] > curve[-1]


def test_the_confusion_has_truth_in_rows():
    predicted = np.zeros((3, gz2.N_ANSWERS), np.float32)
    predicted[0, [0, 15]] = predicted[1, [0, 17]] = 1
    predicted[2, [1, 4, 7]] = 1
    found = metrics.clear_metrics(predicted, np.array([0, 3, 4], np.int8))
    assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["accuracy_by_class"] == {"round": 1, "edge_on": 0, "spiral": 1}
    assert found["confusion"][3][2] == 1


def test_galaxies_of_none_of_the_classes_are_not_counted():
    predicted = np.zeros((4, gz2.N_ANSWERS), np.float32)
    predicted[:, 15] = 1
    found = metrics.clear_metrics(predicted, np.array([0, NO_CLASS, -1, 1], np.int8))
    assert found["galaxies"] == 2
    assert found["accuracy"] == 0.5


def test_the_largest_fraction_is_one_of_five():
    predicted = np.zeros((3, gz2.N_ANSWERS), np.float32)
    predicted[:, 0], predicted[:, 14] = [0.9, 0.2, 0.9], 0.5
    found = metrics.largest_metrics(predicted, np.array([0, 4, -1], np.int8))
    assert found == {"galaxies": 2, "accuracy": 1.0}
