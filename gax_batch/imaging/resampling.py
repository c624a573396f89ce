"""Square windows of an image, averaged over the area of each output pixel.

The arithmetic is elementwise NumPy in float64 (float32 for float32 pixels), so that the values of a window do
not depend on the machine or its threads.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Window:
    """A square window of `side` output pixels, each `scale` image pixels wide, from `left`, `top` on."""

    left: float
    top: float
    scale: float
    side: int

    @classmethod
    def centered(cls, width: int, height: int, scale: float, side: int) -> "Window":
        """Return the window at the center of an image.

        Raises:
            ValueError: The window is larger than the image.
        """
        span = scale * side
        if span > min(width, height) + 1e-6:
            raise ValueError(f"a window of {side} pixels spans {span:g} of an image of {width} x {height}")
        return cls((width - span) / 2, (height - span) / 2, scale, side)

    def moved(self, left: int, top: int) -> "Window":
        """Return the same window of an image that was cropped at `left`, `top`."""
        return Window(self.left - left, self.top - top, self.scale, self.side)

    def shrunk(self, factor: int) -> "Window":
        """Return the same window of an image that was scaled by `1 / factor`."""
        return Window(self.left / factor, self.top / factor, self.scale / factor, self.side)

    def divides(self, factor: int) -> bool:
        """Return whether every output pixel is one whole block of `factor` x `factor` image pixels."""
        return self.scale == factor and self.left % factor == 0 and self.top % factor == 0

    def pixel_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the window in whole pixels: left, top, right, bottom."""
        span = self.scale * self.side
        right, bottom = int(np.ceil(self.left + span)), int(np.ceil(self.top + span))
        return int(self.left), int(self.top), min(right, width), min(bottom, height)


def area_average(pixels: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    """Average over each output pixel's area.

    Args:
        pixels: Pixels of any real dtype, `[height, width]` or `[height, width, channels]`.
        window: The window to average.

    Returns:
        `[side, side]` or `[side, side, channels]`: float64, float32 for float32 pixels, or the pixels
        themselves if the scale is 1.
    """
    precision = np.float32 if pixels.dtype == np.float32 else np.float64
    factor = int(window.scale)
    if not window.divides(factor):
        factor = int(window.scale / 2)  # whole blocks first: bounds memory, and leaves two samples per pixel
    if factor > 1:
        pixels = _block_means(pixels, factor).astype(precision, copy=False)
        window = window.shrunk(factor)
    if window.divides(1):
        left, top = int(window.left), int(window.top)
        return pixels[top : top + window.side, left : left + window.side]
    rows = _interval_means(pixels.astype(precision, copy=False), window.top, window.scale, window.side)
    # Transpose, since whole rows of memory are selected and weighted much faster than single numbers.
    turned = np.ascontiguousarray(rows.reshape(window.side, -1).T).reshape(*rows.shape[1:], window.side)
    return np.moveaxis(_interval_means(turned, window.left, window.scale, window.side), -1, 0)


def _block_means(pixels: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """Return the means of `factor` x `factor` blocks. An incomplete last block is padded with its edge."""
    height, width = pixels.shape[:2]
    rim = [(0, -height % factor), (0, -width % factor)] + [(0, 0)] * (pixels.ndim - 2)
    if any(after for _, after in rim):
        pixels = np.pad(pixels, rim, mode="edge")
    rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
    blocks = pixels.reshape(rows, factor, columns, factor, *pixels.shape[2:])
    # Sums of integers are exact in float64, so that their order does not matter.
    means: npt.NDArray[Any] = blocks.mean(axis=(1, 3), dtype=np.float64)
    return means


def _interval_means(values: npt.NDArray[Any], start: float, step: float, count: int) -> npt.NDArray[Any]:
    """Return means along the first axis over `count` intervals, each pixel weighted by its overlap."""
    edges = np.clip(start + step * np.arange(count + 1), 0, len(values))
    low, high = edges[:-1], edges[1:]
    first = np.minimum(low.astype(np.intp), len(values) - 1)
    rows = values.reshape(len(values), -1)
    means = np.zeros((count, rows.shape[1]), values.dtype)
    for pixel in range(int((np.ceil(high) - first).max())):
        index = first + pixel
        share = np.maximum(np.minimum(high, index + 1) - np.maximum(low, index), 0) / (high - low)
        part = rows.take(np.minimum(index, len(values) - 1), axis=0)
        part *= share.astype(values.dtype)[:, None]
        means += part
    return means.reshape(count, *values.shape[1:])
