"""Predict the held-out galaxies, calibrate on one sample, measure on the other, write the bundle."""

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.analysis.evaluation import looks
from gax_batch.analysis.evaluation.anomalies import anomalies, turned
from gax_batch.analysis.evaluation.metrics import votes_nll
from gax_batch.analysis.evaluation.training_set import IDS, PIXELS, pixel_digests
from gax_batch.analysis.labels import DEBIASED
from gax_batch.errors import FatalError
from gax_batch.imaging.cutout import IMAGE_SIDE
from gax_batch.imaging.defaults import GZ2_CROP
from gax_batch.models import DEFAULT_DRAWS, Precision
from gax_batch.models.bayesian import KERNELS, prior_deviation
from gax_batch.models.bundle import MODELS, Bundle, load_bundle, save_bundle
from gax_batch.models.domain import fit_reference
from gax_batch.models.engine import Engine
from training import calibrate, checkpoint, comparison, dropout, networks, report
from training.checkpoint import Arrays
from training.data import CALIBRATE, REPORT, TRAIN, Galaxies, Rows
from training.recipe import DENSE, RECIPES

# Calibrate for the default number of draws of a run.
DRAWS = DEFAULT_DRAWS
# Calibration and metrics must not depend on which arithmetic is fast on this machine.
PRECISION: Precision = "float32"
# Number of galaxies that are rotated, and on whose sky anomalies are simulated.
DISTORTED = 128
# Number of galaxies in the reference with which a run's images are compared.
REFERENCE = 2000
LIMITS = (
    "fractions are the Galaxy Zoo challenge's: debiased, of all volunteers, for SDSS gri images scaled to "
    "the galaxy's size (0.02 Petrosian radii a pixel of 424); other surveys, depths, scales or colors are "
    "outside the range of the training",
    "metrics are of galaxies that were not used for training, tuning or calibration; they are a "
    "representative sample of the challenge, whose galaxies are bright and large ones of SDSS (r < 17)",
    "few galaxies of that sample were asked how many arms they have or how their bulge looks edge-on, so "
    "that the coverage of these questions is known only to a few percent",
)


def assemble(
    galaxies: Galaxies, work: Path, output: Path, seed: int, weights: str | None, say: Callable[[str], None]
) -> str:
    """Calibrate, measure and write the bundle.

    Args:
        galaxies: All galaxies.
        work: Work folder of the training.
        output: Folder of the bundle.
        seed: Seed of the training.
        weights: Folder of a bundle whose weights are used; None for those of the training.
        say: Called with lines of progress.

    Returns:
        The id of the bundle.
    """
    arrays: Mapping[str, Arrays]
    if weights is None:
        arrays, training = _trained(galaxies, work, seed)
        compared = comparison.load(work)
    else:
        given = load_bundle(weights)
        arrays = {name: {**values} for name, values in given.arrays.items()}
        training, seed = given.manifest["training"], int(given.manifest["seed"])
        compared = given.manifest.get("metrics", {}).get("baselines")
    bundle = Bundle("draft", {"seed": seed, "calibration": calibrate.neutral()}, arrays)
    rows = {sample: judged(galaxies, sample) for sample in (CALIBRATE, REPORT)}
    labels = {sample: galaxies.labels(chosen) for sample, chosen in rows.items()}
    outputs = {sample: predict(galaxies, bundle, chosen, say) for sample, chosen in rows.items()}
    values = calibrate.calibrate(labels[CALIBRATE], outputs[CALIBRATE])
    blind = calibrate.without_spread(labels[CALIBRATE], outputs[CALIBRATE], values, report.DEFAULT)
    distorted = _distorted(galaxies, bundle, seed)
    appearance = looks.measure(galaxies.cutouts(rows[REPORT]))
    metrics = report.measure(labels[REPORT], outputs[REPORT], values, blind, distorted, appearance)
    if compared is not None:
        metrics["baselines"] = compared
    manifest = {
        "name": output.name,
        "seed": seed,
        "definition": DEBIASED,
        "preprocessing": {"side": IMAGE_SIDE, "crop": GZ2_CROP},
        "calibration": values,
        "domain": fit_reference(galaxies.cutouts(_appearance(galaxies))),
        "training": training,
        "limits": list(LIMITS),
        "metrics": metrics,
    }
    say(json.dumps(metrics, indent=1))
    # Keep the old bundle until the new one is complete.
    fresh = output.with_name(output.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    name = save_bundle(fresh, manifest, arrays)
    shutil.rmtree(output, ignore_errors=True)
    fresh.rename(output)
    return name


def _appearance(galaxies: Galaxies) -> Rows:
    """Return representative training galaxies, evenly spaced, for the reference of images."""
    rows = np.flatnonzero(galaxies.representative & (galaxies.sample == TRAIN))
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), REFERENCE)).astype(np.intp))]


def judged(galaxies: Galaxies, sample: int) -> Rows:
    """Return the galaxies of a sample that have labels about the challenge's fractions."""
    rows = galaxies.rows(sample)
    labels = galaxies.labels(rows)
    return rows[labels.voted | (labels.classes >= 0)]


def predict(galaxies: Galaxies, bundle: Bundle, rows: Rows, say: Callable[[str], None]) -> Arrays:
    """Return the outputs of all models, and of the classic CNN with MC dropout, for some galaxies."""
    cutouts = galaxies.cutouts(rows)
    say(f"predicting {len(cutouts)} galaxies")
    outputs = Engine(bundle, models=MODELS, draws=DRAWS, precision=PRECISION).outputs(cutouts)
    seed = int(bundle.manifest["seed"])
    outputs["dropout"] = dropout.draws(dict(bundle.arrays["classic"]), cutouts, DRAWS, seed)
    return outputs


def _distorted(galaxies: Galaxies, bundle: Bundle, seed: int) -> report.Distorted:
    """Return the models' outputs for rotated galaxies and for images that are not galaxies."""
    cutouts = galaxies.cutouts(judged(galaxies, REPORT)[:DISTORTED])
    engine = Engine(bundle, models=MODELS, draws=DRAWS, precision=PRECISION)
    scores = Engine(bundle, models=("svr",), precision=PRECISION)
    return report.Distorted(
        turned=engine.outputs(turned(cutouts)),
        closeness={k: scores.outputs(images)["closeness"] for k, images in anomalies(cutouts, seed).items()},
    )


def _trained(galaxies: Galaxies, work: Path, seed: int) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """Return the arrays of the training, and its description for the manifest."""
    arrays = networks.exported(work)
    record = checkpoint.load(work / "regressions.safetensors")
    if arrays is None or record is None:
        raise FatalError(
            f"{work} lacks arrays of the training, or they are damaged; run the same command again"
        )
    rows = galaxies.rows(TRAIN)
    trained = galaxies.sample == TRAIN
    complete = trained & galaxies.complete
    steps = {name: recipe.steps for name, recipe in RECIPES.items()}
    return arrays, {
        "data": "the Galaxy Zoo challenge (debiased fractions, classes, largest fractions) and Galaxy Zoo 2 "
        "(Hart et al. 2016)",
        "labels_sha256": galaxies.digest(),
        "galaxies": {
            "all": len(rows),
            "37 fractions": int(complete.sum()),
            "some fractions": int((trained & galaxies.representative).sum() - complete.sum()),
            "fractions of Hart et al. 2016": int(
                (trained & np.isfinite(galaxies.weighted).any(axis=1)).sum()
            ),
        },
        "steps": steps | {f"{name}, dense layers": recipe.steps for name, recipe in DENSE.items()},
        "svr": {
            name.removeprefix("record/"): round(float(values[0]), 6)
            for name, values in record.items()
            if name.startswith("record/")
        },
        "posterior": posterior(arrays["bayesian"]),
        "evidence": evidence(galaxies, arrays["bayesian"], seed),
        IDS: galaxies.trained_ids(),
        PIXELS: sorted(set(pixel_digests(galaxies.cutouts(rows)))),
        "versions": {name: version(name) for name in ("tensorflow", "tensorflow-probability", "scikit-learn")}
        | {"python": platform.python_version()},
    }


def evidence(galaxies: Galaxies, arrays: Arrays, seed: int) -> dict[str, float]:
    """Return the evidence lower bound of the Bayesian CNN on the galaxies with 37 fractions, nats per galaxy.

    The bound is the expected log likelihood of their votes (from draws instead of Flipout, without
    multinomial coefficients) minus the divergence's share of all training galaxies.
    """
    rows = np.flatnonzero(galaxies.complete & (galaxies.sample == TRAIN))
    empty: Arrays = {}
    bundle = Bundle(
        "all",
        {"seed": seed, "calibration": calibrate.neutral()},
        {"bayesian": arrays, "classic": empty, "svr": empty},
    )
    engine = Engine(bundle, models=("bayesian",), draws=DRAWS, precision=PRECISION)
    draws, labels = engine.draws(galaxies.cutouts(rows)), galaxies.labels(rows)
    likelihood = [-votes_nll(draw, labels).sum(axis=1).mean() for draw in draws]
    divergence = sum(layer["divergence"] for layer in posterior(arrays).values())
    expected, share = float(np.mean(likelihood)), divergence / len(galaxies.rows(TRAIN))
    return {
        "expected_log_likelihood": round(expected, 2),
        "divergence_per_galaxy": round(share, 2),
        "evidence_lower_bound": round(expected - share, 2),
        "temperature_of_convolutions": RECIPES["bayesian"].temperature,
        "temperature_of_dense_layers": DENSE["bayesian"].temperature,
    }


def posterior(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, dict[str, float]]:
    """Compare each layer's posterior with its prior. If the layer has learned, no ratio is 1 or 0.

    Returns:
        By layer: the prior's standard deviation, the divergence of the posterior from the prior (nats, all
        weights), the root mean square of the posterior's means, and the 10th, 50th and 90th percentile
        of the posterior's standard deviations.
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
