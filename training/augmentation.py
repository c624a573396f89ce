"""Random views of a galaxy: any angle, mirror image, small shift and zoom, brightness and color.

A galaxy has no up and no parity, so every rotation and reflection is as true as the original
(Dieleman, Willett & Dambre 2015, MNRAS 450, 1441).
"""

from typing import Any

import tensorflow as tf

from gax_batch.imaging import IMAGE_SIDE

SHIFT_PIXELS = 2.0
ZOOM = 0.12
BRIGHTNESS = 0.1
COLOR = 0.04


def augment(windows: Any) -> Any:
    """One random view of each window, in one resampling.

    Args:
        windows: uint8 `[N, side, side, 3]` at the cutouts' scale, with room for rotated corners.

    Returns:
        float32 `[N, 64, 64, 3]` in [0, 1].
    """
    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(windows, tf.float32) / 255.0,
        transforms=_transforms(tf.shape(windows)[0], windows.shape[1]),
        output_shape=(IMAGE_SIDE, IMAGE_SIDE),
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    count = tf.shape(windows)[0]
    gain = tf.exp(
        tf.random.normal((count, 1, 1, 1), 0.0, BRIGHTNESS) + tf.random.normal((count, 1, 1, 3), 0.0, COLOR)
    )
    return tf.clip_by_value(images * gain, 0.0, 1.0)


def _transforms(count: Any, side: int) -> Any:
    """Rows `[a, b, c, d, e, f, 0, 0]` that map an output pixel (x, y) to (ax + by + c, dx + ey + f)."""
    angle = tf.random.uniform((count,), 0.0, 6.283185307)
    zoom = tf.exp(tf.random.uniform((count,), -ZOOM, ZOOM))
    mirror = tf.where(tf.random.uniform((count,)) < 0.5, -1.0, 1.0)
    shift = tf.random.uniform((2, count), -SHIFT_PIXELS, SHIFT_PIXELS)
    a, b = mirror * zoom * tf.cos(angle), -zoom * tf.sin(angle)
    d, e = mirror * zoom * tf.sin(angle), zoom * tf.cos(angle)
    middle, center = (IMAGE_SIDE - 1) / 2, (side - 1) / 2
    c = center + shift[0] - (a + b) * middle
    f = center + shift[1] - (d + e) * middle
    zero = tf.zeros_like(a)
    return tf.stack([a, b, c, d, e, f, zero, zero], axis=1)
