"""Random views of a galaxy: any angle, mirror image, shift, zoom, brightness and color.

A galaxy has no preferred orientation or parity, so every rotation and reflection is as valid as the original.
The ranges of shift (4 of 64 pixels) and zoom (1/1.3 to 1.3) are those of Dieleman, Willett & Dambre 2015
(MNRAS 450, 1441). All random numbers are determined by a seed.
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
    """Return windows at half the resolution, means of 2x2 pixels: 106 to 53 pixels per side."""
    return tf.nn.avg_pool2d(tf.cast(windows, tf.float32), 2, 2, "VALID")


def augment(windows: Any, side: int, seed: Any, field: float = IMAGE_SIDE) -> Any:
    """Return one random view of each window, in one resampling.

    Args:
        windows: Windows, `[N, w, w, 3]`, 0 to 255, with a margin for rotated corners: 106 pixels at the
            cutouts' scale, or fewer at a coarser one.
        side: Side of the result in pixels.
        seed: Seed, int `[2]`.
        field: Extent of sky in the result, in pixels of a cutout; 64 is the whole cutout.

    Returns:
        Views in [0, 1], float32 `[N, side, side, 3]`.
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
    """Return rows `[a, b, c, d, e, f, 0, 0]`: output pixel (x, y) to (ax + by + c, dx + ey + f)."""
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
