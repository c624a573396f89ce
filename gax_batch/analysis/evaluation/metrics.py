"""Metrics of predictions against labels. This module needs only NumPy and SciPy.

RMSE over the 37 columns is the Galaxy Zoo challenge's metric (Dieleman, Willett & Dambre 2015); the
votes' likelihood is a Dirichlet-multinomial per question (Walmsley et al. 2020, MNRAS 491, 1554). Labels may
lack columns: unknown fractions do not enter a mean.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from gax_batch import gz2
from gax_batch.analysis.labels import (
    CLEAR_CLASSES,
    LARGEST_COLUMNS,
    NO_CLASS,
    Labels,
    clear_class,
)

Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
LEVELS = (0.5, 0.68, 0.9, 0.95)
CONCENTRATION = 30.0
RISK_STEPS = 10
TENTHS = tuple(step / 10 for step in range(11))
# Boundaries of the share of volunteers who are asked a question: most galaxies are at the low end.
SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
# Fractions and interval ends that are equal as decimals may differ in the last binary digit.
_EQUAL = 1e-6


def rmse(predicted: Float, truth: Float) -> float:
    """Return the root mean squared error over all known fractions. `truth` is NaN if unknown."""
    return math.sqrt(float(np.nanmean(np.square(predicted - truth, dtype=np.float64))))


def squared_error(predicted: Float, labels: Labels) -> npt.NDArray[np.float64]:
    """Return the mean squared error of each galaxy's known fractions, `[N]`. Each galaxy must have some."""
    error = np.square(predicted - labels.cumulative, dtype=np.float64)
    return np.asarray(np.nanmean(error, axis=1))


def asked(labels: Labels) -> Mask:
    """Return whether a question is known and was asked to at least one volunteer, bool `[N, 11]`."""
    known = labels.known[:, [question.start for question in gz2.QUESTIONS]]
    return np.asarray(known & (labels.share_asked > 0))


def by_answer(questions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Repeat `[..., 11]` values of questions for each answer, `[..., 37]`."""
    return np.repeat(questions, [len(question.answers) for question in gz2.QUESTIONS], axis=-1)


def votes_nll(predicted: Float, labels: Labels, concentration: float = CONCENTRATION) -> npt.NDArray[Any]:
    """Return the negative log likelihood of each galaxy's votes by question.

    Args:
        predicted: Predicted cumulative fractions, float32 `[N, 37]`.
        labels: Labels of the same galaxies.
        concentration: Sum of a question's Dirichlet parameters.

    Returns:
        float64 `[N, 11]`, nats, without multinomial coefficients; zero if no volunteer was asked or the votes
        are unknown.
    """
    probability = np.maximum(gz2.conditional(predicted).astype(np.float64), 1e-6)
    fractions, reached = labels.fractions, labels.reached.astype(np.float64)
    result = np.zeros((len(labels), gz2.N_QUESTIONS))
    for index, question in enumerate(gz2.QUESTIONS):
        total = reached[:, index]
        counts = fractions[:, question.columns] * total[:, None]
        alpha = concentration * probability[:, question.columns]
        answers = (gammaln(alpha + counts) - gammaln(alpha)).sum(axis=1)
        result[:, index] = gammaln(concentration + total) - gammaln(concentration) - answers
    return result


def vote_noise(labels: Labels) -> float:
    """Return the RMSE of a perfect prediction that results from the finite number of votes."""
    voted = labels.voted
    truth, volunteers = labels.cumulative[voted], labels.volunteers[voted]
    return math.sqrt(float(np.nanmean(truth * (1 - truth) / volunteers[:, None])))


def point_metrics(predicted: Float, labels: Labels) -> dict[str, Any]:
    """Return RMSE and votes' likelihood, overall and by question.

    The likelihood of a galaxy is summed over its known questions. The numbers of a question are of the
    galaxies for which it is known. A question that is known for no galaxy is omitted.
    """
    truth, likelihood = labels.cumulative, votes_nll(predicted, labels)
    known = labels.known
    questions = {}
    for index, question in enumerate(gz2.QUESTIONS):
        rows = known[:, question.start]
        if rows.any():
            columns = question.columns
            questions[question.name] = {
                "rmse": round(rmse(predicted[:, columns], truth[:, columns]), 4),
                "votes_nll": round(float(likelihood[rows, index].mean()), 2),
            }
    return {
        "rmse": round(rmse(predicted, truth), 4),
        "votes_nll": round(float(likelihood.sum(axis=1).mean()), 2),
        "questions": questions,
    }


def reliability(predicted: Float, labels: Labels) -> list[dict[str, Any]]:
    """Return the mean predicted and true fraction by tenth of the predicted one, without empty tenths.

    Args:
        predicted: `[N, 37]` cumulative fractions.
        labels: Of the same galaxies.
    """
    known, group = labels.known, np.digitize(predicted, TENTHS[1:-1])
    result = []
    for index in range(len(TENTHS) - 1):
        cells = known & (group == index)
        if cells.any():
            values = {"predicted": predicted[cells], "true": labels.cumulative[cells]}
            means = {name: round(float(v.mean(dtype=np.float64)), 4) for name, v in values.items()}
            result.append({"fractions": int(cells.sum())} | means)
    return result


def coverage(lo: Float, hi: Float, labels: Labels, predicted: Float | None = None) -> dict[str, Any]:
    """Return how often intervals contain the vote fraction, and how wide they are.

    Values named `_asked` are of the galaxies for which at least one volunteer was asked the question. Their
    fractions are larger than average and harder to cover.

    Args:
        lo: Lower ends, float32 `[N, 37]`.
        hi: Upper ends, float32 `[N, 37]`.
        labels: Labels of the same galaxies, with at least one known fraction.
        predicted: Predicted cumulative fractions, float32 `[N, 37]`. If given, the result also has the
            coverage by tenth of the predicted fraction (`by_fraction`), and by the predicted share of
            volunteers who are asked (`by_share`, without the two questions that everybody is asked).

    Returns:
        Numbers overall, by question (those asked for at least one galaxy), and by groups that are not empty.
    """
    known, cells = labels.known, Cells(lo, hi, labels)
    everywhere = np.ones(gz2.N_ANSWERS, bool)
    answers = [cells.inside[known[:, i], i].mean() for i in range(gz2.N_ANSWERS) if known[:, i].any()]
    result = cells.summary(everywhere) | {"coverage_worst_answer": round(float(min(answers)), 4)}
    shares = None if predicted is None else gz2.parents(predicted)
    result["questions"] = {}
    for question in gz2.QUESTIONS:
        if cells.asked[:, question.columns].any():
            chosen = np.zeros(gz2.N_ANSWERS, bool)
            chosen[question.columns] = True
            found = cells.summary(chosen)
            found["galaxies"] = int(known[:, question.start].sum())
            found["galaxies_asked"] = int(cells.asked[:, question.start].sum())
            if shares is not None and question.parent is not None:
                found["by_share"] = cells.groups(shares, SHARES, chosen)
            result["questions"][question.name] = found
    if predicted is not None and shares is not None:
        followed = by_answer(np.array([question.parent is not None for question in gz2.QUESTIONS]))
        result["by_fraction"] = cells.groups(predicted, TENTHS, everywhere)
        result["by_share"] = cells.groups(shares, SHARES, followed)
    return result


class Cells:
    """Whether each of `[N, 37]` intervals contains its fraction, and summaries over some of them."""

    def __init__(self, lo: Float, hi: Float, labels: Labels, predicted: Float | None = None) -> None:
        """Compare intervals with labels.

        Args:
            lo: Lower ends, float32 `[N, 37]`.
            hi: Upper ends, float32 `[N, 37]`.
            labels: Labels of the same galaxies.
            predicted: Predicted cumulative fractions, float32 `[N, 37]`. If given, summaries also have their
                RMSE.
        """
        truth = labels.cumulative
        self.inside = (truth >= lo - _EQUAL) & (truth <= hi + _EQUAL)
        self.width, self.known, self.asked = hi - lo, labels.known, by_answer(asked(labels))
        self.error = None if predicted is None else np.square(predicted - truth, dtype=np.float64)

    def summary(self, chosen: Mask) -> dict[str, Any]:
        """Return coverage, width and RMSE of the chosen cells, a mask of `[37]` or `[N, 37]`."""
        found: dict[str, Any] = {}
        for suffix, counted in (("", self.known), ("_asked", self.asked)):
            cells = counted & chosen
            if cells.any():
                found[f"coverage{suffix}"] = round(float(self.inside[cells].mean()), 4)
                found[f"width{suffix}"] = round(float(self.width[cells].mean(dtype=np.float64)), 4)
                if self.error is not None:
                    found[f"rmse{suffix}"] = round(math.sqrt(self.error[cells].mean()), 4)
        return found

    def groups(
        self, values: npt.NDArray[np.floating[Any]], edges: Sequence[float], chosen: Mask
    ) -> list[dict[str, Any]]:
        """Return the summaries of groups by value, without empty groups.

        Args:
            values: Values, float `[N, 37]`, or `[N, 1]` for one value per galaxy.
            edges: Edges of the groups. A value that is an edge belongs to the upper group. Values beyond the
                outer edges belong to the outer groups.
            chosen: Whether each answer counts, bool `[37]`.
        """
        group = np.digitize(values, edges[1:-1])
        result = []
        for index, (low, high) in enumerate(pairwise(edges)):
            cells = chosen & (group == index)
            count = int((cells & self.known).sum())
            if count:
                result.append({"from": low, "to": high, "fractions": count} | self.summary(cells))
        return result


def risk_coverage(error: npt.NDArray[Any], uncertainty: npt.NDArray[Any]) -> list[float]:
    """Return the RMSE of the most certain 10, 20, ... 100 % of galaxies.

    Args:
        error: Mean squared error of each galaxy, float `[N]`.
        uncertainty: Uncertainty that the model predicts for each galaxy, float `[N]`.
    """
    ordered = np.cumsum(error[np.argsort(uncertainty, kind="stable")], dtype=np.float64)
    counts = [max(1, round(len(error) * step / RISK_STEPS)) for step in range(1, RISK_STEPS + 1)]
    return [round(float(np.sqrt(ordered[count - 1] / count)), 4) for count in counts]


def clear_metrics(predicted: Float, classes: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Return the accuracy on galaxies of a clear class, and a table of true (rows) and predicted classes.

    Galaxies of an unknown class, or of none of the five, do not count.

    Args:
        predicted: Predicted cumulative fractions, float32 `[N, 37]`.
        classes: int8 `[N]`, see `Labels.classes`.
    """
    clear = (classes >= 0) & (classes != NO_CLASS)
    true, found = classes[clear].astype(int), clear_class(predicted[clear])
    table = np.zeros((len(CLEAR_CLASSES), len(CLEAR_CLASSES)), int)
    np.add.at(table, (true, found), 1)
    totals = table.sum(axis=1)
    return {
        "galaxies": len(true),
        "accuracy": round(float(np.mean(found == true)), 4) if len(true) else None,
        "accuracy_by_class": {
            name: round(float(table[i, i] / totals[i]), 4)
            for i, name in enumerate(CLEAR_CLASSES)
            if totals[i]
        },
        "classes": list(CLEAR_CLASSES),
        "confusion": table.tolist(),
    }


def largest_metrics(predicted: Float, largest: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Return how often the largest of the 37 fractions is the predicted one.

    Args:
        predicted: Predicted cumulative fractions, float32 `[N, 37]`.
        largest: int8 `[N]`, see `Labels.largest`. Galaxies of -1 do not count.
    """
    known = largest >= 0
    found = np.argmax(predicted[known][:, list(LARGEST_COLUMNS)], axis=1)
    accuracy = round(float(np.mean(found == largest[known])), 4) if known.any() else None
    return {"galaxies": int(known.sum()), "accuracy": accuracy}
