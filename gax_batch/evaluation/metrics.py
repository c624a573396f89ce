"""Numbers that judge predictions against votes. NumPy and SciPy only.

RMSE over the 37 columns is the Galaxy Zoo challenge's metric (Dieleman, Willett & Dambre 2015); the
votes' likelihood is a Dirichlet-multinomial per question (Walmsley et al. 2020, MNRAS 491, 1554).
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from gax_batch import tree
from gax_batch.labels import CLEAR_CLASSES, Labels, clear_class

Float = npt.NDArray[np.float32]
LEVELS = (0.5, 0.68, 0.9, 0.95)
CONCENTRATION = 30.0
# A question's coverage is told where so many galaxies had votes for it.
ENOUGH_GALAXIES = 200
RISK_STEPS = 10


def rmse(predicted: Float, truth: Float) -> float:
    """Root of the mean squared error over galaxies and columns."""
    return float(np.sqrt(np.mean(np.square(predicted - truth, dtype=np.float64))))


def votes_nll(predicted: Float, labels: Labels, concentration: float = CONCENTRATION) -> npt.NDArray[Any]:
    """Negative log likelihood of each galaxy's votes by question, nats, without multinomial coefficients.

    Args:
        predicted: `[N, 37]` cumulative fractions.
        labels: with votes.
        concentration: sum of a question's Dirichlet parameters.

    Returns:
        float64 `[N, 11]`; zero where nobody was asked.
    """
    probability = np.maximum(tree.conditional(predicted).astype(np.float64), 1e-6)
    result = np.zeros((len(labels), tree.N_QUESTIONS))
    for index, question in enumerate(tree.QUESTIONS):
        total = labels.reached[:, index].astype(np.float64)
        counts = labels.fractions[:, question.columns] * total[:, None]
        alpha = concentration * probability[:, question.columns]
        answers = (gammaln(alpha + counts) - gammaln(alpha)).sum(axis=1)
        result[:, index] = gammaln(concentration + total) - gammaln(concentration) - answers
    return result


def vote_noise(labels: Labels) -> float:
    """The RMSE that the finite number of votes alone gives to a perfect prediction."""
    truth = labels.cumulative
    return math.sqrt(float(np.mean(truth * (1 - truth) / labels.reached[:, :1])))


def point_metrics(predicted: Float, labels: Labels) -> dict[str, Any]:
    """RMSE and votes' likelihood, overall and by question."""
    truth, likelihood = labels.cumulative, votes_nll(predicted, labels)
    return {
        "rmse": round(rmse(predicted, truth), 4),
        "votes_nll": round(float(likelihood.sum(axis=1).mean()), 2),
        "questions": {
            q.name: {
                "rmse": round(rmse(predicted[:, q.columns], truth[:, q.columns]), 4),
                "votes_nll": round(float(likelihood[:, i].mean()), 2),
            }
            for i, q in enumerate(tree.QUESTIONS)
        },
    }


def coverage(lo: Float, hi: Float, labels: Labels) -> dict[str, Any]:
    """How often intervals hold the vote fraction, and how wide they are, overall and by question.

    `coverage` and `width` are over all galaxies; `coverage_asked` over those at which somebody was asked
    the question, whose fractions are larger than the average galaxy's and harder to hold.
    """
    truth = labels.cumulative
    # Fractions and interval ends that are equal in decimals may differ in the last binary place.
    inside = (truth >= lo - 1e-6) & (truth <= hi + 1e-6)
    questions = {}
    for index, question in enumerate(tree.QUESTIONS):
        asked = labels.reached[:, index] > 0
        if asked.any():
            questions[question.name] = {
                "galaxies": int(asked.sum()),
                "coverage": round(float(inside[:, question.columns].mean()), 4),
                "coverage_asked": round(float(inside[asked][:, question.columns].mean()), 4),
                "width": round(float((hi - lo)[:, question.columns].mean()), 4),
            }
    return {
        "coverage": round(float(inside.mean()), 4),
        "coverage_worst_answer": round(float(inside.mean(axis=0).min()), 4),
        "width": round(float(np.mean(hi - lo)), 4),
        "questions": questions,
    }


def risk_coverage(error: npt.NDArray[Any], uncertainty: npt.NDArray[Any]) -> list[float]:
    """RMSE of the most certain 10, 20, ... 100 % of galaxies; it falls towards the certain ones.

    Args:
        error: mean squared error of each galaxy `[N]`.
        uncertainty: what the model says of it `[N]`.
    """
    ordered = np.cumsum(error[np.argsort(uncertainty, kind="stable")], dtype=np.float64)
    counts = [max(1, round(len(error) * step / RISK_STEPS)) for step in range(1, RISK_STEPS + 1)]
    return [round(float(np.sqrt(ordered[count - 1] / count)), 4) for count in counts]


def clear_metrics(predicted: Float, classes: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Accuracy on galaxies of a known clear class, and the table of true (rows) against predicted ones."""
    found = clear_class(predicted)
    table = np.zeros((len(CLEAR_CLASSES), len(CLEAR_CLASSES)), int)
    np.add.at(table, (classes.astype(int), found), 1)
    return {
        "galaxies": len(classes),
        "accuracy": round(float(np.mean(found == classes)), 4),
        "classes": list(CLEAR_CLASSES),
        "confusion": table.tolist(),
    }
