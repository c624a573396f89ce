"""Images of a population: uint8 `[N, 64, 64, 3]` cutouts that resemble those of SDSS."""

import numpy as np
import numpy.typing as npt

from gax_batch.simulate import camera, field, light
from gax_batch.simulate.population import Kind, Population

Array = npt.NDArray[np.float32]

# g-r and r-i of the old and the young stars, and their variation between galaxies.
_OLD_COLORS, _YOUNG_COLORS = (0.80, 0.40), (0.12, 0.02)
_COLOR_SPREAD = 0.06
# More dust lies in front of an inclined disk: magnitudes of g-r per log10 of the axis ratio
# (Maller et al. 2009, ApJ 691, 394).
_INCLINATION_REDDENING = 0.2
_STAR_BRIGHTENING = 2.5  # magnitudes: stars mistaken for galaxies are bright


def render(galaxies: Population, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Render images of a population.

    Args:
        galaxies: N objects.
        rng: Source of randomness for colors, patches of star formation, field objects and noise.

    Returns:
        RGB images, uint8 `[N, 64, 64, 3]`. Row 0 is north, column 0 is east.
    """
    blurred = camera.convolve(light.planes(galaxies, rng), galaxies.seeing)
    n = len(galaxies)
    bands = np.matmul(_fluxes(galaxies, rng), blurred.reshape(n, 2, -1)).reshape(n, 3, light.SIDE, light.SIDE)
    field.add_field(bands, galaxies.pixel_scale, galaxies.seeing, rng)
    # From flux per pixel to surface brightness.
    bands *= np.square(camera.NATIVE_PIXEL / galaxies.pixel_scale)[:, None, None, None]
    camera.add_noise(bands, galaxies.pixel_scale, rng)
    return camera.lupton_rgb(bands)


def _fluxes(galaxies: Population, rng: np.random.Generator) -> Array:
    """Return the i, r, g fluxes of the old and the young stars, nanomaggies `[N, 3, 2]`."""
    n = len(galaxies)
    magnitude = galaxies.magnitude - _STAR_BRIGHTENING * (galaxies.kind == Kind.STAR)
    flux = 10 ** (0.4 * (camera.ZERO_POINT - magnitude))
    shift = rng.normal(0, _COLOR_SPREAD, (n, 2))  # metal-rich or dusty galaxies are redder in all colors
    tilted = (galaxies.kind == Kind.DISK) * np.log10(galaxies.axis_ratio)
    shift -= (_INCLINATION_REDDENING * tilted)[:, None]
    g_r = np.array([_OLD_COLORS[0], _YOUNG_COLORS[0]]) + shift
    r_i = (
        np.array([_OLD_COLORS[1], _YOUNG_COLORS[1]]) + 0.5 * shift + rng.normal(0, _COLOR_SPREAD / 2, (n, 1))
    )
    ratios = np.stack([10 ** (0.4 * r_i), np.ones((n, 2)), 10 ** (-0.4 * g_r)], axis=1)
    fluxes: Array = (flux[:, None, None] * ratios).astype(np.float32)
    return fluxes
