"""Fit blend, predictive distribution and anomaly threshold on galaxies that were not used for training."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from gax_batch import gz2
from gax_batch.analysis.labels import Labels
from gax_batch.models import blending, predictive, uncertainty
from gax_batch.models.blending import Blend
from gax_batch.models.bundle import MODELS
from gax_batch.models.predictive import Predictive

Float = npt.NDArray[np.float32]
# Pulls the blend toward equal weights, as strongly as this number of galaxies would.
RIDGE_GALAXIES = 10.0
# Pulls exponents toward 1 and offsets toward 0. In cross-validation 0.3 and 10 are nearly as good.
EXPONENT_RIDGE = 3.0
OFFSET_RIDGE = 0.9
OOD_PERCENTILE = 99.0


def combinations() -> Iterator[tuple[str, ...]]:
    """Yield every choice of models."""
    for size in range(1, len(MODELS) + 1):
        yield from itertools.combinations(sorted(MODELS), size)


def neutral() -> dict[str, Any]:
    """Return a calibration with equal weights and intervals of width zero, for use during calibration."""
    return {
        "ood_threshold": 1.0,
        "combinations": {
            uncertainty.combination_name(models): {
                **Blend.of({name: [1 / len(models)] * gz2.N_QUESTIONS for name in models}).as_json(),
                **Predictive.certain().as_json(),
                "conditional": Predictive.certain(conditional=True).as_json(),
            }
            for models in combinations()
        },
    }


def calibrate(
    labels: Labels,
    outputs: Mapping[str, Float],
    choices: Iterable[tuple[str, ...]] | None = None,
) -> dict[str, Any]:
    """Fit everything in a bundle's `calibration`.

    Args:
        labels: Labels of galaxies that were not used for training. Those with fractions are used.
        outputs: Outputs of all three models for them (see `gax_batch.models.engine.Engine.outputs`).
        choices: Choices of models; None for all.

    Returns:
        The calibration, as plain data for the manifest.
    """
    known = np.flatnonzero(labels.voted)
    chosen, outputs = labels.take(known), uncertainty.rows_of(outputs, known)
    return {
        "level": uncertainty.INTERVAL,
        "ood_threshold": round(float(np.percentile(1 - outputs["closeness"], OOD_PERCENTILE)), 6),
        "combinations": {
            uncertainty.combination_name(models): _fit_choice(chosen, outputs, models)
            for models in (combinations() if choices is None else choices)
        },
    }


def without_spread(
    labels: Labels, outputs: Mapping[str, Float], calibration: Mapping[str, Any], models: tuple[str, ...]
) -> Predictive:
    """Return the predictive distribution without the draws' spread, for comparison."""
    known = np.flatnonzero(labels.voted)
    usable = uncertainty.Calibration.of_bundle(calibration, models)
    prob = uncertainty.summarize(usable, needed(uncertainty.rows_of(outputs, known), models)).prob
    return predictive.fit(prob, np.full_like(prob, np.nan), labels.take(known).cumulative)


def _fit_choice(labels: Labels, outputs: Mapping[str, Float], models: tuple[str, ...]) -> dict[str, Any]:
    means = {name: outputs[name].mean(axis=0) if name == "bayesian" else outputs[name] for name in models}
    blend = fit_scaling(labels, means, Blend.of(fit_blend(labels, means)))
    draft = uncertainty.Calibration(models, blend, Predictive.certain(), 1.0)
    summary = uncertainty.summarize(draft, needed(outputs, models))
    fitted = predictive.fit(summary.prob, summary.std, labels.cumulative)
    asked = predictive.fit(summary.prob, summary.std, labels.conditional, conditional=True)
    return {**blend.as_json(), **fitted.as_json(), "conditional": asked.as_json()}


def needed(outputs: Mapping[str, Float], models: Iterable[str]) -> dict[str, Float]:
    """Return the outputs of a choice of models."""
    names = set(models) | ({"svr_draws", "closeness"} if "svr" in models else set())
    return {name: values for name, values in outputs.items() if name in names}


def fit_blend(labels: Labels, predictions: Mapping[str, Float]) -> dict[str, list[float]]:
    """Return each question's weights, by least squares on the known conditional fractions.

    Returns:
        Weights by model, `[11]`, non-negative. They sum to 1 over models.
    """
    names = sorted(predictions)
    conditional = np.stack([gz2.conditional(predictions[n]) for n in names]).astype(np.float64)
    weights = np.empty((len(names), gz2.N_QUESTIONS))
    for index, question in enumerate(gz2.QUESTIONS):
        # The weight of an error of a conditional fraction is the share of volunteers who were asked.
        share = labels.reached[:, index, None].astype(np.float64) / np.maximum(labels.volunteers[:, None], 1)
        design = (conditional[:, :, question.columns] * share).reshape(len(names), -1).T
        target = (labels.fractions[:, question.columns].astype(np.float64) * share).ravel()
        pull = np.sqrt(RIDGE_GALAXIES / len(labels)) * np.linalg.norm(target) / len(question.answers)
        weights[:, index] = _simplex_least_squares(design, target, pull)
    return {name: [round(float(w), 5) for w in row] for name, row in zip(names, weights, strict=True)}


def fit_scaling(labels: Labels, predictions: Mapping[str, Float], blend: Blend) -> Blend:
    """Return the blend with exponents and offsets that minimize the squared error of the known fractions.

    Args:
        labels: Labels of N galaxies.
        predictions: Cumulative fractions by model, float32 `[N, 37]`.
        blend: The blend with fitted weights.
    """
    exponent, offset = blend.exponent.copy(), blend.offset.copy()
    mixed = np.asarray(gz2.conditional(Blend.of(blend.weights)(predictions)), np.float64)
    for index, question in enumerate(gz2.QUESTIONS):
        columns = question.columns
        # As for the weights, the weight of an error is the share of volunteers who were asked.
        share = labels.reached[:, index].astype(np.float64) / np.maximum(labels.volunteers, 1)
        asked = np.flatnonzero(share > 0)
        logarithm = np.log(np.maximum(mixed[asked, columns], blending.SMALLEST))
        target = labels.fractions[asked, columns].astype(np.float64)
        exponent[index], *offset[columns] = _fit_one(logarithm, target, share[asked, None])
    return Blend(blend.weights, exponent, offset)


def _fit_one(
    logarithm: npt.NDArray[np.float64], target: npt.NDArray[np.float64], share: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return one question's exponent and offsets."""

    def loss(values: npt.NDArray[np.float64]) -> float:
        fractions = scipy.special.softmax(values[0] * logarithm + values[1:], axis=1)
        pull = EXPONENT_RIDGE * (values[0] - 1) ** 2 + OFFSET_RIDGE * np.square(values[1:]).sum()
        return float(np.square((fractions - target) * share).sum() + pull)

    start = np.concatenate([[1.0], np.zeros(target.shape[1])])
    return np.asarray(scipy.optimize.minimize(loss, start, method="L-BFGS-B").x, np.float64)


def _simplex_least_squares(
    design: npt.NDArray[np.float64], target: npt.NDArray[np.float64], pull: float
) -> npt.NDArray[np.float64]:
    count = design.shape[1]
    # The sum of the weights is a further equation, with more weight than all others together.
    heavy = 1e3 * (1.0 + float(np.linalg.norm(target)))
    rows = np.vstack([design, pull * np.eye(count), np.full((1, count), heavy)])
    right = np.concatenate([target, np.full(count, pull / count), [heavy]])
    solution, _ = scipy.optimize.nnls(rows, right)
    return np.asarray(solution / solution.sum(), np.float64)
