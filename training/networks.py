"""Train the teacher, the CNN-SVR from its predictions, and the two CNNs that start from the CNN-SVR's trunk.

Every finished step leaves a file in the work folder. A training that is started again continues after the
last of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from gax_batch.analysis.labels import CLEAR_CLASSES, NO_CLASS, clear_class
from gax_batch.models import bayesian, classic, svr
from gax_batch.models.layers import cumulative_probabilities
from training import checkpoint, dense, regression, teacher, train
from training.checkpoint import Arrays
from training.data import CALIBRATE, TRAIN, Galaxies
from training.images import FINE_SIDE
from training.recipe import DENSE, RECIPES, DenseRecipe, Recipe
from training.targets import Targets, targets_of

Float = npt.NDArray[np.float32]
Taught = TypeVar("Taught", Recipe, DenseRecipe)
BUILDERS: dict[str, Callable[[int], Any]] = {
    "svr": svr.build,
    "bayesian": bayesian.build,
    "classic": classic.build,
}
SEEDS = {"teacher": 0, "svr": 100, "bayesian": 200, "classic": 300}
# Pooled features are hardly ever below -0.3 (measured: their first percentile is -0.24) and never below
# -1.4. Flipout's noise needs a margin below. Dropout's noise grows with the lift, which is dropped too.
LIFTS = {"bayesian": 1.0, "classic": 0.3}
# Number of images for the statistics of batch normalization.
SETTLING = 4096


@dataclass(frozen=True, slots=True)
class Training:
    """The data, files and length of a training.

    Attributes:
        galaxies: All galaxies. Only those of the sample `TRAIN` are used to fit.
        work: Folder of the files.
        seed: Seed of the whole training.
        effort: Factor on the number of steps of every recipe.
        say: Called with lines of progress.
    """

    galaxies: Galaxies
    work: Path
    seed: int
    effort: float = 1.0
    say: Callable[[str], None] = print

    def batches(self, name: str) -> train.Batches:
        """Return the order in which a network sees the training galaxies."""
        return train.Batches.of(self.galaxies, self.seed + SEEDS[name])

    def images(self, fine: bool) -> npt.NDArray[np.uint8]:
        """Return images of random training galaxies without augmentation."""
        rows = self.galaxies.rows(TRAIN)
        chosen = np.sort(np.random.default_rng(self.seed).permutation(rows)[:SETTLING])
        if not fine:
            return self.galaxies.cutouts(chosen)
        margin = (FINE_SIDE - teacher.SIDE) // 2
        inner = slice(margin, margin + teacher.SIDE)
        return self.galaxies.fine[chosen, inner, inner]


def run(training: Training) -> None:
    """Train everything in a bundle. Finished steps are skipped."""
    training.work.mkdir(parents=True, exist_ok=True)
    taught = _teach(training)
    targets = targets_of(training.galaxies, taught)
    trunk = network(training, "svr", targets, None)
    networks = {"svr": trunk} | {n: network(training, n, targets, trunk) for n in ("bayesian", "classic")}
    arrays: dict[str, Arrays] = {
        "bayesian": bayesian.export_weights(networks["bayesian"]),
        "classic": classic.export_weights(networks["classic"]),
        "svr": svr.export_weights(networks["svr"]),
    }
    arrays["svr"] |= fit_regressions(training, arrays["svr"], taught)
    for name, values in arrays.items():
        checkpoint.save(training.work / f"export-{name}.safetensors", values)


def exported(work: Path) -> dict[str, Arrays] | None:
    """Return the arrays of each model that `run` has written, or None."""
    found = {name: checkpoint.load(work / f"export-{name}.safetensors") for name in BUILDERS}
    return (
        {name: arrays for name, arrays in found.items() if arrays is not None}
        if all(found.values())
        else None
    )


def _teach(training: Training) -> Float:
    """Return the teacher's cumulative fractions of all galaxies."""
    path = training.work / "teacher-predictions.safetensors"
    if (saved := checkpoint.load(path)) is not None:
        return np.asarray(saved["predictions"], np.float32)
    model = teacher.build()
    weights = training.work / "teacher.safetensors"
    if (trained := checkpoint.load(weights)) is not None:
        checkpoint.set_weights(model, trained)
    else:
        teacher.load_pretrained(model)
        _fit(training, model, "teacher", targets_of(training.galaxies), fine=True)
        checkpoint.save(weights, checkpoint.weights(model))
    training.say("the teacher predicts all galaxies")
    predictions = teacher.predict(model, training.galaxies, np.arange(len(training.galaxies)))
    checkpoint.save(path, {"predictions": predictions})
    _report_errors(training, "teacher", predictions[training.galaxies.rows(CALIBRATE)])
    return predictions


def network(training: Training, name: str, targets: Targets, trunk: Any) -> Any:
    """Train one network, unless it is finished. Without a teacher's targets it learns only from labels.

    Args:
        training: The data and files of the training.
        name: `svr`, `bayesian` or `classic`.
        targets: Targets of all galaxies.
        trunk: The trained network of the CNN-SVR, from which the other two start.
    """
    path = training.work / f"{name}.safetensors"
    model = BUILDERS[name](training.seed + SEEDS[name])
    if (saved := checkpoint.load(path)) is not None:
        checkpoint.set_weights(model, saved)
        return model
    if trunk is not None:
        start_from(model, trunk)
    if name in RECIPES:
        model = _fit(training, model, name, targets)
    elif name == "classic":
        train.settle_statistics(model, training.images(fine=False))
    if name in DENSE:
        rows = np.arange(len(training.galaxies))
        views = dense.features_of(model, training.galaxies.cutouts(rows))
        recipe = _learn_from(DENSE[name].scaled(training.effort), targets)
        dense.fit(model, views, targets, training.batches(name), recipe, training.say)
    checkpoint.save(path, checkpoint.weights(model))
    _report_errors(
        training, name, predict(model, training.galaxies.cutouts(training.galaxies.rows(CALIBRATE)))
    )
    return model


def predict(model: Any, images: npt.NDArray[np.uint8], batch: int = 64) -> Float:
    """Return mean cumulative fractions over 4 rotations `[N, 37]`. A Bayesian network adds its noise."""
    run = tf.function(lambda x: cumulative_probabilities(model(tf.cast(x, tf.float32) / 255.0)))
    padded = np.concatenate([images, np.zeros((-len(images) % batch, *images.shape[1:]), np.uint8)])
    turns = [np.ascontiguousarray(np.rot90(padded, turn, (1, 2))) for turn in range(4)]
    parts = [
        np.mean([run(turn[i : i + batch]).numpy() for turn in turns], axis=0)
        for i in range(0, len(padded), batch)
    ]
    return np.concatenate(parts)[: len(images)]


def _report_errors(training: Training, name: str, predicted: Float) -> None:
    """Report the errors of a network on the galaxies of the calibration sample."""
    labels = training.galaxies.labels(training.galaxies.rows(CALIBRATE))
    complete = np.flatnonzero(labels.complete)
    clear = np.flatnonzero((labels.classes >= 0) & (labels.classes < NO_CLASS))
    error = float(np.sqrt(np.mean(np.square(predicted[complete] - labels.cumulative[complete]))))
    right = clear_class(predicted[clear]) == labels.classes[clear]
    edge = labels.classes[clear] == CLEAR_CLASSES.index("edge_on")
    training.say(
        f"{name}: RMSE {error:.4f} of {len(complete)} galaxies with 37 fractions, {right.mean():.1%} of "
        f"{len(clear)} clear classes, {right[edge].mean():.1%} of edge-on disks (calibration sample)"
    )


def _learn_from(recipe: Taught, targets: Targets) -> Taught:
    return recipe if "teacher" in targets else replace(recipe, teacher_share=0.0)


def _fit(training: Training, model: Any, name: str, targets: Targets, fine: bool = False) -> Any:
    recipe = _learn_from(RECIPES[name].scaled(training.effort), targets)
    state = training.work / f"{name}.state"
    policy = "mixed_bfloat16" if recipe.mixed and train.bfloat16_is_faster() else "float32"
    mixed = model
    if policy != "float32":
        keras.mixed_precision.set_global_policy(policy)
        mixed = BUILDERS[name](training.seed + SEEDS[name])
        keras.mixed_precision.set_global_policy("float32")
        mixed.set_weights(model.get_weights())
    train.fit(
        mixed,
        training.galaxies,
        targets,
        training.batches(name),
        recipe,
        fine=fine,
        state=state,
        logs=training.work / "logs" / name,
        say=training.say,
    )
    model.set_weights(mixed.get_weights())
    if not recipe.deviations:
        train.settle_statistics(model, training.images(fine))
    state.unlink(missing_ok=True)
    return model


def fit_regressions(training: Training, arrays: Arrays, taught: Float) -> Arrays:
    """Fit the regressions, unless that is finished. `taught` is used only for `regression_rows`."""
    path = training.work / "regressions.safetensors"
    if (saved := checkpoint.load(path)) is None:
        galaxies = training.galaxies
        rows = regression_rows(galaxies)
        held_out = np.flatnonzero((galaxies.sample == CALIBRATE) & galaxies.representative)
        saved, record = regression.fit(
            regression.features(arrays, galaxies.cutouts(rows)),
            regression.complete(galaxies.cumulative[rows], taught[rows]),
            (regression.features(arrays, galaxies.cutouts(held_out)), galaxies.cumulative[held_out]),
            training.say,
        )
        saved |= {f"record/{key}": np.array([value]) for key, value in record.items()}
        checkpoint.save(path, saved)
    return {name: values for name, values in saved.items() if name.startswith("svr/")}


def regression_rows(galaxies: Galaxies) -> npt.NDArray[np.intp]:
    """Return the training galaxies on which the regressions are fitted."""
    rows = galaxies.rows(TRAIN)
    return rows[regression.choose_rows(galaxies.representative[rows])]


def start_from(model: Any, trunk: Any) -> None:
    """Initialize a network as the same function as the trained network of the CNN-SVR.

    The convolutions' shapes are the same in all three. The hidden layer, which the CNN-SVR lacks, is
    initialized to the identity plus a constant, so that the ReLU does not clip. The outputs subtract the
    constant. For the Bayesian CNN these are the posterior's means: the empirical-Bayes initialization of
    Krishnan, Subedar & Tickoo 2020 (AAAI).
    """
    kernel, bias = trunk.get_layer("logits").get_weights()
    lift = LIFTS[model.name]
    identity = np.eye(len(kernel), dtype=np.float32)
    _set_kernel(model.get_layer("hidden"), identity, np.full(len(kernel), lift, np.float32))
    _set_kernel(model.get_layer("logits"), kernel, bias - lift * kernel.sum(axis=0))
    for index in range(3):
        place = f"block_{index}" if model.name == "bayesian" else f"convolution_{index}"
        _set_kernel(model.get_layer(place), *trunk.get_layer(f"convolution_{index}").get_weights())
        name = f"normalization_{index}"
        model.get_layer(name).set_weights(trunk.get_layer(name).get_weights())


def _set_kernel(layer: Any, kernel: Float, bias: Float) -> None:
    """Set a layer's kernel and bias. For a Bayesian layer they become its posterior's means."""
    if hasattr(layer, "kernel_posterior"):
        layer.kernel_posterior.distribution.loc.assign(kernel)
        layer.trainable_weights[-1].assign(bias)
    else:
        layer.set_weights([kernel, bias])
