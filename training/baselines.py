"""What the networks are compared with: the mean, nearest neighbors, the literal classic CNN, an ensemble.

    python -m training.baselines --data FOLDER --work FOLDER --fold 0 --train ensemble --seed 7

trains, for one fold, `literal`, the literal classic CNN (37 sigmoids, mean squared error, from random
weights), or `ensemble`, the four other members of a deep ensemble (Lakshminarayanan, Pritzel & Blundell
2017, NeurIPS) that has the classic CNN as its first: each is trained as that one, by a seed of its own and
in `MEMBER_EFFORT` of the steps. As is usual where labels are few (Mustafa et al. 2020, arXiv:2010.06866),
all begin where the simulated galaxies left the trunk.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gax_batch.inference import Engine
from gax_batch.models import classic
from gax_batch.models.bundle import Bundle
from training import calibrate, chain, checkpoint, data, train
from training.augmentation import augment, half
from training.data import FOLDS, Galaxies
from training.recipe import LITERAL, MEMBER_EFFORT, Stage

Float = npt.NDArray[np.float32]
NEIGHBORS = 10
COMPONENTS = 64
BATCH = 64
MEMBERS = 5
# Further apart than the seeds that a chain derives from its own.
MEMBER_SEED = 1000
ENSEMBLE = "deep ensemble of five classic CNNs"


def predictions(galaxies: Galaxies, work: Path) -> dict[str, Float]:
    """Out-of-fold predictions `[N, 37]` of each baseline; NaN where a baseline was not trained."""
    folds, labels = galaxies.folds, galaxies.labels
    count = len(galaxies)
    names = ("mean of training", "nearest neighbors, pixels", "nearest neighbors, features")
    result = {name: np.full((count, 37), np.nan, np.float32) for name in names}
    truth = labels.cumulative
    pixels = _thumbnails(galaxies)
    for fold in range(FOLDS):
        rows, source = np.flatnonzero(folds == fold), np.flatnonzero((folds != fold) & labels.voted)
        result[names[0]][rows] = truth[source].mean(axis=0)
        result[names[1]][rows] = _neighbors(pixels, source, rows, truth)
        inputs = checkpoint.load(work / f"fold-{fold}" / "features.safetensors")
        if inputs is not None:
            result[names[2]][rows] = _neighbors(inputs["features"], source, rows, truth)
    result["literal classic CNN"] = _gather(galaxies, work, "literal")
    result[ENSEMBLE] = ensemble(galaxies, work).mean(axis=0)
    return {name: values for name, values in result.items() if np.isfinite(values).any()}


def ensemble(galaxies: Galaxies, work: Path) -> Float:
    """Out-of-fold predictions `[5, N, 37]` of the ensemble's members; NaN where they were not trained."""
    others = [_gather(galaxies, work, f"member-{k}") for k in range(1, MEMBERS)]
    return np.stack([_gather(galaxies, work, "predictions", "classic"), *others])


def _gather(galaxies: Galaxies, work: Path, name: str, key: str = "predictions") -> Float:
    result = np.full((len(galaxies), 37), np.nan, np.float32)
    for fold in range(FOLDS):
        saved = checkpoint.load(work / f"fold-{fold}" / f"{name}.safetensors")
        if saved is not None:
            result[galaxies.folds == fold] = saved[key]
    return result


def _thumbnails(galaxies: Galaxies) -> Float:
    """`[N, 768]`: cutouts averaged to 16x16 pixels."""
    parts = []
    for start in range(0, len(galaxies), 512):
        block = galaxies.cutouts(np.arange(start, min(start + 512, len(galaxies))))
        parts.append(block.reshape(len(block), 16, 4, 16, 4, 3).mean(axis=(2, 4)).reshape(len(block), -1))
    return np.concatenate(parts).astype(np.float32)


def _neighbors(
    inputs: Float, source: npt.NDArray[np.intp], rows: npt.NDArray[np.intp], truth: Float
) -> Float:
    """Mean of the nearest training galaxies' fractions, in the space of the main components."""
    mean = inputs[source].mean(axis=0)
    _, _, axes = np.linalg.svd(inputs[source] - mean, full_matrices=False)
    known, asked = ((inputs[r] - mean) @ axes[:COMPONENTS].T for r in (source, rows))
    distances = (asked**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2 * asked @ known.T
    nearest = np.argpartition(distances, NEIGHBORS, axis=1)[:, :NEIGHBORS]
    return np.asarray(truth[source][nearest].mean(axis=1), np.float32)


def train_literal(galaxies: Galaxies, fold: int, folder: Path, seed: int, effort: float) -> None:
    """Train the founding document's classic CNN on a fold's votes and predict what was held out."""
    path = folder / "literal.safetensors"
    if checkpoint.load(path) is not None:
        return
    labels, folds = galaxies.labels, galaxies.folds
    rows = np.flatnonzero((folds != fold) & labels.voted)
    model = classic.build(seed + 400)
    recipe = LITERAL.scaled(effort)
    optimizer = train.optimizer_of(recipe)
    batches = train.Batches(rows, np.empty(0, np.intp), seed + 400)
    truth, number = labels.cumulative, 0
    for stage in recipe.stages:
        step = _step(train.any_size(model), optimizer, stage)
        for _ in range(stage.steps):
            chosen = batches.rows(number, recipe)
            step(galaxies.windows[chosen], truth[chosen], tf.constant([batches.seed, number]))
            number += 1
    _predict(model, galaxies, fold, path)


def train_ensemble(galaxies: Galaxies, fold: int, folder: Path, seed: int, effort: float) -> None:
    """Train the members that are missing as the classic CNN is, and predict what was held out."""
    for k in range(1, MEMBERS):
        path = folder / f"member-{k}.safetensors"
        if checkpoint.load(path) is not None:
            continue
        work = folder / f"member-{k}"
        member = chain.Chain(galaxies, fold, work, seed + MEMBER_SEED * k, effort * MEMBER_EFFORT)
        work.mkdir(exist_ok=True)
        trunk = chain.pretrained(folder.parent, seed, effort)
        checkpoint.save(work / "pretrained.safetensors", chain.weights(trunk))
        weights = classic.export_weights(chain.networks(member, "classic")["classic"])
        bundle = Bundle("member", {"seed": seed, "calibration": calibrate.neutral()}, {"classic": weights})
        engine = Engine(bundle, models=("classic",), precision=chain.PRECISION, threads=1)
        outputs = engine.outputs(galaxies.cutouts(member.held_out_rows))
        checkpoint.save(path, {"predictions": outputs["classic"]})


TRAINED = {"literal": train_literal, "ensemble": train_ensemble}


def _predict(model: Any, galaxies: Galaxies, fold: int, path: Path) -> None:
    held_out = np.flatnonzero(galaxies.folds == fold)
    run = tf.function(lambda x: tf.sigmoid(model(tf.cast(x, tf.float32) / 255.0, training=False)))
    views = []
    for turn in range(4):
        images = np.rot90(galaxies.cutouts(held_out), turn, (1, 2))
        parts = [run(tf.constant(images[i : i + BATCH])).numpy() for i in range(0, len(images), BATCH)]
        views.append(np.concatenate(parts))
    checkpoint.save(path, {"predictions": np.mean(views, axis=0)})


def _step(model: Any, optimizer: Any, stage: Stage) -> Any:
    @tf.function  # type: ignore[untyped-decorator]
    def step(windows: Any, truth: Any, seed: Any) -> None:
        pixels = half(windows) if stage.side == 32 else windows
        with tf.GradientTape() as tape:
            predicted = tf.sigmoid(model(augment(pixels, stage.side, seed, stage.field), training=True))
            loss = tf.reduce_mean(tf.square(predicted - truth))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    return step


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the literal classic CNN or the ensemble of one fold.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--train", choices=TRAINED, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--effort", type=float, default=1.0)
    options = parser.parse_args()
    train.make_deterministic(options.seed, 1)
    galaxies = data.load(options.data, options.work, lambda _: None)
    folder = options.work / f"fold-{options.fold}"
    folder.mkdir(exist_ok=True)
    TRAINED[options.train](galaxies, options.fold, folder, options.seed, options.effort)


if __name__ == "__main__":
    main()
