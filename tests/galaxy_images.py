"""Images of galaxies that differ from number to number."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def galaxy_image(number: int, side: int = 106) -> Image.Image:
    """A soft, colored blob that differs from number to number."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:side, :side] - side / 2
    profile = np.exp(-np.hypot(x, y * rng.uniform(1, 3)) / (side * rng.uniform(0.05, 0.12)))
    color = rng.uniform(120, 250, 3)
    noise = rng.normal(0, 4, (side, side, 3))
    return Image.fromarray(np.clip(profile[..., None] * color + noise + 10, 0, 255).astype(np.uint8))


def write_images(folder: Path, count: int, first: int = 0) -> None:
    """Write `count` distinct JPEG galaxies named by their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        galaxy_image(number).save(folder / f"{number:06d}.jpg", quality=92)


def jpeg_bytes(number: int) -> bytes:
    """One galaxy's JPEG."""
    buffer = BytesIO()
    galaxy_image(number).save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()
