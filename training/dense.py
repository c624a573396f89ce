"""Train the two dense layers of the Bayesian and the classic CNN on features of their trunk.

The trunk is fixed and its features are computed once, so that thousands of steps take seconds. A posterior
needs them: after fewer steps, its deviations are still near their initial values.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from gax_batch.errors import FatalError
from training.recipe import DenseRecipe
from training.targets import Targets, label_loss
from training.train import CLIP_NORM, Batches

Float = npt.NDArray[np.float32]
REPORT_STEPS = 1000
VIEWS = 2


def fit(
    model: Any,
    views: Float,
    targets: Targets,
    batches: Batches,
    recipe: DenseRecipe,
    say: Callable[[str], None] = print,
) -> None:
    """Train the layers `hidden` and `logits` in place, with Adam and a cosine learning rate.

    The loss is the mean over galaxies of `training.targets.label_loss`, plus the divergence of a Bayesian
    layer from its prior per galaxy, plus the squares of the other kernels.

    Args:
        model: Model of `gax_batch.models.bayesian` or `classic`.
        views: Output of the layer `features` for each galaxy under several views, float32 `[V, N, 256]` (see
            `features_of`). Each step uses one of them.
        targets: Targets of the same galaxies.
        batches: Galaxies of each step.
        recipe: Steps, learning rate and weights of the training.
        say: Called with lines of progress.

    Raises:
        FatalError: The loss is NaN or infinite.
    """
    tf.random.set_seed(batches.seed)
    inner = _dense_layers(model)
    schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, recipe.steps)
    optimizer = keras.optimizers.Adam(schedule, clipnorm=CLIP_NORM)
    step = _step(inner, optimizer, recipe, sum(len(kind) for kind in batches.kinds))
    rng = np.random.default_rng(batches.seed)
    started = time.monotonic()
    for number in range(1, recipe.steps + 1):
        rows = np.concatenate(
            [rng.choice(kind, n) for kind, n in zip(batches.kinds, recipe.counts, strict=True) if len(kind)]
        )
        batch = {name: values[rows] for name, values in targets.items()}
        values = step(views[rng.integers(0, len(views), len(rows)), rows], batch).numpy()
        if not np.isfinite(values).all():
            raise FatalError(
                f"{model.name}: the dense layers' loss is {values[0]} at step {number} of {recipe.steps}. "
                "Try half the learning rate, or check the labels of this training set"
            )
        if number % REPORT_STEPS == 0 or number == recipe.steps:
            say(
                f"{model.name} dense step {number}/{recipe.steps}: loss {values[0]:.3f}, divergence "
                f"{values[1]:.0f}; {time.monotonic() - started:.0f} s"
            )


def features_of(model: Any, images: npt.NDArray[np.uint8], *, batch: int = 64) -> Float:
    """Return the features `[2, N, 256]` of a trunk for each image unchanged and rotated by 90 degrees.

    A Bayesian layer draws new weights for each batch, so that the views also contain its spread.
    """
    inner = keras.Model(model.input, model.get_layer("features").output)
    run = tf.function(lambda x: inner(tf.cast(x, tf.float32) / 255.0, training=False))
    views = np.empty((VIEWS, len(images), inner.output.shape[-1]), np.float32)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
        for turn in range(VIEWS):
            turned = np.ascontiguousarray(np.rot90(padded, turn, axes=(1, 2)))
            views[turn, start : start + len(part)] = run(turned).numpy()[: len(part)]
    return views


def _dense_layers(model: Any) -> Any:
    """Return the layers behind the trunk, weights included, as a model of its features."""
    names = [layer.name for layer in model.layers]
    x = features = keras.Input(model.get_layer("features").output.shape[1:])
    for layer in model.layers[names.index("features") + 1 :]:
        x = layer(x)
    return keras.Model(features, x)


def _step(model: Any, optimizer: Any, recipe: DenseRecipe, examples: int) -> Any:
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]

    @tf.function  # type: ignore[untyped-decorator]
    def step(features: Any, batch: Mapping[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            logits = model(features, training=True)
            loss = tf.reduce_mean(label_loss(logits, None, batch, recipe.teacher_share))
            divergence = tf.add_n(model.losses) if model.losses else tf.constant(0.0)
            total = loss + recipe.temperature / examples * divergence
            if recipe.decay:
                total += recipe.decay * tf.add_n([tf.reduce_sum(tf.square(k)) for k in kernels])
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        return tf.stack([loss, divergence])

    return step
