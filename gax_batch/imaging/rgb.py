"""Fluxes of astronomical bands to the colors that the models have seen: Lupton et al. 2004.

The mapping (PASP 116, 133) stretches the mean of three bands by asinh and keeps their ratios, so that a
galaxy's color does not depend on its brightness. Each preset says which bands of a survey become red,
green and blue, and how strongly they are stretched. Pixel values are those of the survey's own pixels,
whatever an image's WCS says: cutouts and mosaics are interpolated, not summed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Preset:
    """How a survey's bands become red, green and blue.

    Attributes:
        bands: Of the survey, from red to blue; none for one band of any kind.
        weights: What the bands' fluxes are multiplied with before they become red, green and blue.
        unit: Nanomaggies in one unit of the survey's pixel values.
        pixel_arcsec: Side of a pixel of the survey, arcseconds.
        stretch: Where the mapping turns from linear to logarithmic, nanomaggies per square arcsecond.
        q: The asinh softening Q.
        why: The reason, for the documentation.
    """

    bands: tuple[str, ...]
    weights: tuple[float, ...]
    unit: float
    pixel_arcsec: float
    stretch: float
    q: float
    why: str


def _zero_point(magnitude: float) -> float:
    """Nanomaggies in one count at an AB zero point: 1 nanomaggy is 22.5 mag."""
    return float(10 ** (-0.4 * (magnitude - 22.5)))


PRESETS: Mapping[str, Preset] = {
    "sdss-gri": Preset(
        ("i", "r", "g"), (1.0, 1.3, 1.9), 1.0, 0.396, 4.0, 5.0,
        "SDSS frames (nanomaggies): sky, noise and centers of galaxies as in the images of Galaxy Zoo 2",
    ),
    "legacy-grz": Preset(
        ("z", "r", "g"), (0.7, 1.3, 1.9), 1.0, 0.262, 4.0, 5.0,
        "Legacy Surveys coadds (nanomaggies): z in the place of i, weaker, since galaxies are brighter in it",
    ),
    "hsc-gri": Preset(
        ("i", "r", "g"), (1.0, 1.3, 1.9), _zero_point(27.0), 0.168, 4.0, 5.0,
        "Hyper Suprime-Cam coadds (zero point 27.0): the SDSS look, although the images go deeper",
    ),
    "panstarrs-gri": Preset(
        ("i", "r", "g"), (1.0, 1.3, 1.9), _zero_point(25.0), 0.25, 4.0, 5.0,
        "Pan-STARRS 1 stacks, scaled to counts of zero point 25.0 (divided by their exposure time)",
    ),
    "single": Preset(
        (), (1.0,), 1.0, 1.0, 0.0, 0.0,
        "one band in any unit: stretched from the sky's noise, and gray, which the models have hardly seen",
    ),
}  # fmt: skip


def to_rgb(planes: Float, preset: Preset, box: Box | None = None) -> Float:
    """Map fluxes to colors.

    Args:
        planes: `[3, height, width]` finite fluxes of the preset's bands, from red to blue, with the sky at
            zero; `[1, height, width]` for a preset of one band.
        preset: Which mapping.
        box: Left, top, right and bottom of the part to map; None: all of it.

    Returns:
        float32 `[height, width, 3]`, or `[height, width]` for one band, from 0 (black) to 1.
    """
    left, top, right, bottom = box or (0, 0, planes.shape[2], planes.shape[1])
    part = planes[:, top:bottom, left:right]
    return _lupton(part, preset) if preset.bands else _gray(planes[0], part[0])


def _lupton(planes: Float, preset: Preset) -> Float:
    """Lupton et al. 2004, section 2, with the constants of `astropy.visualization.make_lupton_rgb`.

    In float32 and in few steps, since every FITS cutout of a survey comes through here.
    """
    weights = np.array(preset.weights, np.float32) * np.float32(preset.unit / preset.pixel_arcsec**2)
    # Plane by plane in memory: whatever follows is far slower on other strides.
    scaled = np.ascontiguousarray(planes, np.float32) * weights[:, None, None]
    mean = scaled.mean(axis=0)
    lit = mean > 0
    mean = np.where(lit, mean, 1)
    # Where it is 0.1 of the stretch, the mapping is as bright as a linear one.
    slope = np.float32(0.1 / np.arcsinh(0.1 * preset.q))
    scaled *= lit * np.arcsinh(mean * np.float32(preset.q / preset.stretch)) * slope / mean
    np.maximum(scaled, 0, out=scaled)
    # Too bright a pixel is scaled down as a whole, which keeps its color.
    scaled /= np.maximum(scaled.max(axis=0), 1)
    return np.ascontiguousarray(np.moveaxis(scaled, 0, -1))


def _gray(plane: Float, part: Float) -> Float:
    """Black at the sky, white at the brightest thousandth, asinh between from twice the sky's noise."""
    sky = float(np.median(plane))
    # The median absolute deviation of Gaussian noise is 0.6745 of its standard deviation.
    noise = float(np.median(np.abs(plane - sky))) / 0.6745
    top = float(np.percentile(plane, 99.9)) - sky
    if top <= 0:
        return np.zeros_like(part, dtype=np.float32)
    soft = max(2 * noise, top * 1e-3)
    stretched = np.arcsinh((part.astype(np.float64) - sky) / soft) / np.arcsinh(top / soft)
    return np.asarray(np.clip(stretched, 0, 1), np.float32)
