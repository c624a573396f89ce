"""The CNN-SVR: the 256 pooled features of a CNN, and an RBF support vector regression of each answer.

Cortes & Vapnik 1995 (Machine Learning 20, 273); Drucker et al. 1996 (NIPS 9). The 37 regressions share one
kernel width, and therefore the distances to the union of their support vectors: one matrix of distances, one
exponential and one matrix product suffice for any number of answers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.gz2 import N_ANSWERS
from gax_batch.models import layers
from gax_batch.models.runtime import tf

# A kernel value above this belongs to the galaxy itself, which was in the training set. It must not count as
# a similar galaxy.
ITSELF = 0.999


def build(seed: int = 0) -> Any:
    """Return the Keras model for training: 382,117 parameters, `[N, 64, 64, 3]` to logits `[N, 37]`."""
    import tf_keras as keras

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
    features = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    logits = keras.layers.Dense(
        N_ANSWERS,
        dtype="float32",
        kernel_initializer=keras.initializers.GlorotNormal(seed=seed + 3),
        name="logits",
    )(features)
    return keras.Model(images, logits, name="svr")


def export_weights(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Return the feature extractor's weights as float32 arrays, with batch normalization folded."""
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for index in range(len(layers.FILTERS)):
        kernel, bias = model.get_layer(f"convolution_{index}").get_weights()
        arrays |= {f"block_{index}/kernel": kernel, f"block_{index}/bias": bias}
        arrays |= layers.export_normalization(model, index)
    return arrays


class Regressions:
    """All regressions of `training.regression.fit`. Call it inside a `tf.function`.

    The kernel's exponent is `x.s - |x|**2 / 2 - |s|**2 / 2` of features and support vectors that are
    scaled by the root of `2 gamma`. Terms that depend only on the support vectors are computed once.
    """

    def __init__(self, arrays: layers.Arrays) -> None:
        scale = np.sqrt(2 * np.float64(arrays["svr/gamma"][0]))
        self._mean = tf.constant(arrays["svr/mean"])
        self._scale = tf.constant(scale / arrays["svr/deviation"], tf.float32)
        support = scale * arrays["svr/support"].astype(np.float64)
        self._support = tf.constant(support, tf.float32)
        self._halves = tf.constant(np.square(support).sum(axis=1)[:, None] / 2, tf.float32)
        # The regressions, followed by half the differences of those of complementary halves.
        dual = np.concatenate([arrays["svr/dual"][None], arrays["svr/half_dual"]])
        intercept = np.concatenate([arrays["svr/intercept"][None], arrays["svr/half_intercept"]])
        self._dual = tf.constant(np.moveaxis(dual, 1, 2).reshape(-1, len(support)), tf.float64)
        self._intercept = tf.constant(intercept.reshape(-1, 1), tf.float64)

    def __call__(self, features: Any) -> tuple[Any, Any]:
        """Predict raw fractions.

        Args:
            features: Pooled features, float32 `[N, 256]`, not standardized.

        Returns:
            Raw fractions, float32 `[1 + P, N, 37]`: the regressions, then their P deviations; and the largest
            kernel value to any support vector that is not the galaxy itself, float32 `[N]`.
        """
        x = (features - self._mean) * self._scale
        # The support vectors are the left factor. As the right one they would be packed for each micro-batch.
        products = tf.matmul(self._support, x, transpose_b=True)
        halves = self._halves + tf.reduce_sum(x * x, axis=1) / 2
        kernel = tf.exp(tf.minimum(products - halves, 0.0))
        # Thousands of large terms cancel: in float32 their sum would be wrong by up to 1e-4.
        sums = tf.matmul(self._dual, tf.cast(kernel, tf.float64)) + self._intercept
        fractions = tf.transpose(tf.reshape(sums, (-1, N_ANSWERS, x.shape[0])), (0, 2, 1))
        closeness = tf.reduce_max(tf.where(kernel < ITSELF, kernel, 0.0), axis=0)
        return tf.cast(fractions, tf.float32), closeness


class Features:
    """The feature extractor for inference. Call it inside a `tf.function` with one static shape."""

    def __init__(self, arrays: layers.Arrays, dtype: Any, *, parallel: int = 1) -> None:
        self._parallel = parallel
        self._arrays = {
            name: tf.constant(value) for name, value in arrays.items() if name.startswith("block_")
        }
        self._kernels = [
            tf.cast(self._arrays[f"block_{i}/kernel"], dtype) for i in range(len(layers.FILTERS))
        ]

    def __call__(self, images: Any) -> Any:
        """Return pooled features of images `[N, 64, 64, 3]`, float32 `[N, 256]`, mean over 4 rotations."""
        return layers.over_rotations(
            images,
            lambda view: layers.trunk(view, self._kernels, self._arrays, "SAME"),
            self._parallel,
        )


class Predictor:
    """Network and regressions for inference. Call it inside a `tf.function` with one static shape."""

    def __init__(self, arrays: layers.Arrays, dtype: Any, *, parallel: int = 1) -> None:
        self._features = Features(arrays, dtype, parallel=parallel)
        self._regressions = Regressions(arrays)

    def __call__(self, images: Any) -> tuple[Any, Any]:
        """Return raw regressions `[1 + P, N, 37]` and largest kernel values `[N]`, see `Regressions`."""
        return self._regressions(self._features(images))
