"""Plain JPEGs by libjpeg-turbo alone, which takes two thirds of the time that it takes by way of Pillow.

The pixels are Pillow's, bit for bit. But simplejpeg tells no reasons: whatever it refuses, warns of, or is
not plain (CMYK, a few pixels), is left to Pillow, which decides what becomes of it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

MAGIC = b"\xff\xd8\xff"

_PLAIN = ("YCbCr", "RGB", "Gray")
# simplejpeg names a scale by the size that it gives, of which smaller images have the same at several.
_SMALLEST_SIDE = 8


@dataclass(frozen=True, slots=True)
class Header:
    """What a plain JPEG says of itself."""

    width: int
    height: int
    gray: bool


def read_header(data: bytes) -> Header | None:
    """Return the header of a plain JPEG; None for any other."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):
        return None
    if colors not in _PLAIN or min(width, height) < _SMALLEST_SIDE:
        return None
    return Header(width, height, colors == "Gray")


def read_pixels(data: bytes, header: Header, factor: int) -> npt.NDArray[np.uint8] | None:
    """Decode a plain JPEG.

    Args:
        data: The file.
        header: Of it.
        factor: 1, 2, 4 or 8: decode at a fraction of the size, each pixel the mean of its block.

    Returns:
        `[height, width, 3]`, or `[height, width]` if it is gray, both rounded up after division; None if
        there is anything wrong with it.
    """
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data,
            "GRAY" if header.gray else "RGB",
            min_height=-(-header.height // factor),
            min_width=-(-header.width // factor),
        )
    except ValueError:
        return None
    return pixels[..., 0] if header.gray else pixels
