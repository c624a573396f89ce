"""All numbers of the model card, from galaxies not used for training, tuning or calibration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.analysis.evaluation import distributions, evaluate, metrics
from gax_batch.analysis.evaluation.anomalies import auc
from gax_batch.analysis.evaluation.conditional import conditional_metrics
from gax_batch.analysis.labels import NO_CLASS, Labels
from gax_batch.models import predictive, uncertainty
from gax_batch.models.bundle import MODELS
from training import calibrate

Float = npt.NDArray[np.float32]
DEFAULT = ("bayesian", "svr")
PREDICTIVE_LEVELS = np.array([0.005, *np.arange(0.05, 0.96, 0.05), 0.995])


@dataclass(frozen=True, slots=True)
class Distorted:
    """Outputs for the first galaxies of the sample, rotated by 90 degrees, and for images of anomalies.

    Attributes:
        turned: Outputs for rotated galaxies, see `gax_batch.models.engine.Engine.outputs`.
        closeness: Largest kernel values by kind of anomaly, float32 `[M]`.
    """

    turned: dict[str, Float]
    closeness: dict[str, Float]


def measure(
    labels: Labels,
    outputs: Mapping[str, Float],
    calibration: Mapping[str, Any],
    blind: predictive.Predictive,
    distorted: Distorted,
    appearance: Mapping[str, npt.NDArray[np.float64]],
) -> dict[str, Any]:
    """Return the metrics of every model and blend.

    Args:
        labels: Labels of the report sample.
        outputs: Outputs of all models, and of the classic CNN with `dropout`.
        calibration: Calibration of the bundle.
        blind: Predictive distribution of the default blend without the draws' spread.
        distorted: Outputs for rotated galaxies and anomalies.
        appearance: Result of `gax_batch.analysis.evaluation.looks.measure` on the sample's images.
    """
    default, everything = (summarize(calibration, outputs, models) for models in (DEFAULT, MODELS))
    points = {
        "blend": default.prob,
        "bayesian": outputs["bayesian"].mean(axis=0),
        "svr": outputs["svr"],
        "classic": outputs["classic"],
        "classic with MC dropout": outputs["dropout"].mean(axis=0),
        "blend of all three": everything.prob,
    }
    usable = uncertainty.Calibration.of_bundle(calibration, DEFAULT)
    fitted, asked = usable.predictive, usable.conditional
    levels = {f"{x:g}": fitted.interval(default.prob, default.std, x) for x in metrics.LEVELS}
    values = {name: getattr(default, name) for name in ("prob", "std", "lo", "hi")}
    judged = evaluate.judge(labels, values, levels, appearance)
    known = np.flatnonzero(labels.voted)
    conditional = {} if asked is None else conditional_metrics(asked, default.prob, default.std, labels)
    quantiles = fitted.at(default.prob[known], default.std[known], list(PREDICTIVE_LEVELS))
    return judged | {
        "sample": "representative galaxies of the challenge, not used for training or calibration",
        "draws": len(outputs["bayesian"]),
        "models": {name: point(labels, prob) for name, prob in points.items()},
        "distribution": distributions.distribution_metrics(quantiles, PREDICTIVE_LEVELS, labels.take(known)),
        "conditional": conditional,
        "intervals without the Bayesian spread": _spreadless(labels, default, blind),
        "epistemic": _epistemic(labels, outputs, default),
        "out_of_distribution": _anomalies(outputs, distorted),
        "rotation_mean_change": _rotation(calibration, default, distorted),
    }


def summarize(
    calibration: Mapping[str, Any], outputs: Mapping[str, Float], models: tuple[str, ...]
) -> uncertainty.Summary:
    """Return the summary of a calibrated choice of models."""
    usable = uncertainty.Calibration.of_bundle(calibration, models)
    return uncertainty.summarize(usable, calibrate.needed(outputs, models))


def point(labels: Labels, prob: Float) -> dict[str, Any]:
    """Return the errors on the galaxies with all 37 fractions, with some, and of a clear class."""
    complete, voted = np.flatnonzero(labels.complete), np.flatnonzero(labels.voted)
    clear = np.flatnonzero((labels.classes >= 0) & (labels.classes != NO_CLASS))
    result = metrics.point_metrics(prob[complete], labels.take(complete)) | {
        "galaxies": len(complete),
        "rmse_of_some_fractions": metrics.point_metrics(prob[voted], labels.take(voted))["rmse"],
    }
    if len(clear):
        found = metrics.clear_metrics(prob[clear], labels.classes[clear])
        result |= {"class_accuracy": found["accuracy"], "by_class": found["accuracy_by_class"]}
    return result


def _spreadless(labels: Labels, summary: uncertainty.Summary, blind: predictive.Predictive) -> dict[str, Any]:
    # Use the same galaxies as `evaluate.judge`: those with all fractions have wider intervals.
    known = np.flatnonzero(labels.voted)
    prob, std = summary.prob[known], np.full_like(summary.std[known], np.nan)
    return {
        f"{level:g}": metrics.coverage(*blind.interval(prob, std, level), labels.take(known))
        for level in metrics.LEVELS
    }


def _epistemic(
    labels: Labels, outputs: Mapping[str, Float], default: uncertainty.Summary
) -> dict[str, dict[str, float]]:
    sources = {
        "blend": np.swapaxes(default.draws, 0, 1),
        "bayesian": outputs["bayesian"],
        "classic with MC dropout": outputs["dropout"],
    }
    return {name: spread(labels, draws) for name, draws in sources.items()}


def spread(labels: Labels, draws: Float) -> dict[str, float]:
    """Return how well the spread of draws predicts the error.

    Args:
        labels: Labels of N galaxies.
        draws: Cumulative fractions, float32 `[S, N, 37]`.

    Returns:
        For galaxies with all fractions, how often the central 90 % of the draws contain the fraction, and
        their mean spread. For those with any, the RMSE of the half with the least spread, and the area
        under risk-coverage (the mean RMSE of the most certain 10, 20, ... 100 %).
    """
    known, voted = np.flatnonzero(labels.complete), np.flatnonzero(labels.voted)
    truth = labels.cumulative[known]
    low, high = np.quantile(draws[:, known], [0.05, 0.95], axis=0)
    deviation = draws.std(axis=0)
    error = metrics.squared_error(draws[:, voted].mean(axis=0), labels.take(voted))
    risk = metrics.risk_coverage(error, deviation[voted].mean(axis=1))
    return {
        "coverage_of_draws_alone": round(float(np.mean((truth >= low) & (truth <= high))), 4),
        "mean_std": round(float(deviation[known].mean()), 4),
        "rmse_of_surest_half": risk[len(risk) // 2 - 1],
        "risk_coverage_area": round(float(np.mean(risk)), 4),
    }


def _rotation(calibration: Mapping[str, Any], default: uncertainty.Summary, distorted: Distorted) -> float:
    """Return the default blend's mean absolute change under a rotation by 90 degrees."""
    after = summarize(calibration, distorted.turned, DEFAULT).prob
    return round(float(np.mean(np.abs(default.prob[: len(after)] - after))), 5)


def _anomalies(outputs: Mapping[str, Float], distorted: Distorted) -> dict[str, float]:
    inside = 1 - outputs["closeness"]
    scores = {name: 1 - values for name, values in distorted.closeness.items()}
    result = {f"auc_{name}": round(auc(inside, score), 4) for name, score in scores.items()}
    return result | {"auc": round(auc(inside, np.concatenate(list(scores.values()))), 4)}
