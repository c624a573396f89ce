"""Train one network: Adam on the labels' likelihood, cosine learning rate, fresh views at every step."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from gax_batch.errors import FatalError
from gax_batch.models import bayesian, classic, svr
from training import checkpoint
from training.augmentation import augment, half
from training.data import Galaxies
from training.losses import fact_loss, kl_weight, negative_log_likelihood
from training.recipe import Recipe, Stage

Rows = npt.NDArray[np.intp]
BUILDERS: dict[str, Callable[[int], Any]] = {
    "svr": svr.build,
    "bayesian": bayesian.build,
    "classic": classic.build,
}
REPORT_STEPS = 50
# Pooled features are hardly ever below -0.3 (measured: their first percentile is -0.24) and never below
# -1.4. Flipout's noise needs room below; dropout's noise grows with the lift, which it drops as well.
LIFTS = {"bayesian": 1.0, "classic": 0.3}
SAVE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Batches:
    """Which galaxies each step sees: a function of the seed and the step, so that a resume goes on.

    Attributes:
        voted: rows of galaxies with votes.
        facts: rows of galaxies of which only the class is known; may be none.
        seed: of the order.
    """

    voted: Rows
    facts: Rows
    seed: int

    def rows(self, step: int, recipe: Recipe) -> Rows:
        """`recipe.voted` rows with votes, then `recipe.facts` without (none if there are none)."""
        parts = [_pick(self.voted, step, recipe.voted, self.seed)]
        if len(self.facts):
            parts.append(_pick(self.facts, step, recipe.facts, self.seed + 1))
        return np.concatenate(parts)


def _pick(rows: Rows, step: int, count: int, seed: int) -> Rows:
    """Every row once per epoch, in another order each epoch."""
    positions = np.arange(step * count, (step + 1) * count)
    epochs, places = np.divmod(positions, len(rows))
    orders = {int(e): np.random.default_rng([seed, int(e)]).permutation(rows) for e in np.unique(epochs)}
    return np.array([orders[int(e)][p] for e, p in zip(epochs, places, strict=True)], np.intp)


def make_deterministic(seed: int, threads: int = 0) -> None:
    """Seed TensorFlow and make its operations reproducible; before anything else uses it."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.random.set_seed(seed)
    tf.config.experimental.enable_op_determinism()


def start_from(model: Any, trunk: Any) -> None:
    """Begin a network as the function that the CNN-SVR's network has become.

    The convolutions' shapes are the same in all three. The hidden layer, which the CNN-SVR lacks,
    begins as the identity, lifted by a constant that the ReLU lets through and the outputs take off
    again. For the Bayesian CNN these are the posterior's means: the empirical-Bayes start of Krishnan,
    Subedar & Tickoo 2020 (AAAI).
    """
    kernel, bias = trunk.get_layer("logits").get_weights()
    lift = LIFTS[model.name]
    identity = np.eye(len(kernel), dtype=np.float32)
    set_kernel(model.get_layer("hidden"), identity, np.full(len(kernel), lift, np.float32))
    set_kernel(model.get_layer("logits"), kernel, bias - lift * kernel.sum(axis=0))
    for index in range(3):
        place = f"block_{index}" if model.name == "bayesian" else f"convolution_{index}"
        set_kernel(model.get_layer(place), *trunk.get_layer(f"convolution_{index}").get_weights())
        name = f"normalization_{index}"
        model.get_layer(name).set_weights(trunk.get_layer(name).get_weights())


def set_kernel(layer: Any, kernel: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> None:
    """Put a kernel and bias into a layer; a Bayesian layer takes them as its posterior's means."""
    if hasattr(layer, "kernel_posterior"):
        layer.kernel_posterior.distribution.loc.assign(kernel)
        layer.trainable_weights[-1].assign(bias)
    else:
        layer.set_weights([kernel, bias])


def fit(
    model: Any,
    galaxies: Galaxies,
    batches: Batches,
    recipe: Recipe,
    *,
    state: Path | None = None,
    logs: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Train a model in place.

    Args:
        model: of `BUILDERS`; the Bayesian CNN for a recipe of deviations.
        galaxies: windows and labels.
        batches: which of them to train on.
        recipe: how.
        state: file to resume from, and to save to every minute. After a resume the order of the
            galaxies and their views are those of an uninterrupted training; the noise of Flipout and
            dropout is another.
        logs: folder for TensorBoard's scalars; none are written by default.
        say: called with lines of progress.

    Raises:
        FatalError: the loss is NaN or infinite.
    """
    optimizer = optimizer_of(recipe)
    variables = bayesian.deviations(model) if recipe.deviations else model.trainable_variables
    done = 0
    if state is not None and (saved := checkpoint.load(state)) is not None:
        done = checkpoint.restore(model, optimizer, variables, saved)
        say(f"resumed at step {done} of {recipe.steps}")
    flexible = any_size(model)
    examples = len(batches.voted) + len(batches.facts)
    clock = _Clock(done, recipe.steps, say, logs)
    first = 0
    for stage in recipe.stages:
        todo = range(max(first, done), first + stage.steps)
        first += stage.steps
        if not len(todo):
            continue
        step = _step(flexible, variables, optimizer, recipe, stage, examples)
        for number in todo:
            rows = batches.rows(number, recipe)
            labels = galaxies.labels
            values = step(
                galaxies.windows[rows],
                labels.fractions[rows],
                labels.reached[rows],
                labels.classes[rows],
                tf.constant([batches.seed, number]),
            )
            clock.tick(model.name, stage.side, number + 1, values)
            if state is not None and clock.save_is_due():
                checkpoint.save(state, checkpoint.model_state(model, optimizer, number + 1))


def any_size(model: Any) -> Any:
    """The same layers, weights included, for images of any size `[N, side, side, 3]`."""
    x = images = keras.Input((None, None, 3), name="images")
    for layer in model.layers[1:]:
        x = layer(x)
    return keras.Model(images, x, name=model.name)


def optimizer_of(recipe: Recipe) -> Any:
    """Adam with the recipe's schedule of learning rates, and gradients clipped at a norm of 20."""
    warm_up = max(1, recipe.steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 20,
        max(1, recipe.steps - warm_up),
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
    )
    return keras.optimizers.Adam(schedule, clipnorm=20.0)


def _step(
    model: Any, variables: Sequence[Any], optimizer: Any, recipe: Recipe, stage: Stage, examples: int
) -> Any:
    warm_up = recipe.steps // 3

    @tf.function  # type: ignore[untyped-decorator]
    def step(windows: Any, fractions: Any, reached: Any, classes: Any, seed: Any) -> Any:
        pixels = half(windows) if stage.side == 32 else windows
        images = augment(pixels, stage.side, seed, stage.field)
        votes = recipe.voted
        with tf.GradientTape() as tape:
            # The means, and so the statistics that they were trained with, stay.
            logits = model(images, training=not recipe.deviations)
            loss = tf.reduce_mean(negative_log_likelihood(logits[:votes], fractions[:votes], reached[:votes]))
            facts = tf.constant(0.0)
            if windows.shape[0] > votes:
                facts = tf.reduce_mean(fact_loss(logits[votes:], classes[votes:]))
            divergence = tf.add_n(model.losses) if model.losses else tf.constant(0.0)
            weight = kl_weight(optimizer.iterations, warm_up, examples, recipe.temperature)
            total = loss + recipe.fact_weight * facts + weight * divergence
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        return tf.stack([loss, facts, divergence])

    return step


def _event_writer(folder: Path) -> Any:
    """A writer of TensorBoard's events that needs no TensorBoard (version 2 of the interface does)."""
    with tf.Graph().as_default():
        return tf.compat.v1.summary.FileWriter(str(folder))


class _Clock:
    """Progress, the time left, and the stop on NaN."""

    def __init__(self, done: int, steps: int, say: Callable[[str], None], logs: Path | None) -> None:
        self._writer = _event_writer(logs) if logs is not None else None
        self._first, self._steps, self._say = done, steps, say
        self._started = self._saved = time.monotonic()
        self._values: list[npt.NDArray[np.float32]] = []

    def tick(self, name: str, side: int, step: int, values: Any) -> None:
        numbers = np.asarray(values)
        if not np.isfinite(numbers).all():
            raise FatalError(
                f"{name}: the loss is {numbers[0]} at step {step} of {self._steps}; the last good weights "
                "are kept. Try a learning rate half as large, or look at the labels of this training set"
            )
        self._values.append(numbers)
        if step % REPORT_STEPS == 0 or step == self._steps:
            votes, facts, divergence = np.mean(self._values, axis=0)
            self._values.clear()
            self._log(step, {"votes": votes, "facts": facts, "divergence": divergence})
            seconds = time.monotonic() - self._started
            left = seconds / (step - self._first) * (self._steps - step)
            self._say(
                f"{name} step {step}/{self._steps} at {side} px: votes {votes:.2f}, facts {facts:.3f}, "
                f"divergence {divergence:.0f}; {seconds:.0f} s, about {left:.0f} s left"
            )

    def _log(self, step: int, values: dict[str, Any]) -> None:
        if self._writer is not None:
            points = [tf.compat.v1.Summary.Value(tag=name, simple_value=v) for name, v in values.items()]
            self._writer.add_summary(tf.compat.v1.Summary(value=points), step)
            self._writer.flush()

    def save_is_due(self) -> bool:
        now = time.monotonic()
        if now - self._saved < SAVE_SECONDS:
            return False
        self._saved = now
        return True
