"""Layers of the three networks: the Keras trunk for training, and the folded one for inference.

A trunk has three blocks of 3x3 convolution, ReLU, batch normalization and 2x2 max pooling. The scale of every
batch normalization is constrained to be non-negative, so that a block is a non-decreasing function of the
convolution's result. Max pooling may therefore be done first, on that result: it gives the same numbers with
a quarter of the elementwise work.

Keras and TensorFlow Probability are imported only where networks are built: running them needs neither, and
an engine starts seconds sooner.
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
# An epoch has 16 to 32 steps: Keras's default of 0.99 would still contain the first, random weights.
MOMENTUM = 0.95


def block(x: Any, convolution: Any, index: int) -> Any:
    """Add the convolution (with its ReLU), batch normalization and max pooling of the `index`-th block."""
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
    """Return the batch normalization of a block as a `scale` and a `shift`, float32 `[channels]` each."""
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
        images: Images in [0, 1], `[N, 64, 64, 3]`, or their `patches`. The convolutions have their dtype.
        kernels: The three convolution kernels in the same dtype; for patches, the first one `as_product`.
        arrays: `block_{0,1,2}/{bias,scale,shift}`, float32.
        padding: `SAME` or `VALID`.

    Returns:
        Features, float32 `[N, 256]`.
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

    The matrix units of a GPU are idle in a convolution of three channels: the first block took half of the
    time of all three. As a product of patches it takes a quarter of that, and all draws share the patches.
    """
    side = images.shape[1]
    padded = tf.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    pixels = [padded[:, y : y + side : 2, x : x + side : 2] for y in range(4) for x in range(4)]
    return tf.concat([p[:, : side // 2, : side // 2] for p in pixels], axis=-1)


def as_product(kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert a kernel `[3, 3, C, F]` to a matrix `[16 C, 4 F]` from `patches` to the four values to pool."""
    shifted = [np.pad(kernel, ((y, 1 - y), (x, 1 - x), (0, 0), (0, 0))) for y in (0, 1) for x in (0, 1)]
    return np.concatenate([k.reshape(-1, kernel.shape[-1]) for k in shifted], axis=-1)


def conditional_probabilities(logits: Any) -> Any:
    """Return the softmax over each question's answers: logits `[..., 37]` to conditional probabilities."""
    return tf.concat([tf.nn.softmax(logits[..., q.columns]) for q in QUESTIONS], axis=-1)


def cumulative_probabilities(logits: Any) -> Any:
    """Return the softmax over each question's answers times the probability of the parent answer.

    The equivalent of `gax_batch.gz2.cumulative` in TensorFlow.

    Args:
        logits: Logits, float32 `[..., 37]`.

    Returns:
        Cumulative probabilities, float32 `[..., 37]`, consistent with the tree.
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
    """Rotate counterclockwise by 0, 90, 180 and 270 degrees: `[N, H, H, C]` to `[4, N, H, H, C]`."""
    transposed = tf.transpose(images, (0, 2, 1, 3))
    # tf.image.rot90 would add assertions to the graph.
    turns = [tf.reverse(transposed, (1,)), tf.reverse(images, (1, 2)), tf.reverse(transposed, (2,))]
    return tf.stack([images, *turns])


def turned_back(kernel: npt.NDArray[np.float32], orientation: int) -> npt.NDArray[np.float32]:
    """Return the kernel `[3, 3, C, F]` that finds in an image what `kernel` finds in the rotated image.

    A trunk of such kernels, with SAME padding, gives the pooled features of the rotated image. 8 networks
    process 8 orientations of one image without copies of the image.

    Args:
        kernel: Kernel of a convolution, float32 `[3, 3, C, F]`.
        orientation: Orientation of the square. Below 4, it is the number of counterclockwise rotations by 90
            degrees. From 4 on, 4 less is that number, followed by a mirroring from left to right.
    """
    mirrored = kernel[:, ::-1] if orientation >= 4 else kernel
    return np.rot90(mirrored, -(orientation % 4))


def over_rotations(images: Any, function: Callable[[Any], Any], parallel: int) -> Any:
    """Return the mean of `function` over the 4 rotations of `images`, at most `parallel` at a time.

    With all 8 orientations, the error of the CNN-SVR on calibration galaxies is 0.0003 lower, at twice the
    cost.
    """
    values = tf.map_fn(
        function, rotations(images), parallel_iterations=parallel, fn_output_signature=tf.float32
    )
    return tf.reduce_mean(values, axis=0)
