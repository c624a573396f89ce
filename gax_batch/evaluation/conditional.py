"""Judge the intervals of conditional fractions: those of the volunteers who are asked a question."""

from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import tree
from gax_batch.labels import Labels
from gax_batch.predictive import Predictive
from gax_batch.uncertainty import INTERVAL

Float = npt.NDArray[np.float32]
# Fractions and interval ends that are equal in decimals may differ in the last binary place.
_EQUAL = 1e-6


def conditional_metrics(fitted: Predictive, prob: Float, std: Float, labels: Labels) -> dict[str, Any]:
    """Return how often 90 % intervals of conditional fractions hold, how wide they are, and the RMSE.

    Only galaxies at which somebody was asked the question count.

    Args:
        fitted: The distribution of conditional fractions.
        prob: `[N, 37]` cumulative fractions.
        std: `[N, 37]` their spreads.
        labels: Of the same galaxies.

    Returns:
        Numbers overall, and by question that some galaxy was asked.
    """
    truth = labels.conditional
    lo, hi = fitted.interval(prob, std, INTERVAL)
    inside = (truth >= lo - _EQUAL) & (truth <= hi + _EQUAL)
    error = np.square(fitted.expected(prob) - truth, dtype=np.float64)

    def summary(columns: slice) -> dict[str, Any]:
        known = np.isfinite(truth[:, columns])
        if not known.any():
            return {}
        return {
            "galaxies": int(known.any(axis=1).sum()),
            "coverage": round(float(inside[:, columns][known].mean()), 4),
            "width": round(float((hi - lo)[:, columns][known].mean(dtype=np.float64)), 4),
            "rmse": round(float(np.sqrt(error[:, columns][known].mean())), 4),
        }

    questions = {question.name: summary(question.columns) for question in tree.QUESTIONS}
    return summary(slice(None)) | {"questions": {name: found for name, found in questions.items() if found}}
