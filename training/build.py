"""Train, calibrate and evaluate all three models and write the bundle.

    python -m training.build --data FOLDER --output FOLDER --seed 7

The folder of data holds `hart16_votes.csv` and `images/` (see `training.data`). With the same seed,
data, versions and machine the bundle is the same.
"""

import argparse
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import uncertainty
from gax_batch.imaging import GZ2_CROP, IMAGE_SIDE
from gax_batch.inference import Engine
from gax_batch.models import bayesian, classic, svr
from gax_batch.models.bundle import MODELS, Bundle, save_bundle
from training import calibrate, data, evaluate, regression, train
from training.data import Galaxies

Float = npt.NDArray[np.float32]
DRAWS = 32
LIMITS = (
    "the galaxies are a few hundred of SDSS, chosen in equal parts as spirals, ellipticals, edge-on disks "
    "and mergers: they do not represent the sky, and rare answers (boxy bulges, four arms) were hardly seen",
    "fractions are those of Galaxy Zoo 2 volunteers for SDSS gri images scaled to the galaxy's size (0.02 "
    "Petrosian radii a pixel of 424); other surveys, depths, scales or colors are outside of what it knows",
    "intervals are calibrated on average over galaxies like these, not for each kind of galaxy",
)


def train_models(galaxies: Galaxies, seed: int) -> dict[str, Any]:
    """Train the three networks one after another."""
    features = train.train_svr(galaxies, seed)
    return {
        "svr": features,
        "bayesian": train.train_bayesian(galaxies, seed, features),
        "classic": train.train_classic(galaxies, seed),
    }


def export(
    models: Mapping[str, Any], galaxies: Galaxies
) -> tuple[dict[str, dict[str, Float]], dict[str, float]]:
    """All arrays of a bundle, with the regressions fitted on the training galaxies' features."""
    arrays: dict[str, dict[str, Float]] = {
        "bayesian": bayesian.export_weights(models["bayesian"]),
        "classic": classic.export_weights(models["classic"]),
        "svr": svr.export_weights(models["svr"]),
    }
    inputs = regression.features(arrays["svr"], galaxies.cutouts)
    regressions, record = regression.fit(inputs, galaxies.cumulative)
    arrays["svr"] |= regressions
    return arrays, record | {"support_vectors": len(regressions["svr/support"])}


def calibrated(arrays: Mapping[str, Mapping[str, Float]], seed: int, galaxies: Galaxies) -> dict[str, Any]:
    """Run the models on the calibration galaxies and fit the bundle's calibration."""
    bundle = Bundle("uncalibrated", {"seed": seed, "calibration": calibrate.neutral()}, arrays)
    engine = Engine(bundle, models=MODELS, draws=DRAWS)
    return calibrate.calibrate(galaxies, engine.outputs(galaxies.cutouts))


def measured(bundle: Bundle, training: Galaxies, test: Galaxies) -> dict[str, Any]:
    """The held-out numbers of every model and of the default blend."""
    outputs = Engine(bundle, models=MODELS, draws=DRAWS).outputs(test.cutouts)
    predictions = {**outputs, "bayesian": outputs["bayesian"].mean(axis=0)}
    del predictions["closeness"]
    values = bundle.manifest["calibration"]
    default, everything = (
        uncertainty.summarize(uncertainty.Calibration.of_bundle(values, models), outputs)
        for models in (("bayesian", "svr"), MODELS)
    )
    mean = np.repeat(training.cumulative.mean(axis=0)[None], len(test), axis=0)
    points = {
        **predictions,
        "blend": default.prob,
        "blend of all three": everything.prob,
        "mean of training": mean,
    }
    return {
        "galaxies": len(test),
        "draws": DRAWS,
        "points": evaluate.point_metrics(test, points),
        "vote_noise_rmse": round(evaluate.vote_noise(test), 4),
        "intervals": evaluate.interval_metrics(test, default),
        "epistemic": evaluate.epistemic_metrics(test, outputs["bayesian"]),
        "flagged_out_of_distribution": round(float(default.out_of_distribution.mean()), 4),
    }


def assemble(models: Mapping[str, Any], galaxies: Galaxies, seed: int, output: Path) -> str:
    """Export, calibrate and evaluate trained networks and write them as a bundle named like its folder."""
    splits = {name: galaxies.subset(name) for name in data.SPLITS}
    arrays, regressions = export(models, splits["train"])
    manifest = {
        "name": output.name,
        "seed": seed,
        "preprocessing": {"side": IMAGE_SIDE, "crop": GZ2_CROP},
        "calibration": calibrated(arrays, seed, splits["calibration"]),
        "training": {
            "data": "Galaxy Zoo 2, weighted vote fractions of Hart et al. 2016",
            "labels_sha256": galaxies.digest(),
            "galaxies": {name: len(split) for name, split in splits.items()},
            "svr": regressions,
            "versions": {
                name: version(name) for name in ("tensorflow", "tensorflow-probability", "scikit-learn")
            }
            | {"python": platform.python_version()},
        },
        "limits": list(LIMITS),
    }
    manifest["metrics"] = measured(Bundle(output.name, manifest, arrays), splits["train"], splits["test"])
    print(json.dumps(manifest["metrics"], indent=1))
    return save_bundle(output, manifest, arrays)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the models and write a bundle.")
    parser.add_argument("--data", type=Path, required=True, help="folder of hart16_votes.csv and images/")
    parser.add_argument(
        "--output", type=Path, required=True, help="the bundle's folder; its name is the bundle's"
    )
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    train.make_deterministic(arguments.seed)
    galaxies = data.load(arguments.data)
    models = train_models(galaxies.subset("train"), arguments.seed)
    print(assemble(models, galaxies, arguments.seed, arguments.output))


if __name__ == "__main__":
    main()
