"""Minimize a smooth loss of a few thousand parameters on all data at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
import tensorflow as tf


def minimize(loss: Callable[[Any], Any], size: int, iterations: int) -> npt.NDArray[np.float64]:
    """The parameters `[size]` to which L-BFGS comes from zero, with TensorFlow's gradients.

    Args:
        loss: a scalar tensor of a float32 tensor `[size]`.
        size: number of parameters.
        iterations: at most.
    """

    @tf.function  # type: ignore[untyped-decorator]
    def slope(parameters: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            value = loss(parameters)
        return value, tape.gradient(value, parameters)

    def evaluate(x: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        value, gradient = slope(tf.constant(x, tf.float32))
        return float(value), gradient.numpy().astype(np.float64)

    found = scipy.optimize.minimize(
        evaluate, np.zeros(size), jac=True, method="L-BFGS-B", options={"maxiter": iterations}
    )
    return np.asarray(found.x, np.float64)
