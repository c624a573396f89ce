"""Simulated galaxies of one survey, and the same seen by another camera."""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from gax_batch.simulate.population import draw_population
from gax_batch.simulate.render import render

Images = npt.NDArray[np.uint8]
Change = Callable[[Images], Images]


@cache
def galaxies(count: int, seed: int = 0) -> Images:
    """Cutouts, uint8 `[count, 64, 64, 3]`, of a simulated SDSS."""
    rng = np.random.default_rng(seed)
    blocks = [render(draw_population(rng, 64), rng) for _ in range(-(-count // 64))]
    return np.concatenate(blocks)[:count]


def _levels(
    change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> Change:
    return lambda images: np.clip(change(images.astype(np.float64)) + 0.5, 0, 255).astype(np.uint8)


def _one_by_one(change: Callable[[Image.Image], Image.Image]) -> Change:
    return lambda images: np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def _noise(images: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return images + np.random.default_rng(1).normal(0, 8, images.shape)


def _zoomed(image: Image.Image) -> Image.Image:
    return image.crop((11, 11, 53, 53)).resize((64, 64), Image.Resampling.BICUBIC)


def _shrunk(image: Image.Image) -> Image.Image:
    small = np.asarray(image.resize((42, 42), Image.Resampling.BOX))
    return Image.fromarray(np.pad(small, [(11, 11), (11, 11), (0, 0)], mode="reflect"))


OTHER_CAMERAS: dict[str, Change] = {
    "blurred": _one_by_one(lambda image: image.filter(ImageFilter.GaussianBlur(1.5))),
    "noisier": _levels(_noise),
    "redder": _levels(lambda images: images * [1.25, 1.0, 0.8]),
    "bluer": _levels(lambda images: images * [0.8, 1.0, 1.25]),
    "stretched": _levels(lambda images: 255 * (images / 255) ** 0.7),
    "enlarged": _one_by_one(_zoomed),
    "shrunk": _one_by_one(_shrunk),
}
"""Changes of cutouts as another survey would make them, by name."""
