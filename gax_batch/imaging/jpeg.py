"""Plain JPEGs by libjpeg-turbo alone, which takes two thirds of the time of decoding through Pillow.

The pixels are those of Pillow, bit for bit. simplejpeg does not give reasons for errors: any file that it
refuses or warns about, or that is not plain (CMYK, a few pixels), is left to Pillow.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

MAGIC = b"\xff\xd8\xff"

_PLAIN = ("YCbCr", "RGB", "Gray")
# simplejpeg selects a scale by the resulting size, which is ambiguous for smaller images.
_SMALLEST_SIDE = 8


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of a plain JPEG in its header."""

    width: int
    height: int
    gray: bool


def read_header(data: bytes) -> Header | None:
    """Return the header of a plain JPEG, or None for any other file."""
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
        header: Header of the file.
        factor: 1, 2, 4 or 8: decode at a fraction of the size, each pixel the mean of its block.

    Returns:
        Pixels, uint8 `[height, width, 3]`, or `[height, width]` if it is gray, with both sides rounded up
        after division; None if the file is faulty.
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
