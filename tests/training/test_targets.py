import numpy as np
import pytest
import tensorflow as tf
from labeled_galaxies import FEW_COLUMNS, FEW_QUESTIONS, partly, random_fractions, unlabeled

from gax_batch import gz2
from gax_batch.models.layers import cumulative_probabilities
from training import losses
from training.targets import VOTES_WEIGHT, WEIGHTED_WEIGHT, label_loss, targets_of, votes_of

LOGITS = np.random.default_rng(3).normal(0, 1, (4, gz2.N_ANSWERS)).astype(np.float32)


def slopes(galaxies, teacher=None, share=0.0):
    """Gradients of the loss in the logits of the fractions and of the weighted votes."""
    targets = targets_of(galaxies, teacher)
    logits, weighted = tf.Variable(LOGITS), tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = label_loss(logits, weighted, targets, share)
    unconnected = tf.UnconnectedGradients.ZERO
    return [g.numpy() for g in tape.gradient(loss, [logits, weighted], unconnected_gradients=unconnected)]


def columns_of(questions):
    return np.array([c for q in questions for c in range(37)[gz2.QUESTIONS[q].columns]])


def test_a_table_of_17_columns_teaches_these_and_nothing_else():
    logits, weighted = slopes(unlabeled(4, cumulative=partly(random_fractions(4))))
    taught = np.zeros(37, bool)
    taught[FEW_COLUMNS] = True
    assert np.all(logits[:, ~taught] == 0)
    assert np.all(logits[:, taught] != 0)
    assert np.all(weighted == 0)


def test_known_columns_teach_the_same_whether_or_not_the_others_are_known():
    truth = random_fractions(4)
    some, whole = (targets_of(unlabeled(4, cumulative=values)) for values in (partly(truth), truth))
    few = list(FEW_QUESTIONS)
    for name, rows in (("weight", FEW_COLUMNS), ("cumulative", FEW_COLUMNS), ("fractions", FEW_COLUMNS)):
        np.testing.assert_array_equal(some[name][:, rows], whole[name][:, rows])
    np.testing.assert_array_equal(some["reached"][:, few], whole["reached"][:, few])
    others = sorted(set(range(gz2.N_QUESTIONS)) - set(few))
    assert np.all(some["reached"][:, others] == 0)
    assert np.all(some["weight"][:, columns_of(others)] == 0)


def test_the_loss_of_fractions_is_their_density_and_their_votes():
    truth = random_fractions(4)
    targets = targets_of(unlabeled(4, cumulative=truth))
    predicted = cumulative_probabilities(tf.constant(LOGITS))
    expected = losses.fraction_error(predicted, truth, np.ones_like(truth)) + VOTES_WEIGHT * (
        losses.negative_log_likelihood(LOGITS, gz2.conditional(truth), targets["reached"])
    )
    np.testing.assert_allclose(label_loss(tf.constant(LOGITS), None, targets, 0.0), expected, rtol=1e-5)


def test_votes_that_reach_a_question_are_those_of_the_answer_that_leads_to_it():
    truth, people = random_fractions(4), np.array([40, 30, 20, 10], np.float32)
    fractions, reached = votes_of(truth, people)
    np.testing.assert_allclose(fractions, gz2.conditional(truth), atol=1e-6)
    for index, question in enumerate(gz2.QUESTIONS):
        asked = 1 if question.parent is None else truth[:, question.parent]
        np.testing.assert_allclose(reached[:, index], people * asked, rtol=1e-4)


def test_less_exact_fractions_have_less_weight():
    truth = random_fractions(4)
    exact = targets_of(unlabeled(4, cumulative=truth))
    other = targets_of(unlabeled(4, cumulative=truth, trust=np.full(4, 0.5, np.float32)))
    np.testing.assert_allclose(other["weight"], exact["weight"] / 2)
    np.testing.assert_allclose(other["reached"], exact["reached"] / 2, rtol=1e-6)


def test_weighted_votes_teach_their_own_outputs_alone():
    people = np.full(4, 40, np.float32)
    galaxies = unlabeled(4, weighted=random_fractions(4), volunteers=people)
    logits, weighted = slopes(galaxies)
    assert np.all(logits == 0)
    assert np.all(np.any(weighted != 0, axis=1))
    targets = targets_of(galaxies)
    expected = WEIGHTED_WEIGHT * losses.negative_log_likelihood(
        LOGITS, targets["weighted_fractions"], targets["weighted_reached"]
    )
    np.testing.assert_allclose(label_loss(LOGITS, LOGITS, targets, 0.0), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("known", "questions"),
    [
        ({"classes": [0, 1, 2, 0]}, (0, 6)),
        ({"classes": [3, 3, 3, 3]}, (0, 1)),
        ({"largest": [0, 1, 2, 3]}, (0, 5)),
    ],
)
def test_a_fact_teaches_the_questions_on_its_path_alone(known, questions):
    galaxies = unlabeled(4, **{name: np.array(values, np.int8) for name, values in known.items()})
    logits, weighted = slopes(galaxies)
    rest = np.setdiff1d(np.arange(37), columns_of(questions))
    assert np.all(logits[:, rest] == 0)
    assert np.all(np.any(logits != 0, axis=1))
    assert np.all(weighted == 0)


def test_a_galaxy_without_labels_learns_from_the_teacher_alone():
    taught = random_fractions(4, seed=5)
    assert np.all(slopes(unlabeled(4), taught)[0] == 0)
    labeled = unlabeled(4, cumulative=random_fractions(4))
    np.testing.assert_array_equal(
        slopes(unlabeled(4), taught, 1.0)[0], slopes(labeled, taught, 1.0)[0], "labels had a share of 0"
    )
    mixed = slopes(labeled, taught, 0.7)[0]
    parts = slopes(labeled, taught, 0.0)[0], slopes(labeled, taught, 1.0)[0]
    np.testing.assert_allclose(mixed, 0.3 * parts[0] + 0.7 * parts[1], rtol=1e-3, atol=1e-3)


def test_no_target_is_nan():
    galaxies = unlabeled(4, cumulative=partly(random_fractions(4)))
    assert all(np.isfinite(values).all() for values in targets_of(galaxies, random_fractions(4)).values())
