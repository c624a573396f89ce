"""Train one network: Adam on the votes' likelihood, cosine learning rate, fresh views every epoch."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from gax_batch.models import bayesian, classic, svr
from training.augmentation import augment
from training.data import Galaxies
from training.losses import kl_weight, negative_log_likelihood


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to train."""

    epochs: int
    learning_rate: float
    batch: int = 25
    temperature: float = 0.0
    """Weight of the divergence from the prior, per training example; see `losses.kl_weight`."""


CLASSIC = Recipe(epochs=45, learning_rate=2e-3)
SVR = Recipe(epochs=60, learning_rate=2e-3)
BAYESIAN = Recipe(epochs=45, learning_rate=1e-3, temperature=0.05)


def make_deterministic(seed: int) -> None:
    """Seed TensorFlow and make its operations reproducible; before anything else uses it."""
    tf.random.set_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train_classic(galaxies: Galaxies, seed: int, recipe: Recipe = CLASSIC) -> Any:
    """The trained classic CNN."""
    return _fit(classic.build(seed), galaxies, recipe, seed)


def train_svr(galaxies: Galaxies, seed: int, recipe: Recipe = SVR) -> Any:
    """The trained CNN whose pooled features feed the SVR."""
    return _fit(svr.build(seed + 100), galaxies, recipe, seed + 100)


def train_bayesian(galaxies: Galaxies, seed: int, start: Any, recipe: Recipe = BAYESIAN) -> Any:
    """The trained Bayesian CNN.

    Its convolutions' posterior means start at those of `start`, the trained CNN of `train_svr`, which
    has the same trunk (empirical-Bayes starting points, Krishnan, Subedar & Tickoo 2020, AAAI).
    """
    model = bayesian.build(seed + 200)
    for index in range(3):
        kernel, bias = start.get_layer(f"convolution_{index}").get_weights()
        layer = model.get_layer(f"block_{index}")
        layer.kernel_posterior.distribution.loc.assign(kernel)
        layer.trainable_weights[-1].assign(bias)
        normalization = f"normalization_{index}"
        model.get_layer(normalization).set_weights(start.get_layer(normalization).get_weights())
    return _fit(model, galaxies, recipe, seed + 200)


def _fit(model: Any, galaxies: Galaxies, recipe: Recipe, seed: int) -> Any:
    tf.random.set_seed(seed)
    order = np.random.default_rng(seed)
    per_epoch = len(galaxies) // recipe.batch
    steps = recipe.epochs * per_epoch
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 20,
        steps - per_epoch,
        warmup_target=recipe.learning_rate,
        warmup_steps=per_epoch,
    )
    optimizer = keras.optimizers.Adam(schedule, clipnorm=20.0)
    step = _step(model, optimizer, recipe, warm_up=steps // 3, examples=len(galaxies))
    for epoch in range(recipe.epochs):
        started = time.perf_counter()
        rows = order.permutation(len(galaxies))[: per_epoch * recipe.batch].reshape(per_epoch, recipe.batch)
        losses = [step(galaxies.windows[r], galaxies.fractions[r], galaxies.reached[r]) for r in rows]
        loss, divergence = np.mean(np.array(losses), axis=0)
        seconds = time.perf_counter() - started
        numbers = f"nll {loss:.2f}, kl {divergence:.0f}, {seconds:.1f} s"
        print(f"{model.name} epoch {epoch + 1}/{recipe.epochs}: {numbers}", flush=True)
    return model


def _step(model: Any, optimizer: Any, recipe: Recipe, *, warm_up: int, examples: int) -> Any:
    @tf.function  # type: ignore[untyped-decorator]
    def step(windows: Any, fractions: Any, reached: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(augment(windows), training=True)
            loss = tf.reduce_mean(negative_log_likelihood(logits, fractions, reached))
            divergence = tf.add_n(model.losses) if model.losses else tf.constant(0.0)
            weight = kl_weight(optimizer.iterations, warm_up, examples, recipe.temperature)
            total = loss + weight * divergence
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        return loss, divergence

    return step
