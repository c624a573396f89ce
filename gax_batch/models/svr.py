"""PLACEHOLDER."""
from typing import Any
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from gax_batch.models import layers
from gax_batch.tree import N_ANSWERS


def build(seed: int = 0) -> Any:
    """The Keras model that is trained: 382,117 parameters, images `[N, 64, 64, 3]` to logits `[N, 37]`."""
    x = images = keras.Input((64, 64, 3), name="images")
    for index, filters in enumerate(layers.FILTERS):
        convolution = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed=seed + index),
            name=f"convolution_{index}",
        )
        x = layers.block(x, convolution, index)
    features = keras.layers.GlobalAveragePooling2D(name="features")(x)
    logits = keras.layers.Dense(
        N_ANSWERS, kernel_initializer=keras.initializers.GlorotNormal(seed=seed + 3), name="logits"
    )(features)
    return keras.Model(images, logits, name="svr")


def export_weights(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """The feature extractor's weights as named float32 arrays, batch normalization folded."""
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for index in range(len(layers.FILTERS)):
        kernel, bias = model.get_layer(f"convolution_{index}").get_weights()
        arrays |= {f"block_{index}/kernel": kernel, f"block_{index}/bias": bias}
        arrays |= layers.export_normalization(model, index)
    return arrays
