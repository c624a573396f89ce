"""Evaluate the intervals of conditional fractions: those of the volunteers who are asked a question."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.analysis.evaluation.metrics import Cells
from gax_batch.analysis.labels import Labels
from gax_batch.gz2 import QUESTION_OF
from gax_batch.models.predictive import Predictive
from gax_batch.models.uncertainty import INTERVAL

Float = npt.NDArray[np.float32]


def conditional_metrics(fitted: Predictive, prob: Float, std: Float, labels: Labels) -> dict[str, Any]:
    """Return the coverage and width of 90 % intervals of conditional fractions, and the RMSE.

    Only galaxies for which at least one volunteer was asked the question count.

    Args:
        fitted: Distribution of conditional fractions.
        prob: Predicted cumulative fractions, float32 `[N, 37]`.
        std: Their standard deviations, float32 `[N, 37]`.
        labels: Labels of the same galaxies.

    Returns:
        Numbers overall, and by question that was asked for at least one galaxy.
    """
    lo, hi = fitted.interval(prob, std, INTERVAL)
    cells = Cells(lo, hi, replace(labels, cumulative=labels.conditional), fitted.expected(prob))

    def summary(chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
        found = cells.summary(chosen)
        galaxies = int((cells.known & chosen).any(axis=1).sum())
        # A known conditional fraction implies that the question was asked.
        return {"galaxies": galaxies} | {name: found[name] for name in ("coverage", "width", "rmse")}

    masks = {q.name: np.equal(QUESTION_OF, number) for number, q in enumerate(gz2.QUESTIONS)}
    questions = {name: summary(mask) for name, mask in masks.items() if (cells.known & mask).any()}
    return (summary(np.ones(gz2.N_ANSWERS, bool)) if questions else {}) | {"questions": questions}


def table(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the header and the rows of a table of what `conditional_metrics` returned."""
    rows: list[tuple[str, ...]] = [("question", "galaxies asked", "RMSE", "coverage", "width")]
    for name, values in (*found["questions"].items(), ("all", found)):
        numbers = f"{values['rmse']:.4f}", f"{values['coverage']:.1%}", f"{values['width']:.3f}"
        rows.append((name, f"{values['galaxies']:,}", *numbers))
    return rows
