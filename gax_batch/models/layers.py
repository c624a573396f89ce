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

from gax_batch.gz2 import QUESTIONS, TOPOLOGICAL
from gax_batch.models.runtime import tf

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
    """Return the block's batch normalization as one `scale` and one `shift` per channel, float32 `[channels]`."""
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
        images: `[N, 64, 64, 3]` in [0, 1], or their `patches`; the convolutions run in its dtype.
        kernels: The three convolution kernels in the same dtype; of patches the first one `as_product`.
        arrays: `block_{0,1,2}/{bias,scale,shift}`, float32.
        padding: `SAME` or `VALID`.

    Returns:
        `[N, 256]` float32.
    """
    x = images
    for index, kernel in enumerate(kernels):
        x = _pooled(x, kernel, padding)
        bias, scale, shift = (
            tf.cast(arrays[f"block_{index}/{n}"], x.dtype) for n in ("bias", "scale", "shift")
        )
        x = tf.nn.relu(x + bias) * scale + shift
    return tf.reduce_mean(tf.cast(x, tf.float32), axis=(1, 2))


def _pooled(x: Any, kernel: Any, padding: str) -> Any:
    """Return the convolution and the 2x2 max pooling of one block."""
    if len(kernel.shape) == 2:
        return tf.reduce_max(tf.reshape(x @ kernel, (*x.shape[:-1], 4, -1)), axis=-2)
    return tf.nn.max_pool2d(tf.nn.conv2d(x, kernel, 1, padding), 2, 2, "VALID")


def patches(images: Any) -> Any:
    """Return the 4x4 pixels behind each pixel of the first block: `[N, H, H, C]` to `[N, H/2, H/2, 16 C]`.

    A GPU's matrix units are idle in a convolution of three channels: half of the time of all three blocks
    was the first one's. As a product of patches it takes a quarter, and all draws share the patches.
    """
    side = images.shape[1]
    padded = tf.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    pixels = [padded[:, y : y + side : 2, x : x + side : 2] for y in range(4) for x in range(4)]
    return tf.concat([p[:, : side // 2, : side // 2] for p in pixels], axis=-1)


def as_product(kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a kernel `[3, 3, C, F]` as a matrix `[16 C, 4 F]`, from `patches` to the four results to be pooled."""
    shifted = [np.pad(kernel, ((y, 1 - y), (x, 1 - x), (0, 0), (0, 0))) for y in (0, 1) for x in (0, 1)]
    return np.concatenate([k.reshape(-1, kernel.shape[-1]) for k in shifted], axis=-1)


def conditional_probabilities(logits: Any) -> Any:
    """Softmax over each question's answers: `[..., 37]` logits to conditional probabilities."""
    return tf.concat([tf.nn.softmax(logits[..., q.columns]) for q in QUESTIONS], axis=-1)


def cumulative_probabilities(logits: Any) -> Any:
    """Softmax over each question's answers times the probability of the answer that leads to it.

    The TensorFlow twin of `gax_batch.gz2.cumulative`.

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


def rotations(images: Any) -> Any:
    """Counterclockwise by 0, 90, 180 and 270 degrees: `[N, H, H, C]` to `[4, N, H, H, C]`."""
    transposed = tf.transpose(images, (0, 2, 1, 3))
    # tf.image.rot90 would put assertions into the graph.
    turns = [tf.reverse(transposed, (1,)), tf.reverse(images, (1, 2)), tf.reverse(transposed, (2,))]
    return tf.stack([images, *turns])


def turned_back(kernel: npt.NDArray[np.float32], orientation: int) -> npt.NDArray[np.float32]:
    """Return the kernel `[3, 3, C, F]` that finds in an image what `kernel` finds in the turned image.

    A trunk of such kernels, padded by SAME, gives the turned image's pooled features: 8 networks see 8
    orientations of one image, of which no copies are made.

    Args:
        kernel: Of a convolution.
        orientation: Of the square: below 4 rotated counterclockwise by so many right angles; from 4 on by
            4 fewer, and then mirrored left to right.
    """
    mirrored = kernel[:, ::-1] if orientation >= 4 else kernel
    return np.rot90(mirrored, -(orientation % 4))


def over_rotations(images: Any, function: Callable[[Any], Any], parallel: int) -> Any:
    """Return the mean of `function` over the 4 rotations of `images`, at most `parallel` at a time.

    All 8 orientations lower the CNN-SVR's error on calibration galaxies by 0.0003 more, at twice the cost.
    """
    values = tf.map_fn(
        function, rotations(images), parallel_iterations=parallel, fn_output_signature=tf.float32
    )
    return tf.reduce_mean(values, axis=0)
