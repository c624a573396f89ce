"""Baselines of the Bayesian CNN: the metrics of a deep ensemble and of models of disjoint halves."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.analysis import combine
from gax_batch.analysis.combine import Estimate
from gax_batch.analysis.labels import Labels
from gax_batch.catalog.sums import EXPECTED
from gax_batch.models.nesting import DEFAULT
from training import report

Float = npt.NDArray[np.float32]
FOLDER = "baselines"
FILE = "baselines.json"
# Level of the intervals. No number here depends on it.
LEVEL = 0.9


def load(work: Path) -> dict[str, Any] | None:
    """Return the numbers that `training.baselines` left in the work folder of a training, or None."""
    path = work / FOLDER / FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def save(work: Path, numbers: Mapping[str, Any]) -> None:
    """Store the numbers for `load`, in one step."""
    partial = work / FOLDER / f"{FILE}.partial"
    partial.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    partial.replace(work / FOLDER / FILE)


def measure(labels: Labels, draws: Mapping[str, Float]) -> dict[str, Any]:
    """Return errors and spread of each model on the same galaxies.

    Args:
        labels: Labels of N galaxies of the report sample.
        draws: Cumulative fractions by model, float32 `[S, N, 37]`: posterior draws, dropout draws, or
            members.
    """
    return {
        name: report.point(labels, values.mean(axis=0))
        | report.spread(labels, values)
        | {"draws": len(values)}
        for name, values in draws.items()
    }


def population(draws: Float) -> Estimate:
    """Return the fractions of all galaxies together with `model_std`, as `gax population` estimates them.

    Args:
        draws: Cumulative fractions, float32 `[S, N, 37]`.
    """
    values = draws.astype(np.float64)
    moments = combine.Moments(
        galaxies=values.shape[1],
        expected=values.sum(axis=1),
        most_likely=gz2.most_likely(draws).sum(axis=1).astype(np.float64),
        square=np.square(values).sum(axis=1).mean(axis=0),
        product=(values * gz2.parents(values)).sum(axis=1).mean(axis=0),
    )
    return combine.estimate(moments, EXPECTED, combine.ALL, LEVEL, replace(DEFAULT, draws=len(draws)))


def compare_halves(first: Estimate, second: Estimate) -> dict[str, Any]:
    """Compare the scatter of two models' population fractions with their `model_std`.

    The models were trained on disjoint halves. The difference divided by the root of 2 therefore scatters as
    one of them does about the mean of such models, and `model_std` predicts this scatter. The ratio is the
    root mean square of standardized differences: 1 if the prediction is right, more if it is too small.

    Args:
        first: Estimate of the model of one half.
        second: Estimate of the model of the other half, for the same galaxies.

    Returns:
        `scatter`, `model_std` (root mean squares) and `ratio` of `all` answers, by question and by answer.
    """
    scatter = np.abs(first.value - second.value) / np.sqrt(2)
    stated = np.sqrt((np.square(first.model_std) + np.square(second.model_std)) / 2)
    # A fraction that is the same in all draws has a predicted scatter of zero.
    stated = np.maximum(stated, np.finfo(np.float32).tiny)

    def row(columns: slice) -> dict[str, float]:
        columns_of = {"scatter": scatter, "model_std": stated, "ratio": scatter / stated}
        return {k: round(float(np.sqrt(np.mean(np.square(v[columns])))), 5) for k, v in columns_of.items()}

    return {
        "all": row(slice(None)),
        "questions": {question.name: row(question.columns) for question in gz2.QUESTIONS},
        "answers": {name: row(slice(i, i + 1)) for i, name in enumerate(gz2.ANSWERS)},
    }


def lines(numbers: Mapping[str, Any]) -> list[str]:
    """Return tables of the numbers for a terminal."""
    head = f"{'':28}{'RMSE':>8}{'NLL':>8}{'classes':>9}{'spread':>8}{'holds':>8}{'surest':>8}{'area':>8}"
    result = [head]
    for name, found in numbers["models"].items():
        result.append(
            f"{name:28}{found['rmse']:8.4f}{found['votes_nll']:8.2f}"
            f"{found.get('class_accuracy', float('nan')):9.2%}{found['mean_std']:8.4f}"
            f"{found['coverage_of_draws_alone']:8.1%}{found['rmse_of_surest_half']:8.4f}"
            f"{found['risk_coverage_area']:8.4f}"
        )
    if "halves" in numbers:
        result.append(f"{'halves of the training set':28}{'scatter':>10}{'model_std':>11}{'ratio':>8}")
        rows = {"all": numbers["halves"]["all"]} | numbers["halves"]["questions"]
        for name, found in rows.items():
            result.append(f"{name:28}{found['scatter']:10.5f}{found['model_std']:11.5f}{found['ratio']:8.2f}")
    return result
