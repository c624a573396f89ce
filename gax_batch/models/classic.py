"""The classic CNN: `valid` convolutions, one hidden layer, point predictions.

Rotation averaging after Dieleman, Willett & Dambre 2015 (MNRAS 450, 1441).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.gz2 import N_ANSWERS
from gax_batch.models import layers
from gax_batch.models.runtime import tf

DROPOUT = 0.5


def build(seed: int = 0) -> Any:
    """Return the Keras model for training: 447,909 parameters, `[N, 64, 64, 3]` to logits `[N, 37]`."""
    import tf_keras as keras

    x = images = keras.Input((64, 64, 3), name="images")
    for index, filters in enumerate(layers.FILTERS):
        convolution = keras.layers.Conv2D(
            filters,
            3,
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed=seed + index),
            name=f"convolution_{index}",
        )
        x = layers.block(x, convolution, index)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    x = keras.layers.Dense(
        256,
        activation="relu",
        dtype="float32",
        kernel_initializer=keras.initializers.HeNormal(seed=seed + 3),
        name="hidden",
    )(x)
    x = keras.layers.Dropout(DROPOUT, seed=seed + 4, dtype="float32", name="dropout")(x)
    logits = keras.layers.Dense(
        N_ANSWERS,
        dtype="float32",
        kernel_initializer=keras.initializers.GlorotNormal(seed=seed + 5),
        name="logits",
    )(x)
    return keras.Model(images, logits, name="classic")


def export_weights(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Return the trained weights as float32 arrays, with batch normalization folded into scale and shift."""
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for index in range(len(layers.FILTERS)):
        kernel, bias = model.get_layer(f"convolution_{index}").get_weights()
        arrays |= {f"block_{index}/kernel": kernel, f"block_{index}/bias": bias}
        arrays |= layers.export_normalization(model, index)
    for name in ("hidden", "logits"):
        kernel, bias = model.get_layer(name).get_weights()
        arrays |= {f"{name}/kernel": kernel, f"{name}/bias": bias}
    return arrays


class Predictor:
    """The network for inference. Call it inside a `tf.function` with one static shape."""

    def __init__(self, arrays: layers.Arrays, dtype: Any, *, parallel: int = 1) -> None:
        self._parallel = parallel
        self._arrays = {name: tf.constant(value) for name, value in arrays.items()}
        self._kernels = [
            tf.cast(self._arrays[f"block_{i}/kernel"], dtype) for i in range(len(layers.FILTERS))
        ]

    def __call__(self, images: Any) -> Any:
        """Return probabilities, float32 `[N, 37]`, the mean over 4 rotations of images `[N, 64, 64, 3]`."""
        return layers.over_rotations(images, self._one, self._parallel)

    def _one(self, images: Any) -> Any:
        weights = self._arrays
        x = layers.trunk(images, self._kernels, weights, "VALID")
        x = tf.nn.relu(x @ weights["hidden/kernel"] + weights["hidden/bias"])
        return layers.cumulative_probabilities(x @ weights["logits/kernel"] + weights["logits/bias"])
