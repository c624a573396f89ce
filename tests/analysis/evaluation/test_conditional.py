"""Coverage of conditional fractions, of known fractions and ends."""

import numpy as np
import pytest
from labeled_galaxies import labels_of, random_fractions

from gax_batch import gz2
from gax_batch.analysis.evaluation.conditional import conditional_metrics
from gax_batch.models.predictive import Predictive

SPIRAL = gz2.QUESTIONS[3]


@pytest.fixture
def prob():
    """Of every galaxy, a quarter of those who are asked see spiral arms."""
    prob = random_fractions(8, seed=1)
    prob[:, SPIRAL.columns] = prob[:, [SPIRAL.parent]] * np.array([0.25, 0.75], np.float32)
    return prob


def test_fractions_where_nobody_was_asked_do_not_count(prob):
    truth = prob.copy()
    truth[:3, SPIRAL.columns] = 0  # nobody was asked
    truth[3, SPIRAL.columns] = np.nan  # nothing is known
    truth[4:6, SPIRAL.columns] = truth[4:6, [SPIRAL.parent]] * np.array([0.5, 0.5], np.float32)
    found = conditional_metrics(
        Predictive.certain(conditional=True), prob, np.zeros_like(prob), labels_of(truth)
    )
    spiral = found["questions"][SPIRAL.name]
    assert spiral == {
        "galaxies": 4,
        "coverage": 0.5,
        "width": 0,
        "rmse": pytest.approx(0.25 / 2**0.5, abs=1e-4),
    }
    assert found["galaxies"] == 8
    assert found["questions"]["t06_odd"] == {"galaxies": 8, "coverage": 1, "width": 0, "rmse": 0}


def test_a_question_that_no_galaxy_was_asked_is_left_out(prob):
    truth = prob.copy()
    truth[:, SPIRAL.columns] = 0
    fitted = Predictive.certain(conditional=True)
    found = conditional_metrics(fitted, prob, np.zeros_like(prob), labels_of(truth))
    assert set(gz2.QUESTION_NAMES) - set(found["questions"]) == {SPIRAL.name}
