"""Gather the folds: calibrate on out-of-fold predictions, measure them, write the bundle."""

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.errors import FatalError
from gax_batch.evaluation.metrics import votes_nll
from gax_batch.imaging import GZ2_CROP, IMAGE_SIDE
from gax_batch.inference import Engine
from gax_batch.models.bayesian import KERNELS, prior_deviation
from gax_batch.models.bundle import MODELS, Bundle, save_bundle
from training import calibrate, checkpoint, report
from training.chain import DRAWS, PRECISION
from training.checkpoint import Arrays
from training.data import FOLDS, Galaxies
from training.recipe import DENSE, PRETRAINING, RECIPES

LIMITS = (
    "galaxies with votes are a few hundred of SDSS, chosen in equal parts as spirals, ellipticals, edge-on "
    "disks and mergers: they do not represent the sky, and rare answers (boxy bulges, four arms) were hardly "
    "seen",
    "fractions are those of Galaxy Zoo 2 volunteers for SDSS gri images scaled to the galaxy's size (0.02 "
    "Petrosian radii a pixel of 424); other surveys, depths, scales or colors are outside of what it knows",
    "intervals are calibrated on average over galaxies like these, not for each kind of galaxy",
    "numbers are of models trained on four fifths of the galaxies; the shipped models saw all of them",
)


def out_of_fold(galaxies: Galaxies, work: Path) -> Arrays:
    """The predictions of all folds, in the order of the galaxies.

    Raises:
        FatalError: a fold's are missing.
    """
    folds = galaxies.folds
    result: Arrays = {}
    for fold in range(FOLDS):
        rows = np.flatnonzero(folds == fold)
        parts = checkpoint.load(work / f"fold-{fold}" / "predictions.safetensors")
        if parts is None:
            raise FatalError(f"the predictions of fold {fold} are missing; run the same command again")
        for name, values in parts.items():
            if name.startswith("anomaly/"):
                result[name] = np.concatenate([result.get(name, values[:0]), values])
                continue
            axis = values.ndim - 2 if values.ndim == 3 else 0
            if name not in result:
                shape = list(values.shape)
                shape[axis] = len(galaxies)
                result[name] = np.full(shape, np.nan, np.float32)
            result[name][(slice(None),) * axis + (rows,)] = values
    return result


def assemble(galaxies: Galaxies, work: Path, output: Path, seed: int, say: Callable[[str], None]) -> str:
    """Calibrate, measure and write the bundle; the id."""
    outputs = out_of_fold(galaxies, work)
    core = {name: outputs[name] for name in (*MODELS, "closeness")}
    values = calibrate.calibrate(galaxies.labels, core)
    arrays = {name: _load(work / "fold-all" / f"export-{name}.safetensors") for name in MODELS}
    metrics = report.measure(galaxies, outputs, work)
    manifest = {
        "name": output.name,
        "seed": seed,
        "preprocessing": {"side": IMAGE_SIDE, "crop": GZ2_CROP},
        "calibration": values,
        "training": _training(galaxies, work, arrays, seed),
        "limits": list(LIMITS),
        "metrics": metrics,
    }
    say(json.dumps(metrics, indent=1))
    # The old bundle stays whole until the new one is.
    fresh = output.with_name(output.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    name = save_bundle(fresh, manifest, arrays)
    shutil.rmtree(output, ignore_errors=True)
    fresh.rename(output)
    return name


def _load(path: Path) -> Arrays:
    arrays = checkpoint.load(path)
    if arrays is None:
        raise FatalError(f"{path} is missing or damaged; run the same command again")
    return arrays


def _training(galaxies: Galaxies, work: Path, arrays: Mapping[str, Arrays], seed: int) -> dict[str, Any]:
    labels = galaxies.labels
    record = _load(work / "fold-all" / "regressions.safetensors")
    return {
        "data": "Galaxy Zoo 2: weighted vote fractions of Hart et al. 2016, and clear classes of the "
        "Galaxy Zoo challenge",
        "labels_sha256": galaxies.digest(),
        "galaxies": {"voted": int(labels.voted.sum()), "classes": int((labels.classes >= 0).sum())},
        "folds": FOLDS,
        "steps": {name: recipe.steps for name, recipe in RECIPES.items()}
        | {f"{name}, dense layers": recipe.steps for name, recipe in DENSE.items()}
        | {"pretraining": PRETRAINING.recipe.steps},
        "svr": {
            name.removeprefix("record/"): round(float(values[0]), 6)
            for name, values in record.items()
            if name.startswith("record/")
        },
        "posterior": posterior(arrays["bayesian"]),
        "evidence": evidence(galaxies, arrays["bayesian"], seed),
        "versions": {name: version(name) for name in ("tensorflow", "tensorflow-probability", "scikit-learn")}
        | {"python": platform.python_version()},
    }


def evidence(galaxies: Galaxies, arrays: Arrays, seed: int) -> dict[str, float]:
    """The evidence lower bound of the Bayesian CNN on the votes it was trained on, nats per galaxy.

    The expected log likelihood (draws instead of Flipout, without multinomial coefficients) less the
    divergence's share. At a temperature below 1 (`losses.kl_weight`) this is not what was maximized.
    """
    labels = galaxies.labels
    voted = np.flatnonzero(labels.voted)
    empty: Arrays = {}
    arrays_by_model = {"bayesian": arrays, "classic": empty, "svr": empty}
    bundle = Bundle("all", {"seed": seed, "calibration": calibrate.neutral()}, arrays_by_model)
    engine = Engine(bundle, models=("bayesian",), draws=DRAWS, precision=PRECISION)
    draws = engine.draws(galaxies.cutouts(voted))
    likelihood = [-votes_nll(draw, labels.take(voted)).sum(axis=1).mean() for draw in draws]
    divergence = sum(layer["divergence"] for layer in posterior(arrays).values())
    expected, share = float(np.mean(likelihood)), divergence / len(galaxies)
    return {
        "expected_log_likelihood": round(expected, 2),
        "divergence_per_galaxy": round(share, 2),
        "evidence_lower_bound": round(expected - share, 2),
        "temperature_of_convolutions": RECIPES["bayesian"].temperature,
        "temperature_of_dense_layers": DENSE["bayesian"].temperature,
    }


def posterior(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, dict[str, float]]:
    """Each layer's posterior beside its prior: neither of the ratios is 1 or 0 if it has learned.

    Returns:
        By layer: the prior's deviation, the divergence of the posterior from the prior (nats, all
        weights), the root mean square of the posterior's means, and the 10th, 50th and 90th percentile
        of the posterior's deviations.
    """
    table = {}
    for name in KERNELS:
        mean, deviation = arrays[f"{name}/mean"], arrays[f"{name}/deviation"]
        low, middle, high = np.percentile(deviation, [10, 50, 90])
        prior = prior_deviation(mean.shape)
        divergence = np.log(prior / deviation) + (deviation**2 + mean**2) / (2 * prior**2) - 0.5
        table[name] = {
            "prior_deviation": round(prior, 4),
            "divergence": round(float(divergence.sum(dtype=np.float64)), 1),
            "means_rms": round(float(np.sqrt(np.mean(mean**2))), 4),
            "deviation_10": round(float(low), 5),
            "deviation_50": round(float(middle), 5),
            "deviation_90": round(float(high), 5),
        }
    return table
