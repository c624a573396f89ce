"""Blend, intervals and the out-of-distribution threshold, fitted on the calibration galaxies."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize

from gax_batch import tree, uncertainty
from gax_batch.models.bundle import MODELS
from training.data import Galaxies

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


def calibrate(galaxies: Galaxies, outputs: Mapping[str, Float]) -> dict[str, Any]:
    """Fit everything a bundle's `calibration` holds.

    Args:
        galaxies: the calibration galaxies.
        outputs: what all three models say of them (see `gax_batch.inference.Engine.outputs`).
    """
    mean, std, _, _ = uncertainty.draw_statistics(outputs["bayesian"])
    predictions = {"bayesian": mean, "classic": outputs["classic"], "svr": outputs["svr"]}
    n_votes = float(np.median(galaxies.reached[:, 0]))
    fitted: dict[str, Any] = {}
    for models in combinations():
        chosen = {name: predictions[name] for name in models}
        weights = fit_blend(galaxies, chosen)
        prob = uncertainty.blend(chosen, weights)
        spread = std if "bayesian" in models else np.full_like(std, np.nan)
        quantiles = uncertainty.fit_conformal(prob, spread, galaxies.cumulative, n_votes=n_votes, floor=FLOOR)
        fitted[uncertainty.combination_name(models)] = {
            "blend": weights,
            "quantiles": [round(float(q), 5) for q in quantiles],
        }
    return {
        "n_votes": n_votes,
        "floor": FLOOR,
        "level": uncertainty.INTERVAL,
        "ood_threshold": round(float(np.percentile(1 - outputs["closeness"], OOD_PERCENTILE)), 6),
        "combinations": fitted,
    }


def fit_blend(galaxies: Galaxies, predictions: Mapping[str, Float]) -> dict[str, list[float]]:
    """Each question's weights: least squares on conditional fractions, weighted with the votes.

    Returns:
        `[11]` non-negative weights by model, that sum to 1 over models.
    """
    names = sorted(predictions)
    conditional = np.stack([tree.conditional(predictions[n]) for n in names]).astype(np.float64)
    weights = np.empty((len(names), tree.N_QUESTIONS))
    for index, question in enumerate(tree.QUESTIONS):
        votes = np.sqrt(galaxies.reached[:, index, None].astype(np.float64))
        design = (conditional[:, :, question.columns] * votes).reshape(len(names), -1).T
        target = (galaxies.fractions[:, question.columns].astype(np.float64) * votes).ravel()
        pull = np.sqrt(RIDGE_GALAXIES / len(galaxies)) * np.linalg.norm(target) / len(question.answers)
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
