"""TensorFlow itself, without Keras, which it would load although inference needs none of it.

`import tensorflow` ends with loading Keras, Matplotlib and scikit-learn behind it, "so that any function
that needs to happen at load time will trigger", and goes on where Keras is not installed: 40 % of the
start of every engine. What needs Keras (networks to train) imports `tf_keras` itself.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

KERAS = ("keras", "tf_keras")


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Modules that are not loaded yet are as if not installed; `None` is how Python's import says so."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _absent(*KERAS):
    import tensorflow as tf

__all__ = ["tf"]
