"""Random views of a galaxy: any angle, mirror image, shift, zoom, brightness and color.

A galaxy has no up and no parity, so every rotation and reflection is as true as the original. The
ranges of shift (4 of 64 pixels) and zoom (1/1.3 to 1.3) are those of Dieleman, Willett & Dambre 2015
(MNRAS 450, 1441). Everything is drawn from a seed, and is the same for the same one.
"""

import math
from typing import Any

import tensorflow as tf

from gax_batch.imaging.cutout import IMAGE_SIDE

WINDOW_SIDE = 106.0
SHIFT_PIXELS = 4.0
ZOOM = math.log(1.3)
BRIGHTNESS = 0.12
COLOR = 0.04


def half(windows: Any) -> Any:
    """Windows at half the resolution, by the mean of 2x2 pixels: `[N, 106, 106, 3]` to `[N, 53, 53, 3]`."""
    return tf.nn.avg_pool2d(tf.cast(windows, tf.float32), 2, 2, "VALID")


def augment(windows: Any, side: int, seed: Any, field: float = IMAGE_SIDE) -> Any:
    """Return one random view of each window, in one resampling.

    Args:
        windows: `[N, w, w, 3]`, 0 to 255, with room for rotated corners: 106 pixels at the cutouts'
            scale, or fewer at a coarser one.
        side: Pixels of the result.
        seed: Int `[2]`.
        field: How much sky the result shows, in pixels of a cutout; 64 is all of the cutout.

    Returns:
        float32 `[N, side, side, 3]` in [0, 1].
    """
    count = tf.shape(windows)[0]
    seeds = tf.random.experimental.stateless_split(seed, 6)
    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(windows, tf.float32) / 255.0,
        transforms=_transforms(count, int(windows.shape[1]), side, field, seeds),
        output_shape=(side, side),
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    gain = tf.exp(
        tf.random.stateless_normal((count, 1, 1, 1), seeds[4], 0.0, BRIGHTNESS)
        + tf.random.stateless_normal((count, 1, 1, 3), seeds[5], 0.0, COLOR)
    )
    return tf.clip_by_value(images * gain, 0.0, 1.0)


def _transforms(count: Any, width: int, side: int, field: float, seeds: Any) -> Any:
    """Rows `[a, b, c, d, e, f, 0, 0]` that map an output pixel (x, y) to (ax + by + c, dx + ey + f)."""
    uniform = tf.random.stateless_uniform
    scale = width / WINDOW_SIDE
    angle = uniform((count,), seeds[0], 0.0, 2 * math.pi)
    zoom = tf.exp(uniform((count,), seeds[1], -ZOOM, ZOOM)) * (scale * field / side)
    mirror = tf.where(uniform((count,), seeds[2]) < 0.5, -1.0, 1.0)
    shift = uniform((2, count), seeds[3], -SHIFT_PIXELS, SHIFT_PIXELS) * scale
    a, b = mirror * zoom * tf.cos(angle), -zoom * tf.sin(angle)
    d, e = mirror * zoom * tf.sin(angle), zoom * tf.cos(angle)
    middle, center = (side - 1) / 2, (width - 1) / 2
    c = center + shift[0] - (a + b) * middle
    f = center + shift[1] - (d + e) * middle
    zero = tf.zeros_like(a)
    return tf.stack([a, b, c, d, e, f, zero, zero], axis=1)
