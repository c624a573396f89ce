"""Arrays of pixels as PNG."""

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image


def png(pixels: npt.NDArray[np.uint8], *, effort: int = 9) -> bytes:
    """Encode pixels as a PNG.

    Args:
        pixels: Pixels, uint8 `[height, width, 3]`, or `[height, width, 4]` with opacity.
        effort: Effort of the compression, from 1 (fast) to 9 (small).
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=effort)
    return buffer.getvalue()


def png_uri(pixels: npt.NDArray[np.uint8], *, effort: int = 9) -> str:
    """Encode pixels as a data URI of a PNG; see `png`."""
    return "data:image/png;base64," + base64.b64encode(png(pixels, effort=effort)).decode()
