"""Monte Carlo dropout of the classic CNN: a common inexpensive uncertainty, for comparison.

Gal & Ghahramani 2016 (ICML): dropout stays active during prediction. The classic CNN drops only hidden units,
so that its trunk runs once for all draws.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gax_batch.models import classic, layers

BATCH = 32


def draws(
    arrays: dict[str, npt.NDArray[Any]], images: npt.NDArray[np.uint8], count: int, seed: int
) -> npt.NDArray[np.float32]:
    """Return cumulative fractions `[count, N, 37]` of cutouts, each with other units dropped."""
    kernels = [tf.constant(arrays[f"block_{i}/kernel"]) for i in range(len(layers.FILTERS))]
    trunk = tf.function(lambda x: layers.trunk(tf.cast(x, tf.float32) / 255.0, kernels, arrays, "VALID"))
    features = np.concatenate(
        [trunk(tf.constant(images[i : i + BATCH])).numpy() for i in range(0, len(images), BATCH)]
    )
    hidden = np.maximum(features @ arrays["hidden/kernel"] + arrays["hidden/bias"], 0)
    rng = np.random.default_rng(seed)
    keep = 1 - classic.DROPOUT
    results = []
    for _ in range(count):
        kept = hidden * (rng.random(hidden.shape) < keep) / np.float32(keep)
        logits = kept @ arrays["logits/kernel"] + arrays["logits/bias"]
        results.append(layers.cumulative_probabilities(tf.constant(logits, tf.float32)).numpy())
    return np.stack(results)
