"""Every number of the model card, from out-of-fold predictions alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import uncertainty
from gax_batch.evaluation import metrics
from gax_batch.evaluation.anomalies import auc
from gax_batch.labels import Labels
from gax_batch.models.bundle import MODELS
from training import baselines, calibrate
from training.data import Galaxies

Float = npt.NDArray[np.float32]
DEFAULT = ("bayesian", "svr")
DEVELOPMENT_FOLDS = (0, 4)
"""The recipe was chosen by looking at these folds; numbers without them are told as well."""


def measure(galaxies: Galaxies, outputs: Mapping[str, Float], work: Path) -> dict[str, Any]:
    """The metrics of every model, blend and baseline.

    Args:
        galaxies: all of them.
        outputs: out-of-fold, see `training.assemble.out_of_fold`.
        work: where the baselines left theirs.
    """
    labels, folds = galaxies.labels, galaxies.folds
    core = {name: outputs[name] for name in (*MODELS, "closeness")}
    default, intervals = calibrate.cross_calibrated(labels, folds, core, DEFAULT)
    everything, all_intervals = calibrate.cross_calibrated(labels, folds, core, MODELS)
    points = {
        "bayesian": outputs["bayesian"].mean(axis=0),
        "svr": outputs["svr"],
        "classic": outputs["classic"],
        "blend": default.prob,
        "blend of all three": everything.prob,
        "classic with MC dropout": outputs["dropout"].mean(axis=0),
        **baselines.predictions(galaxies, work),
    }
    voted = np.flatnonzero(labels.voted)
    known = np.flatnonzero(labels.classes >= 0)
    return {
        "galaxies": {"voted": len(voted), "classes": len(known)},
        "draws": len(outputs["bayesian"]),
        "points": {name: _point(labels, folds, values) for name, values in points.items()},
        "vote_noise_rmse": round(metrics.vote_noise(labels.take(voted)), 4),
        "intervals": _coverage(labels, voted, intervals),
        "intervals of all three": _coverage(labels, voted, all_intervals),
        "intervals without the Bayesian spread": _coverage(labels, voted, _spreadless(labels, folds, core)),
        "epistemic": _epistemic(labels, voted, outputs, baselines.ensemble(galaxies, work)),
        "risk_coverage": _risk(labels, voted, default),
        "out_of_distribution": _anomalies(outputs),
        "rotation_mean_change": _rotation(labels, core, outputs),
        "confusion": metrics.clear_metrics(default.prob[known], labels.classes[known]) if len(known) else {},
    }


def _point(labels: Labels, folds: npt.NDArray[np.int8], values: Float) -> dict[str, Any]:
    told = np.isfinite(values).all(axis=1)
    voted = np.flatnonzero(labels.voted & told)
    result = metrics.point_metrics(values[voted], labels.take(voted)) | {"galaxies": len(voted)}
    unseen = voted[~np.isin(folds[voted], DEVELOPMENT_FOLDS)]
    if len(unseen):
        truth = labels.take(unseen).cumulative
        result["rmse_without_development_folds"] = round(metrics.rmse(values[unseen], truth), 4)
    known = np.flatnonzero((labels.classes >= 0) & told)
    if len(known):
        result["class_accuracy"] = metrics.clear_metrics(values[known], labels.classes[known])["accuracy"]
        unseen = known[~np.isin(folds[known], DEVELOPMENT_FOLDS)]
        found = metrics.clear_metrics(values[unseen], labels.classes[unseen])
        result["class_accuracy_without_development_folds"] = found["accuracy"]
    return result


def _coverage(
    labels: Labels, voted: npt.NDArray[np.intp], intervals: Mapping[str, tuple[Float, Float]]
) -> dict[str, Any]:
    chosen = labels.take(voted)
    return {level: metrics.coverage(lo[voted], hi[voted], chosen) for level, (lo, hi) in intervals.items()}


def _spreadless(
    labels: Labels, folds: npt.NDArray[np.int8], core: Mapping[str, Float]
) -> dict[str, tuple[Float, Float]]:
    """The same conformal recipe about the same kind of blend, told nothing of the draws' spread."""
    mean = core["bayesian"].mean(axis=0, keepdims=True)
    _, intervals = calibrate.cross_calibrated(labels, folds, {**core, "bayesian": mean}, DEFAULT)
    return intervals


def _epistemic(
    labels: Labels, voted: npt.NDArray[np.intp], outputs: Mapping[str, Float], ensemble: Float
) -> dict[str, dict[str, float]]:
    """How often the central 90 % of the draws alone would hold the vote fraction."""
    truth = labels.cumulative[voted]
    result = {}
    sources = {
        "bayesian": outputs["bayesian"],
        "classic with MC dropout": outputs["dropout"],
        baselines.ENSEMBLE: ensemble,
    }
    for name, values in sources.items():
        draws = values[:, voted]
        if not np.isfinite(draws).all():
            continue
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        result[name] = {
            "coverage_of_draws_alone": round(float(np.mean((truth >= low) & (truth <= high))), 4),
            "mean_std": round(float(draws.std(axis=0).mean()), 4),
        }
    return result


def _risk(labels: Labels, voted: npt.NDArray[np.intp], summary: uncertainty.Summary) -> dict[str, Any]:
    error = np.square(summary.prob - labels.cumulative, dtype=np.float64)[voted].mean(axis=1)
    curves = {
        "interval width": (summary.hi - summary.lo)[voted].mean(axis=1),
        "epistemic spread": summary.std[voted].mean(axis=1),
        "entropy": summary.entropy[voted][:, [0, 5]].mean(axis=1),
        "none (random order)": np.random.default_rng(0).random(len(voted)),
    }
    return {name: metrics.risk_coverage(error, values) for name, values in curves.items()}


def _rotation(labels: Labels, core: Mapping[str, Float], outputs: Mapping[str, Float]) -> float:
    """The default blend's mean absolute change under a turn by 90 degrees."""
    values = calibrate.calibrate(labels, core, [DEFAULT])
    usable = uncertainty.Calibration.of_bundle(values, DEFAULT)
    rows = np.flatnonzero(np.isfinite(outputs["turned/svr"]).all(axis=1))
    before, after = (
        uncertainty.summarize(
            usable,
            calibrate.select({name: outputs[prefix + name] for name in (*DEFAULT, "closeness")}, rows),
        )
        for prefix in ("", "turned/")
    )
    return round(float(np.mean(np.abs(before.prob - after.prob))), 5)


def _anomalies(outputs: Mapping[str, Float]) -> dict[str, float]:
    inside = 1 - outputs["closeness"]
    scores = {
        name.removeprefix("anomaly/"): 1 - values
        for name, values in outputs.items()
        if name.startswith("anomaly/")
    }
    result = {f"auc_{name}": round(auc(inside, score), 4) for name, score in scores.items()}
    return result | {"auc": round(auc(inside, np.concatenate(list(scores.values()))), 4)}
