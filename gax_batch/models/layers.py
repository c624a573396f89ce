"""What the three networks share: the Keras trunk they are trained as and the folded one they run as.

A trunk is three blocks of 3x3 convolution, ReLU, batch normalization and 2x2 max pooling. The scale of
every batch normalization is constrained to be non-negative, so a block is a non-decreasing function of
the convolution's result and max pooling may be done first, on that result: the same numbers with a
quarter of the elementwise work.

Keras and TensorFlow Probability are imported where networks are built: to run them needs neither, and
an engine starts seconds sooner without.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.models.runtime import tf
from gax_batch.tree import QUESTIONS, TOPOLOGICAL

Arrays = Mapping[str, npt.NDArray[np.float32]]
FILTERS = (64, 128, 256)
EPSILON = 1e-3
# 16 to 32 steps an epoch: Keras's default of 0.99 would still remember the first, random, weights.
MOMENTUM = 0.95


def block(x: Any, convolution: Any, index: int) -> Any:
    """Convolution (with its ReLU), batch normalization and max pooling of the `index`-th Keras block."""
    import tf_keras as keras

    x = convolution(x)
    x = keras.layers.BatchNormalization(
        momentum=MOMENTUM,
        epsilon=EPSILON,
        gamma_constraint=keras.constraints.NonNeg(),
        name=f"normalization_{index}",
    )(x)
    return keras.layers.MaxPooling2D(2, name=f"pooling_{index}")(x)


def export_normalization(model: Any, index: int) -> dict[str, npt.NDArray[np.float32]]:
    """The block's batch normalization as one `scale` and one `shift` per channel, float32 `[channels]`."""
    gamma, beta, mean, variance = (
        w.astype(np.float64) for w in model.get_layer(f"normalization_{index}").get_weights()
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    return {
        f"block_{index}/scale": scale.astype(np.float32),
        f"block_{index}/shift": (beta - mean * scale).astype(np.float32),
    }


def trunk(images: Any, kernels: Sequence[Any], arrays: Arrays, padding: str) -> Any:
    """Run the three blocks and the global average pooling on folded weights.

    Args:
        images: `[N, 64, 64, 3]` in [0, 1]; the convolutions run in its dtype.
        kernels: the three convolution kernels in the same dtype.
        arrays: `block_{0,1,2}/{bias,scale,shift}`, float32.
        padding: `SAME` or `VALID`.

    Returns:
        `[N, 256]` float32.
    """
    x = images
    for index, kernel in enumerate(kernels):
        x = tf.nn.conv2d(x, kernel, 1, padding)
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        bias, scale, shift = (
            tf.cast(arrays[f"block_{index}/{n}"], x.dtype) for n in ("bias", "scale", "shift")
        )
        x = tf.nn.relu(x + bias) * scale + shift
    return tf.reduce_mean(tf.cast(x, tf.float32), axis=(1, 2))


def conditional_probabilities(logits: Any) -> Any:
    """Softmax over each question's answers: `[..., 37]` logits to conditional probabilities."""
    return tf.concat([tf.nn.softmax(logits[..., q.columns]) for q in QUESTIONS], axis=-1)


def cumulative_probabilities(logits: Any) -> Any:
    """Softmax over each question's answers times the probability of the answer that leads to it.

    The TensorFlow twin of `gax_batch.tree.cumulative`.

    Args:
        logits: `[..., 37]` float32.

    Returns:
        `[..., 37]` float32, consistent with the tree.
    """
    blocks: dict[int, Any] = {}
    for index in TOPOLOGICAL:
        question = QUESTIONS[index]
        probability = tf.nn.softmax(logits[..., question.columns])
        if question.parent is not None:
            parent = next(i for i, q in enumerate(QUESTIONS) if q.start <= question.parent < q.stop)
            offset = question.parent - QUESTIONS[parent].start
            probability *= blocks[parent][..., offset : offset + 1]
        blocks[index] = probability
    return tf.concat([blocks[i] for i in range(len(QUESTIONS))], axis=-1)


def orientations(images: Any) -> Any:
    """The 8 orientations of the square: `[N, H, H, C]` to `[8, N, H, H, C]`, the first being the input."""
    transposed = tf.transpose(images, (0, 2, 1, 3))
    # Counterclockwise by 0, 90, 180 and 270 degrees (tf.image.rot90 would put assertions into the graph).
    turns = [
        images,
        tf.reverse(transposed, (1,)),
        tf.reverse(images, (1, 2)),
        tf.reverse(transposed, (2,)),
    ]
    return tf.stack([*turns, *(tf.reverse(turn, (2,)) for turn in turns)])


def over_rotations(images: Any, function: Callable[[Any], Any], parallel: int) -> Any:
    """The mean of `function` over the 4 rotations of `images`, at most `parallel` at a time.

    All 8 orientations lower the CNN-SVR's error on calibration galaxies by 0.0003 more, at twice the cost.
    """
    turns = orientations(images)[:4]
    values = tf.map_fn(function, turns, parallel_iterations=parallel, fn_output_signature=tf.float32)
    return tf.reduce_mean(values, axis=0)
