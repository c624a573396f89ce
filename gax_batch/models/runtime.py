"""TensorFlow without Keras, which inference does not need.

`import tensorflow` ends with loading Keras, and through it Matplotlib and scikit-learn, "so that any function
that needs to happen at load time will trigger". It continues if Keras is not installed. Loading them takes
40 % of the start of every engine. Code that needs Keras (networks for training) imports `tf_keras` itself.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

KERAS = ("keras", "tf_keras")


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Hide modules that are not loaded yet from imports: `None` in `sys.modules` makes an import fail."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _absent(*KERAS):
    import tensorflow as tf

__all__ = ["configure", "tf"]


def configure(threads: int) -> bool:
    """Set TensorFlow up before its first use, unless it runs already. Return whether there is a GPU.

    Args:
        threads: Operations at once, each of which runs on one thread.
    """
    gpus = tf.config.list_physical_devices("GPU")
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        return bool(gpus)
    if gpus:
        # Autotuned or atomic kernels (also of XLA) and TF32 would change the bits between processes.
        tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(False)
    return bool(gpus)
