"""Other objects in the frame: foreground stars and background galaxies."""

import numpy as np
import numpy.typing as npt

from gax_batch.simulate.camera import ZERO_POINT
from gax_batch.simulate.light import SIDE

Array = npt.NDArray[np.float32]

_SLOTS = 10  # maximum number of objects in one frame
_DENSITY = 6.0  # objects with r < 22 per square arcminute at high Galactic latitude, stars and galaxies
_BRIGHT, _FAINT = 15.0, 22.0
_SLOPE = 0.33  # slope of log counts against magnitude
_STARS = 0.4
_WING = 0.2


def add_field(bands: Array, pixel_scale: Array, seeing: Array, rng: np.random.Generator) -> None:
    """Add stars and small galaxies at random positions, in place.

    Every object is two circular Gaussians. For a star they are the core and the wings of the seeing; for a
    galaxy they lie side by side along its major axis. Gaussians are separable, so all objects of a frame are
    one matrix product.

    Args:
        bands: Flux per pixel in i, r, g, nanomaggies, float32 `[N, 3, 64, 64]`.
        pixel_scale: Arcseconds per pixel, float32 `[N]`.
        seeing: Full width at half maximum, pixels, float32 `[N]`.
        rng: Source of randomness.
    """
    n = len(bands)
    x, y, sigma, weight = _shapes(rng, n, pixel_scale, seeing / 2.355)
    flux = (_colors(rng, n, _counts(rng, pixel_scale))[..., None] * weight[:, None]).reshape(n, 3, 1, -1)
    across, down = _gaussian(x, sigma), _gaussian(y, sigma)
    bands += (down.swapaxes(1, 2)[:, None] * flux) @ across[:, None]


def _counts(rng: np.random.Generator, pixel_scale: Array) -> Array:
    """Return r fluxes in nanomaggies, `[N, slots]`. Empty slots have zero flux."""
    shape = (len(pixel_scale), _SLOTS)
    expected = _DENSITY * np.square(SIDE * pixel_scale / 60)
    present = np.arange(_SLOTS) < rng.poisson(expected)[:, None]
    span = 1 - 10 ** (-_SLOPE * (_FAINT - _BRIGHT))
    magnitude = _FAINT + np.log10(1 - rng.random(shape) * span) / _SLOPE
    return np.where(present, 10 ** (0.4 * (ZERO_POINT - magnitude)), 0).astype(np.float32)


def _colors(rng: np.random.Generator, n: int, flux: Array) -> Array:
    """Return fluxes in i, r, g, nanomaggies `[N, 3, slots]`, with colors along the main sequence of stars."""
    g_r = rng.beta(0.9, 1.2, flux.shape) * 1.2 + 0.2
    r_i = 0.38 * g_r - 0.03 + 1.2 * np.maximum(g_r - 1.2, 0) + rng.normal(0, 0.05, flux.shape)
    ratios = np.stack([10 ** (0.4 * r_i), np.ones_like(g_r), 10 ** (-0.4 * g_r)], axis=1)
    return (ratios * flux[:, None]).astype(np.float32)


def _shapes(
    rng: np.random.Generator, n: int, pixel_scale: Array, seeing_sigma: Array
) -> tuple[Array, Array, Array, Array]:
    """Centers, widths and shares of light of the Gaussians: each `[N, slots, 2]`."""
    shape = (n, _SLOTS)
    star = rng.random(shape) < _STARS
    position = rng.uniform(-2, SIDE + 1, (2, *shape))
    size = rng.lognormal(np.log(0.7), 0.35, shape) / pixel_scale[:, None]  # arcsec to pixels
    angle = rng.uniform(0, np.pi, shape)
    reach = np.where(star, 0, size * rng.uniform(0, 1.2, shape))
    offset = np.stack([reach, -reach], axis=-1)
    x = position[0][..., None] + offset * np.cos(angle)[..., None]
    y = position[1][..., None] + offset * np.sin(angle)[..., None]
    atmosphere = seeing_sigma[:, None, None]
    galaxy_sigma = np.hypot(size[..., None], atmosphere)
    sigma = np.where(star[..., None], atmosphere * np.array([1, 2]), galaxy_sigma)
    weight = np.where(star[..., None], np.array([1 - _WING, _WING]), 0.5)
    return tuple(a.astype(np.float32) for a in (x, y, sigma, weight))  # type: ignore[return-value]


def _gaussian(center: Array, sigma: Array) -> Array:
    """Unit Gaussians sampled at the pixels: `[N, slots * 2, 64]`."""
    center, sigma = center.reshape(len(center), -1, 1), sigma.reshape(len(sigma), -1, 1)
    pixels = np.arange(SIDE, dtype=np.float32)
    peak: Array = np.exp(np.float32(-0.5) * np.square((pixels - center) / sigma))
    peak /= sigma * np.float32(np.sqrt(2 * np.pi))
    return peak
