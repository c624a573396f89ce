"""Blend, intervals and the out-of-distribution threshold, fitted on out-of-fold predictions.

The intervals are cross-conformal (Vovk 2015, Ann. Math. Artif. Intell. 74, 9): residuals of every galaxy
under the models that did not see it, in units of its own predicted scatter.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize

from gax_batch import tree, uncertainty
from gax_batch.evaluation.metrics import LEVELS
from gax_batch.labels import Labels
from gax_batch.models.bundle import MODELS
from gax_batch.uncertainty import Summary

Float = npt.NDArray[np.float32]
# A scatter that neither the draws nor the votes know of; it also keeps intervals open where both vanish.
FLOOR = 0.02
# Pulls the blend to equal weights, as strongly as this many galaxies with that many votes would.
RIDGE_GALAXIES = 10.0
OOD_PERCENTILE = 99.0


def combinations() -> Iterator[tuple[str, ...]]:
    """Every choice of models."""
    for size in range(1, len(MODELS) + 1):
        yield from itertools.combinations(sorted(MODELS), size)


def neutral() -> dict[str, Any]:
    """A calibration that blends equally and has intervals of no width, to calibrate with."""
    return {
        "n_votes": 1.0,
        "floor": FLOOR,
        "ood_threshold": 1.0,
        "combinations": {
            uncertainty.combination_name(models): {
                "blend": {name: [1 / len(models)] * tree.N_QUESTIONS for name in models},
                "quantiles": [0.0] * tree.N_ANSWERS,
            }
            for models in combinations()
        },
    }


def calibrate(
    labels: Labels,
    outputs: Mapping[str, Float],
    choices: Iterable[tuple[str, ...]] | None = None,
) -> dict[str, Any]:
    """Fit everything a bundle's `calibration` holds.

    Args:
        labels: of galaxies that trained nothing of what predicts them; those with votes are used.
        outputs: what all three models say of them (see `gax_batch.inference.Engine.outputs`).
        choices: of models; all of them by default.
    """
    mean, std, _, _ = uncertainty.draw_statistics(outputs["bayesian"])
    predictions = {"bayesian": mean, "classic": outputs["classic"], "svr": outputs["svr"]}
    n_votes = float(np.median(labels.reached[labels.voted, 0]))
    fitted = {
        uncertainty.combination_name(models): _fit_choice(
            labels,
            {name: predictions[name] for name in models},
            std if "bayesian" in models else np.full_like(std, np.nan),
            n_votes,
        )
        for models in (combinations() if choices is None else choices)
    }
    return {
        "n_votes": n_votes,
        "floor": FLOOR,
        "level": uncertainty.INTERVAL,
        "ood_threshold": round(float(np.percentile(1 - outputs["closeness"], OOD_PERCENTILE)), 6),
        "combinations": fitted,
    }


def _fit_choice(
    labels: Labels, predictions: Mapping[str, Float], spread: Float, n_votes: float
) -> dict[str, Any]:
    voted = np.flatnonzero(labels.voted)
    chosen = labels.take(voted)
    predictions = {name: values[voted] for name, values in predictions.items()}
    weights = fit_blend(chosen, predictions)
    prob = uncertainty.blend(predictions, weights)
    levels = {
        f"{level:g}": [
            round(float(q), 5)
            for q in uncertainty.fit_conformal(
                prob, spread[voted], chosen.cumulative, n_votes=n_votes, floor=FLOOR, level=level
            )
        ]
        for level in LEVELS
    }
    return {
        "blend": weights,
        "quantiles": levels[f"{uncertainty.INTERVAL:g}"],
        "levels": levels,
    }


def select(outputs: Mapping[str, Float], rows: npt.NDArray[np.intp]) -> dict[str, Float]:
    """Some galaxies' outputs; the Bayesian CNN's have the draws first."""
    return {name: v[:, rows] if v.ndim == 3 else v[rows] for name, v in outputs.items()}


def cross_calibrated(
    labels: Labels, folds: npt.NDArray[np.int8], outputs: Mapping[str, Float], models: tuple[str, ...]
) -> tuple[Summary, dict[str, tuple[Float, Float]]]:
    """Each fold's galaxies by a calibration of the other folds: numbers that nothing was fitted to.

    Args:
        labels: N galaxies.
        folds: `[N]`, the fold whose models made the outputs.
        outputs: out-of-fold.
        models: which blend.

    Returns:
        Their summary, and the intervals `(lo, hi)` by level.
    """
    parts: list[Summary] = []
    rows: list[npt.NDArray[np.intp]] = []
    intervals: dict[str, list[tuple[Float, Float]]] = {f"{level:g}": [] for level in LEVELS}
    for fold in np.unique(folds):
        others, own = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        values = calibrate(labels.take(others), select(outputs, others), [tuple(sorted(models))])
        usable = uncertainty.Calibration.of_bundle(values, models)
        needed = {k: v for k, v in select(outputs, own).items() if k in (*models, "closeness")}
        summary = uncertainty.summarize(usable, needed)
        levels = values["combinations"][uncertainty.combination_name(models)]["levels"]
        for level, quantiles in levels.items():
            reach = np.array(quantiles, np.float32)
            intervals[level].append(
                uncertainty.interval(
                    summary.prob, summary.std, reach, n_votes=usable.n_votes, floor=usable.floor
                )
            )
        parts.append(summary)
        rows.append(own)
    order = np.argsort(np.concatenate(rows), kind="stable")
    whole = Summary.concatenate(parts)
    sorted_intervals = {
        level: (
            np.concatenate([lo for lo, _ in pairs])[order],
            np.concatenate([hi for _, hi in pairs])[order],
        )
        for level, pairs in intervals.items()
    }
    return whole.take(order), sorted_intervals


def fit_blend(labels: Labels, predictions: Mapping[str, Float]) -> dict[str, list[float]]:
    """Each question's weights: least squares on conditional fractions, weighted with the votes.

    Returns:
        `[11]` non-negative weights by model, that sum to 1 over models.
    """
    names = sorted(predictions)
    conditional = np.stack([tree.conditional(predictions[n]) for n in names]).astype(np.float64)
    weights = np.empty((len(names), tree.N_QUESTIONS))
    for index, question in enumerate(tree.QUESTIONS):
        votes = np.sqrt(labels.reached[:, index, None].astype(np.float64))
        design = (conditional[:, :, question.columns] * votes).reshape(len(names), -1).T
        target = (labels.fractions[:, question.columns].astype(np.float64) * votes).ravel()
        pull = np.sqrt(RIDGE_GALAXIES / len(labels)) * np.linalg.norm(target) / len(question.answers)
        weights[:, index] = _simplex_least_squares(design, target, pull)
    return {name: [round(float(w), 5) for w in row] for name, row in zip(names, weights, strict=True)}


def _simplex_least_squares(
    design: npt.NDArray[np.float64], target: npt.NDArray[np.float64], pull: float
) -> npt.NDArray[np.float64]:
    count = design.shape[1]
    # The sum of the weights is a further equation that weighs more than all others together.
    heavy = 1e3 * (1.0 + float(np.linalg.norm(target)))
    rows = np.vstack([design, pull * np.eye(count), np.full((1, count), heavy)])
    right = np.concatenate([target, np.full(count, pull / count), [heavy]])
    solution, _ = scipy.optimize.nnls(rows, right)
    return np.asarray(solution / solution.sum(), np.float64)
