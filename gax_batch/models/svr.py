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


def regress(features: Any, arrays: layers.Arrays) -> tuple[Any, Any]:
    """Evaluate all regressions.

    Args:
        features: `[N, 256]` float32, not standardized.
        arrays: of `export_regressions`.

    Returns:
        Raw predictions `[N, 37]`, and the largest kernel value to any support vector `[N]`, float32.
    """
    x = (features - arrays["svr/mean"]) / arrays["svr/deviation"]
    support = arrays["svr/support"]
    squares = tf.reduce_sum(support * support, axis=1)[:, None] + tf.reduce_sum(x * x, axis=1)[None]
    # The support vectors are the left factor: as the right one they would be packed for each micro-batch.
    distances = tf.maximum(squares - 2.0 * tf.matmul(support, x, transpose_b=True), 0.0)
    kernel = tf.exp(-arrays["svr/gamma"] * distances)
    # Thousands of large terms that cancel: in float32 their sum would be wrong by up to 1e-4.
    dual = tf.cast(tf.transpose(arrays["svr/dual"]), tf.float64)
    sums = tf.cast(tf.transpose(tf.matmul(dual, tf.cast(kernel, tf.float64))), tf.float32)
    return sums + arrays["svr/intercept"], tf.reduce_max(kernel, axis=0)


class Predictor:
    """Network and regressions for inference; call it inside a `tf.function` with one static shape."""

    def __init__(self, arrays: layers.Arrays, dtype: Any, *, parallel: int = 1) -> None:
        self._parallel = parallel
        self._arrays = {name: tf.constant(value) for name, value in arrays.items()}
        self._kernels = [
            tf.cast(self._arrays[f"block_{i}/kernel"], dtype) for i in range(len(layers.FILTERS))
        ]

    def __call__(self, images: Any) -> tuple[Any, Any]:
        """Raw regressions `[N, 37]` and largest kernel values `[N]` of images `[N, 64, 64, 3]`."""
        return regress(self.features(images), self._arrays)

    def features(self, images: Any) -> Any:
        """The 256 pooled features `[N, 256]` float32, the mean over 4 rotations."""
        return layers.over_rotations(
            images,
            lambda view: layers.trunk(view, self._kernels, self._arrays, "SAME"),
            self._parallel,
        )
