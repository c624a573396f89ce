"""Train a network: Adam on the labels' likelihood, cosine learning rate, new augmentation at every step.

The final weights are an exponential average over the steps (Polyak & Juditsky 1992, SIAM J. Control
Optim. 30, 838), statistics of batch normalization included.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from gax_batch.analysis.labels import NO_CLASS
from gax_batch.errors import FatalError
from gax_batch.gz2 import N_ANSWERS
from gax_batch.models import bayesian
from training import checkpoint
from training.augmentation import augment, half
from training.data import TRAIN, Galaxies
from training.losses import kl_weight
from training.recipe import Recipe, TrainingStage
from training.targets import Targets, label_loss

Rows = npt.NDArray[np.intp]
REPORT_STEPS = 250
SAVE_SECONDS = 60.0
CLIP_NORM = 10.0
WARM_UP_SHARE = 0.02
# Maximum ratio of times at which bfloat16 is used: a change of precision must save more than a tenth.
WORTH = 0.9


@dataclass(frozen=True, slots=True)
class Batches:
    """The galaxies of each step, a function of the seed and the step, so that a training can be resumed.

    Attributes:
        kinds: Rows of the galaxies of each kind of label.
        seed: Seed of the order.
    """

    kinds: tuple[Rows, ...]
    seed: int

    @classmethod
    def of(cls, galaxies: Galaxies, seed: int) -> "Batches":
        """Return the training galaxies by the kind of their labels.

        The kinds are: all of the challenge's fractions, some of them, Hart et al. 2016's, one of the clear
        classes, and none of the clear classes. Published classes are those of clear galaxies. They are five
        times as many as galaxies known to have none, although fewer than half of all galaxies are clear. A
        network that was trained on these numbers would predict clear classes for ambiguous galaxies.
        """
        train = galaxies.sample == TRAIN
        some, whole = galaxies.representative, galaxies.complete
        other = np.isfinite(galaxies.cumulative).any(axis=1) & ~some
        fact = train & ~some & ~other
        clear = (galaxies.classes >= 0) & (galaxies.classes != NO_CLASS)
        kinds = (train & whole, train & some & ~whole, train & other, fact & clear, fact & ~clear)
        return cls(tuple(np.flatnonzero(kind) for kind in kinds), seed)

    def rows(self, step: int, counts: Sequence[int]) -> Rows:
        """Return `counts[k]` rows of kind k, or none if the kind is empty."""
        parts = [
            _pick(kind, step, count, self.seed + number)
            for number, (kind, count) in enumerate(zip(self.kinds, counts, strict=True))
            if len(kind)
        ]
        return np.concatenate(parts)


def _pick(rows: Rows, step: int, count: int, seed: int) -> Rows:
    """Return every row once per epoch, in another order each epoch."""
    positions = np.arange(step * count, (step + 1) * count)
    epochs, places = np.divmod(positions, len(rows))
    orders = {int(e): np.random.default_rng([seed, int(e)]).permutation(rows) for e in np.unique(epochs)}
    return np.array([orders[int(e)][p] for e, p in zip(epochs, places, strict=True)], np.intp)


def seed_everything(seed: int) -> None:
    """Seed TensorFlow, before its first use.

    Its operations may still add in another order: deterministic operations use one core instead of two, and
    two trainings differ only in their last bits.
    """
    # Keras draws the seeds of initializers from Python's generator.
    keras.utils.set_random_seed(seed)


def fit(
    model: Any,
    galaxies: Galaxies,
    targets: Targets,
    batches: Batches,
    recipe: Recipe,
    *,
    fine: bool = False,
    state: Path | None = None,
    logs: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Train a model in place.

    Args:
        model: Images `[N, side, side, 3]` in [0, 1] to logits `[N, 37]`. Its layer `features` is the input of
            the outputs of the weighted votes, which exist only during training.
        galaxies: Galaxies with their windows.
        targets: Targets of the same galaxies, see `training.targets.targets_of`.
        batches: Galaxies of each step.
        recipe: Stages, learning rate and weights of the training.
        fine: Whether to use the windows of twice the resolution.
        state: File from which to resume, saved every minute. After a resume, the order of the galaxies and
            their views are those of an uninterrupted training; the noise of Flipout and dropout differs.
        logs: Folder for TensorBoard's scalars; None to write none.
        say: Called with lines of progress.

    Raises:
        FatalError: The loss is NaN or infinite.
    """
    training = _for_training(model)
    variables = bayesian.deviations(model) if recipe.deviations else training.trainable_variables
    optimizer = optimizer_of(recipe)
    averages = [tf.Variable(v, trainable=False) for v in training.weights]
    done = 0
    if state is not None and (saved := checkpoint.load(state)) is not None:
        done = checkpoint.restore(training, optimizer, variables, averages, saved)
        say(f"resumed at step {done} of {recipe.steps}")
    examples = sum(len(kind) for kind in batches.kinds)
    windows = galaxies.fine if fine else galaxies.windows
    clock = _Clock(model.name, done, recipe.steps, say, logs)
    first = 0
    for stage in recipe.stages:
        todo = range(max(first, done), first + stage.steps)
        first += stage.steps
        step = _step(training, variables, averages, optimizer, recipe, stage, examples)
        for number in todo:
            rows = batches.rows(number, recipe.counts)
            batch = {name: values[rows] for name, values in targets.items()}
            values = step(windows[rows], batch, tf.constant([batches.seed, number]))
            clock.tick(stage.side, number + 1, values)
            if state is not None and clock.save_is_due():
                checkpoint.save(state, checkpoint.model_state(training, optimizer, averages, number + 1))
    for weight, average in zip(training.weights, averages, strict=True):
        weight.assign(average)


def settle_statistics(model: Any, images: npt.NDArray[np.uint8], batch: int = 64) -> None:
    """Set the statistics of batch normalization to those of images as in inference.

    Augmented images are blurred by their resampling, and smaller ones look different. The network of averaged
    weights is also not the one from which the running statistics come (Izmailov et al. 2018, UAI, section
    3.2).

    Args:
        model: Trained model, changed in place.
        images: Images, uint8 `[N, side, side, 3]`. Only whole batches are used.
        batch: Images in a batch.
    """
    normalizations = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for number in range(len(images) // batch):
        for layer in normalizations:
            # The mean of all batches so far: the first one replaces the old statistics.
            layer.momentum = number / (number + 1)
        part = tf.cast(images[number * batch : (number + 1) * batch], tf.float32) / 255.0
        model(part, training=True)


def bfloat16_is_faster(repeats: int = 3) -> bool:
    """Time a convolution of the trunk and its gradient in both precisions on this machine."""
    seconds = {dtype: min(_seconds(dtype) for _ in range(repeats)) for dtype in (tf.float32, tf.bfloat16)}
    return bool(seconds[tf.bfloat16] < WORTH * seconds[tf.float32])


def _seconds(dtype: Any) -> float:
    images = tf.zeros((64, 32, 32, 64), dtype)
    kernel = tf.Variable(tf.zeros((3, 3, 64, 128), dtype))

    @tf.function  # type: ignore[untyped-decorator]
    def run() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME"))
        return tape.gradient(loss, kernel)

    run()
    started = time.perf_counter()
    for _ in range(5):
        run().numpy()
    return time.perf_counter() - started


def _for_training(model: Any) -> Any:
    """Return the same layers with weights, for any image size, with outputs of the weighted votes."""
    if model.input_shape[1] is None:
        images, features, logits = model.input, model.get_layer("features").output, model.output
    else:
        features = logits = images = keras.Input((None, None, 3), name="images")
        for layer in model.layers[1:]:
            logits = layer(logits)
            features = logits if layer.name == "features" else features
    weighted = keras.layers.Dense(N_ANSWERS, dtype="float32", name="weighted")(features)
    return keras.Model(images, [logits, weighted], name=model.name)


def optimizer_of(recipe: Recipe) -> Any:
    """Return Adam with the recipe's learning rates and gradients clipped at a norm of 10."""
    warm_up = max(1, round(recipe.steps * WARM_UP_SHARE))
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 20,
        max(1, recipe.steps - warm_up),
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
    )
    return keras.optimizers.Adam(schedule, clipnorm=CLIP_NORM)


def _step(
    model: Any,
    variables: Sequence[Any],
    averages: Sequence[Any],
    optimizer: Any,
    recipe: Recipe,
    stage: TrainingStage,
    examples: int,
) -> Any:
    warm_up = recipe.steps // 3
    kernels = [v for v in variables if "kernel" in v.name] if recipe.decay else []

    @tf.function  # type: ignore[untyped-decorator]
    def step(windows: Any, batch: Mapping[str, Any], seed: Any) -> Any:
        images = augment(half(windows) if stage.halved else windows, stage.side, seed, stage.field)
        with tf.GradientTape() as tape:
            # When only deviations are trained, keep the statistics with which the means were trained.
            logits, weighted = model(images, training=not recipe.deviations)
            loss = tf.reduce_mean(label_loss(logits, weighted, batch, recipe.teacher_share))
            divergence = tf.add_n(model.losses) if model.losses else tf.constant(0.0)
            weight = kl_weight(optimizer.iterations, warm_up, examples, recipe.temperature)
            total = loss + weight * divergence
            if kernels:
                total += recipe.decay * tf.add_n([tf.reduce_sum(tf.square(k)) for k in kernels])
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        done = tf.cast(optimizer.iterations, tf.float32)
        keep = tf.minimum(recipe.averaging, done / (done + 20))
        for average, value in zip(averages, model.weights, strict=True):
            average.assign(keep * average + (1 - keep) * value)
        return tf.stack([loss, divergence])

    return step


def _event_writer(folder: Path) -> Any:
    """Return a writer of TensorBoard's events that does not need TensorBoard (unlike version 2)."""
    with tf.Graph().as_default():
        return tf.compat.v1.summary.FileWriter(str(folder))


class _Clock:
    """Report progress and the remaining time, and stop on NaN."""

    def __init__(
        self, name: str, done: int, steps: int, say: Callable[[str], None], logs: Path | None
    ) -> None:
        self._writer = _event_writer(logs) if logs is not None else None
        self._name, self._first, self._steps, self._say = name, done, steps, say
        self._started = self._saved = time.monotonic()
        self._values: list[npt.NDArray[np.float32]] = []

    def tick(self, side: int, step: int, values: Any) -> None:
        numbers = np.asarray(values)
        if not np.isfinite(numbers).all():
            raise FatalError(
                f"{self._name}: the loss is {numbers[0]} at step {step} of {self._steps}; the last good "
                "weights are kept. Try half the learning rate, or check the labels of this training "
                "set"
            )
        self._values.append(numbers)
        if step % REPORT_STEPS == 0 or step == self._steps:
            loss, divergence = np.mean(self._values, axis=0)
            self._values.clear()
            self._log(step, {"loss": loss, "divergence": divergence})
            seconds = time.monotonic() - self._started
            left = seconds / (step - self._first) * (self._steps - step)
            self._say(
                f"{self._name} step {step}/{self._steps} at {side} px: loss {loss:.3f}, "
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
