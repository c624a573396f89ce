"""The CNN-SVR: a CNN's 256 pooled features, and an RBF support vector regression of each answer on them.

Cortes & Vapnik 1995 (Machine Learning 20, 273); Drucker et al. 1996 (NIPS 9). The 37 regressions share
one kernel width, and so the distances to the union of their support vectors: one matrix of distances,
one exponential, one matrix product, whatever the number of answers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.models import layers
from gax_batch.models.runtime import tf
from gax_batch.tree import N_ANSWERS


def build(seed: int = 0) -> Any:
    """The Keras model that is trained: 382,117 parameters, images `[N, 64, 64, 3]` to logits `[N, 37]`."""
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


def export_regressions(
    regressions: Sequence[Any],
    training: npt.NDArray[np.float32],
    *,
    mean: npt.NDArray[np.float32],
    deviation: npt.NDArray[np.float32],
) -> dict[str, npt.NDArray[np.float32]]:
    """37 fitted `sklearn.svm.SVR` of one numeric `gamma` as the arrays of a shared-kernel evaluation.

    Args:
        regressions: fitted on `training`, one per answer.
        training: standardized features `[N, 256]`.
        mean: mean of the features `[256]` before they were standardized.
        deviation: their standard deviation.
    """
    used = np.unique(np.concatenate([r.support_ for r in regressions]))
    dual = np.zeros((len(used), len(regressions)))
    for answer, regression in enumerate(regressions):
        dual[np.searchsorted(used, regression.support_), answer] = regression.dual_coef_[0]
    return {
        "svr/mean": mean,
        "svr/deviation": deviation,
        "svr/support": training[used],
        "svr/dual": dual.astype(np.float32),
        "svr/intercept": np.array([r.intercept_[0] for r in regressions], np.float32),
        "svr/gamma": np.array([regressions[0].gamma], np.float32),
    }


class Regressions:
    """All regressions of `export_regressions`; call it inside a `tf.function`.

    The kernel's exponent is `x.s - |x|**2 / 2 - |s|**2 / 2` of features and support vectors that are
    scaled by the root of `2 gamma`. What depends on the support vectors alone is computed once.
    """

    def __init__(self, arrays: layers.Arrays) -> None:
        scale = np.sqrt(2 * np.float64(arrays["svr/gamma"][0]))
        self._mean = tf.constant(arrays["svr/mean"])
        self._scale = tf.constant(scale / arrays["svr/deviation"], tf.float32)
        support = scale * arrays["svr/support"].astype(np.float64)
        self._support = tf.constant(support, tf.float32)
        self._halves = tf.constant(np.square(support).sum(axis=1)[:, None] / 2, tf.float32)
        self._dual = tf.constant(arrays["svr/dual"].T, tf.float64)
        self._intercept = tf.constant(arrays["svr/intercept"], tf.float64)

    def __call__(self, features: Any) -> tuple[Any, Any]:
        """Raw predictions `[N, 37]`, and the largest kernel value to any support vector `[N]`, float32.

        Args:
            features: `[N, 256]` float32, not standardized.
        """
        x = (features - self._mean) * self._scale
        # The support vectors are the left factor: as the right one they would be packed for each micro-batch.
        products = tf.matmul(self._support, x, transpose_b=True)
        halves = self._halves + tf.reduce_sum(x * x, axis=1) / 2
        kernel = tf.exp(tf.minimum(products - halves, 0.0))
        # Thousands of large terms that cancel: in float32 their sum would be wrong by up to 1e-4.
        sums = tf.transpose(tf.matmul(self._dual, tf.cast(kernel, tf.float64)))
        return tf.cast(sums + self._intercept, tf.float32), tf.reduce_max(kernel, axis=0)


class Features:
    """The feature extractor for inference; call it inside a `tf.function` with one static shape."""

    def __init__(self, arrays: layers.Arrays, dtype: Any, *, parallel: int = 1) -> None:
        self._parallel = parallel
        self._arrays = {
            name: tf.constant(value) for name, value in arrays.items() if name.startswith("block_")
        }
        self._kernels = [
            tf.cast(self._arrays[f"block_{i}/kernel"], dtype) for i in range(len(layers.FILTERS))
        ]

    def __call__(self, images: Any) -> Any:
        """Pooled features `[N, 256]` float32 of images `[N, 64, 64, 3]`, the mean over 4 rotations."""
        return layers.over_rotations(
            images,
            lambda view: layers.trunk(view, self._kernels, self._arrays, "SAME"),
            self._parallel,
        )


class Predictor:
    """Network and regressions for inference; call it inside a `tf.function` with one static shape."""

    def __init__(self, arrays: layers.Arrays, dtype: Any, *, parallel: int = 1) -> None:
        self._features = Features(arrays, dtype, parallel=parallel)
        self._regressions = Regressions(arrays)

    def __call__(self, images: Any) -> tuple[Any, Any]:
        """Raw regressions `[N, 37]` and largest kernel values `[N]` of images `[N, 64, 64, 3]`."""
        return self._regressions(self._features(images))
