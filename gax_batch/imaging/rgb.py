"""Mapping of astronomical bands to the colors on which the models were trained, after Lupton et al. 2004.

The mapping (PASP 116, 133) stretches the mean of three bands by asinh and keeps their ratios, so that a
galaxy's color does not depend on its brightness. Each preset defines which bands of a survey become red,
green and blue, and how strongly they are stretched. Pixel values are those of the survey's own pixels,
whatever an image's WCS is: cutouts and mosaics are interpolated, not summed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Preset:
    """A mapping of a survey's bands to red, green and blue.

    Attributes:
        bands: Bands of the survey, from red to blue; empty for one band of any kind.
        weights: Factors of the bands' fluxes before they become red, green and blue.
        unit: Nanomaggies in one unit of the survey's pixel values.
        pixel_arcsec: Side of a pixel of the survey, arcseconds.
        stretch: Flux at which the mapping turns from linear to logarithmic, nanomaggies per square arcsecond.
        q: Softening parameter Q of the asinh.
        why: Reason for the values, for the documentation.
    """

    bands: tuple[str, ...]
    weights: tuple[float, ...]
    unit: float
    pixel_arcsec: float
    stretch: float
    q: float
    why: str


def _zero_point(magnitude: float) -> float:
    """Return the nanomaggies in one count at an AB zero point: 1 nanomaggy is 22.5 mag."""
    return float(10 ** (-0.4 * (magnitude - 22.5)))


PRESETS: Mapping[str, Preset] = {
    "sdss-gri": Preset(
        ("i", "r", "g"), (1.0, 1.3, 1.9), 1.0, 0.396, 4.0, 5.0,
        "SDSS frames (nanomaggies): sky, noise and centers of galaxies as in the images of Galaxy Zoo 2",
    ),
    "legacy-grz": Preset(
        ("z", "r", "g"), (0.7, 1.3, 1.9), 1.0, 0.262, 4.0, 5.0,
        "Legacy Surveys coadds (nanomaggies): z, weighted less, replaces i: galaxies are brighter in z",
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
        "one band in any unit: gray, stretched by the noise of the sky; models have hardly seen gray images",
    ),
}  # fmt: skip


def to_rgb(planes: Float, preset: Preset, box: Box | None = None) -> Float:
    """Map fluxes to colors.

    Args:
        planes: Finite fluxes of the preset's bands from red to blue, with the sky at zero, float32
            `[3, height, width]`; `[1, height, width]` for a preset of one band.
        preset: The mapping.
        box: Left, top, right and bottom of the part to map; None for all of it.

    Returns:
        Colors from 0 (black) to 1, float32 `[height, width, 3]`, or `[height, width]` for one band.
    """
    left, top, right, bottom = box or (0, 0, planes.shape[2], planes.shape[1])
    part = planes[:, top:bottom, left:right]
    return _lupton(part, preset) if preset.bands else _gray(planes[0], part[0])


def _lupton(planes: Float, preset: Preset) -> Float:
    """Map by Lupton et al. 2004, section 2, with the constants of `astropy.visualization.make_lupton_rgb`.

    Uses float32 and few steps, since every FITS cutout of a survey is mapped.
    """
    weights = np.array(preset.weights, np.float32) * np.float32(preset.unit / preset.pixel_arcsec**2)
    # Keep planes contiguous in memory: later steps are far slower on other strides.
    scaled = np.ascontiguousarray(planes, np.float32) * weights[:, None, None]
    mean = scaled.mean(axis=0)
    lit = mean > 0
    mean = np.where(lit, mean, 1)
    # At 0.1 of the stretch, the mapping is as bright as a linear one.
    slope = np.float32(0.1 / np.arcsinh(0.1 * preset.q))
    scaled *= lit * np.arcsinh(mean * np.float32(preset.q / preset.stretch)) * slope / mean
    np.maximum(scaled, 0, out=scaled)
    # Scale a pixel that is too bright down as a whole, which keeps its color.
    scaled /= np.maximum(scaled.max(axis=0), 1)
    return np.ascontiguousarray(np.moveaxis(scaled, 0, -1))


def _gray(plane: Float, part: Float) -> Float:
    """Map the sky to black, the brightest thousandth to white, by asinh from twice the noise of the sky."""
    sky = float(np.median(plane))
    # The median absolute deviation of Gaussian noise is 0.6745 of its standard deviation.
    noise = float(np.median(np.abs(plane - sky))) / 0.6745
    top = float(np.percentile(plane, 99.9)) - sky
    if top <= 0:
        return np.zeros_like(part, dtype=np.float32)
    soft = max(2 * noise, top * 1e-3)
    stretched = np.arcsinh((part.astype(np.float64) - sky) / soft) / np.arcsinh(top / soft)
    return np.asarray(np.clip(stretched, 0, 1), np.float32)
