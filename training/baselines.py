"""Train models with which the shipped ones are compared, in the work folder of a finished training.

    python -m training.baselines --data FOLDER --output BUNDLE --members 3 --halves

A deep ensemble (Lakshminarayanan, Pritzel & Blundell 2017, NeurIPS) consists of classic CNNs with different
trunks, orders of the galaxies and views. The bundle's classic CNN is a further member. With `--halves`, two
blends of Bayesian CNN and CNN-SVR are trained, each on its own half of the training galaxies. The scatter of
their population fractions should be as `model_std` predicts. The halves learn only from their labels, since
the teacher was trained on the galaxies of both.

All results are kept in `OUTPUT.work/baselines`, so that the command continues after it was terminated. The
numbers become part of the bundle's manifest when `training.build` is run again with the same arguments, which
does not train again.
"""

import argparse
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from gax_batch.errors import FatalError, UsageError
from gax_batch.models import bayesian, classic, svr
from gax_batch.models.bundle import Bundle, load_bundle
from gax_batch.models.engine import Engine
from training import assemble, build, calibrate, checkpoint, comparison, data, networks, report
from training.data import CALIBRATE, REPORT, TRAIN, Galaxies
from training.networks import Training
from training.targets import Targets, targets_of
from training.train import seed_everything

Float = npt.NDArray[np.float32]
EFFORT = 0.5
# The sample of training galaxies that a half omits.
LEFT_OUT = 3
# Step between the seeds of members and halves, so that their networks' seeds differ.
SEED_STEP = 1000
FIRST_HALF = 100_000


def run(
    source: Path,
    output: Path,
    *,
    members: int = 3,
    halves: bool = False,
    effort: float = EFFORT,
    seed: int = 7,
) -> dict[str, Any]:
    """Train and measure the baselines.

    Args:
        source: Folder of labels and images of the training.
        output: The bundle of the training. Its work folder is next to it.
        members: Number of classic CNNs to train.
        halves: Whether to train the blends of halves too. Otherwise earlier results of them are kept.
        effort: Factor on the number of training steps.
        seed: Seed of the training.

    Returns:
        The numbers, as `training.comparison.load` returns them.

    Raises:
        UsageError: The training is not finished or has other data, or the number of members is not positive.
        FatalError: The training failed.
    """
    if members < 1:
        raise UsageError(f"an ensemble needs at least 1 member besides that of the bundle, not {members}")
    bundle, work = load_bundle(str(output)), output.with_name(output.name + ".work")
    teacher = checkpoint.load(work / "teacher-predictions.safetensors")
    if teacher is None:
        raise UsageError(
            f"{work} does not have the teacher's predictions; run `make train` with the same output first"
        )
    galaxies = data.load(source, work, build.say)
    if bundle.manifest["training"]["labels_sha256"] != galaxies.digest():
        raise UsageError(f"{output} was trained on other galaxies or labels than {source}; give those")
    folder = work / comparison.FOLDER
    folder.mkdir(exist_ok=True)
    build.same_training(folder, galaxies.digest(), seed, effort)
    targets = targets_of(galaxies, np.asarray(teacher["predictions"], np.float32))
    arrays = [dict(bundle.arrays["classic"])]
    for number in range(1, members + 1):
        part = folder / f"member-{number}"
        arrays.append(
            _member(Training(galaxies, part, seed + SEED_STEP * number, effort, build.say), targets)
        )
    numbers = (comparison.load(work) or {}) | {
        "bundle": bundle.bundle_id,
        "effort": effort,
        "members": len(arrays),
        "models": _measured(galaxies, bundle, arrays),
    }
    comparison.save(work, numbers)
    if halves:
        found = [comparison.population(_half(galaxies, folder, seed, effort, half)) for half in (0, 1)]
        numbers["halves"] = comparison.compare_halves(*found)
        comparison.save(work, numbers)
    build.say("\n" + "\n".join(comparison.lines(numbers)))
    return numbers


def half_of(galaxies: Galaxies, half: int) -> Galaxies:
    """Return the galaxies without those that train only in the other half (0 or 1). Twins stay together."""
    roots = [min(key, galaxies.twins.get(key, key)) for key in galaxies.keys]
    mine = np.array([hashlib.sha256(f"half {root}".encode()).digest()[0] % 2 == half for root in roots])
    sample = np.where((galaxies.sample == TRAIN) & ~mine, LEFT_OUT, galaxies.sample)
    return replace(galaxies, sample=sample.astype(np.int8))


def _member(training: Training, targets: Targets) -> checkpoint.Arrays:
    training.work.mkdir(exist_ok=True)
    seed_everything(training.seed)
    keras.backend.clear_session()
    trunk = networks.network(training, "svr", targets, None)
    return dict(classic.export_weights(networks.network(training, "classic", targets, trunk)))


def _measured(galaxies: Galaxies, bundle: Bundle, members: list[checkpoint.Arrays]) -> dict[str, Any]:
    """Return errors and spread of the ensemble and of the bundle's models."""
    rows = assemble.judged(galaxies, REPORT)
    outputs = assemble.predict(galaxies, bundle, rows, build.say)
    images, seed = galaxies.cutouts(rows), int(bundle.manifest["seed"])
    each = [outputs["classic"]]
    for arrays in members[1:]:
        member = _draft(seed, {"bayesian": {}, "svr": {}, "classic": arrays})
        engine = Engine(member, models=("classic",), precision=assemble.PRECISION)
        each.append(engine.outputs(images)["classic"])
    blend = report.summarize(bundle.manifest["calibration"], outputs, report.DEFAULT)
    draws = {
        "deep ensemble": np.stack(each),
        "blend": np.swapaxes(blend.draws, 0, 1),
        "bayesian": outputs["bayesian"],
        "classic with MC dropout": outputs["dropout"],
    }
    return comparison.measure(galaxies.labels(rows), draws)


def _half(galaxies: Galaxies, folder: Path, seed: int, effort: float, half: int) -> Float:
    """Return the draws `[S, N, 37]` of a half's blend for representative galaxies of the report sample."""
    keras.backend.clear_session()
    chosen = half_of(galaxies, half)
    training = Training(chosen, folder / f"half-{half}", seed + (half + 1) * FIRST_HALF, effort, build.say)
    training.work.mkdir(exist_ok=True)
    seed_everything(training.seed)
    targets = targets_of(chosen)
    trunk = networks.network(training, "svr", targets, None)
    network = networks.network(training, "bayesian", targets, trunk)
    # The half's own network, instead of the teacher, fills in unknown labels.
    rows = networks.regression_rows(chosen)
    taught = np.zeros_like(chosen.cumulative)
    taught[rows] = networks.predict(network, chosen.cutouts(rows))
    arrays = {"bayesian": bayesian.export_weights(network), "svr": svr.export_weights(trunk), "classic": {}}
    arrays["svr"] |= networks.fit_regressions(training, arrays["svr"], taught)
    engine = Engine(
        _draft(training.seed, arrays),
        models=report.DEFAULT,
        draws=assemble.DRAWS,
        precision=assemble.PRECISION,
    )
    outputs, labels = {}, {}
    for sample in (CALIBRATE, REPORT):
        known = np.flatnonzero(chosen.representative & (chosen.sample == sample))
        outputs[sample], labels[sample] = engine.outputs(chosen.cutouts(known)), chosen.labels(known)
    calibration = calibrate.calibrate(labels[CALIBRATE], outputs[CALIBRATE], [report.DEFAULT])
    blend = report.summarize(calibration, outputs[REPORT], report.DEFAULT)
    return np.asarray(np.swapaxes(blend.draws, 0, 1), np.float32)


def _draft(seed: int, arrays: dict[str, Any]) -> Bundle:
    return Bundle("draft", {"seed": seed, "calibration": calibrate.neutral()}, arrays)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train and measure baselines of the shipped models.")
    parser.add_argument("--data", type=Path, required=True, help="folder of tables of labels with images")
    parser.add_argument("--output", type=Path, required=True, help="bundle of a finished training")
    parser.add_argument("--members", type=int, default=3, help="number of classic CNNs to train (3)")
    parser.add_argument("--halves", action="store_true", help="also train on two halves of the galaxies")
    parser.add_argument(
        "--effort", type=float, default=EFFORT, help=f"factor on the number of training steps ({EFFORT})"
    )
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    build.restart_with_allocator("training.baselines")
    try:
        run(
            options.data,
            options.output,
            members=options.members,
            halves=options.halves,
            effort=options.effort,
            seed=options.seed,
        )
    except (UsageError, FatalError) as error:
        print(f"baselines: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
