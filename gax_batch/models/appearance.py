"""Statistics of a cutout's pixels that differ between surveys: background, noise, color, sharpness, size.

They do not need a network, so that they stay valid when the weights are trained again. Sums of pixels are
integers below 2**24, which float32 represents exactly, so that their order does not matter.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gax_batch.imaging.cutout import IMAGE_SIDE

Images = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

CORNER = 14
"""Side of the four corners that sample the background, pixels."""
_CENTER = slice(IMAGE_SIDE // 4, IMAGE_SIDE - IMAGE_SIDE // 4)
# In smooth images, differences of neighbors are below a gray level. Keeps the logarithm finite.
_FLOOR = 0.1
# Cutouts per step: their corners and centers fit the processor's caches.
_ROWS = 32


@dataclass(frozen=True, slots=True)
class Statistic:
    """One number of a cutout.

    Attributes:
        name: Key in bundles and records.
        group: Group of statistics that contain nearly the same information. A warning names one of a group.
        label: The quantity in words, as the subject of "is lower" or "is higher".
    """

    name: str
    group: str
    label: str


STATISTICS = (
    Statistic("background_red", "background", "the background level in red"),
    Statistic("background_green", "background", "the background level in green"),
    Statistic("background_blue", "background", "the background level in blue"),
    Statistic("noise_red", "noise", "the noise of the background in red"),
    Statistic("noise_green", "noise", "the noise of the background in green"),
    Statistic("noise_blue", "noise", "the noise of the background in blue"),
    Statistic("noise_red_green", "color of the noise", "the noise in red relative to green"),
    Statistic("noise_blue_green", "color of the noise", "the noise in blue relative to green"),
    Statistic("grain", "grain", "the share of the noise at the scale of one pixel"),
    Statistic("coarse_grain", "grain", "the share of the noise at the scale of two pixels"),
    Statistic("color_red_green", "color", "the galaxies' light in red relative to green"),
    Statistic("color_blue_green", "color", "the galaxies' light in blue relative to green"),
    Statistic("color_contrast", "color contrast", "the difference between the channels"),
    Statistic("light_inner", "size", "the share of the light within 4 pixels of the center"),
    Statistic("light_middle", "size", "the share of the light within 8 pixels of the center"),
    Statistic("brightness", "brightness", "the galaxies' total light"),
    Statistic("peak", "peak", "the galaxies' brightest pixel"),
    Statistic("sharpness", "sharpness", "the sharpness at the scale of one pixel"),
    Statistic("coarse_sharpness", "sharpness", "the sharpness at the scale of two pixels"),
    Statistic("core_sharpness", "sharpness", "the sharpness of the galaxies' centers"),
)
"""The statistics of a cutout, in the order of `measure`'s columns."""


def measure(cutouts: Images) -> Doubles:
    """Measure the statistics of cutouts.

    Takes about 0.02 ms per cutout on one core.

    Args:
        cutouts: RGB cutouts, uint8 `[N, 64, 64, 3]`.

    Returns:
        Statistics, float64 `[N, len(STATISTICS)]`, finite. Levels are in gray levels, the others are natural
        logarithms.
    """
    blocks = [np.empty((0, len(STATISTICS)))]
    for start in range(0, len(cutouts), _ROWS):
        pixels = cutouts[start : start + _ROWS]
        background, noise = _background(pixels)
        blocks.append(np.stack([*background.T, *noise, *_galaxy(pixels, background)], axis=1))
    return np.concatenate(blocks)


def _background(pixels: Images) -> tuple[Doubles, Iterator[Doubles]]:
    """Return the background level `[N, 3]`, and the eight statistics of noise, each `[N]`.

    Each is the second lowest value of the four corners, so that neighbors in one or two of them do not
    matter.
    """
    low, high = slice(0, CORNER), slice(IMAGE_SIDE - CORNER, IMAGE_SIDE)
    quarters = [pixels[:, y, x] for y in (low, high) for x in (low, high)]
    corners = _channels_first(np.stack(quarters, axis=1))
    level = _second_lowest(corners.sum(axis=(3, 4))).T / CORNER**2
    one, two, four = (_corner_noise(corners, lag) for lag in (1, 2, 4))
    red, green, blue = two
    relative = (np.log(red / green), np.log(blue / green))
    grain = (np.log(fine.sum(axis=0) / coarse.sum(axis=0)) for fine, coarse in ((one, two), (two, four)))
    return level, iter((*np.log(two), *relative, *grain))


def _channels_first(pixels: Images) -> Floats:
    """Transpose pixels `[..., 3]` to `[3, ...]`, so that the fast axis of every sum is a row of pixels."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).astype(np.float32)


def _corner_noise(corners: Floats, lag: int) -> Doubles:
    """Return mean absolute differences of pixels `lag` apart in a row, `[3, N]`, of `[3, N, 4, y, x]`."""
    sums = np.abs(corners[..., lag:] - corners[..., :-lag]).sum(axis=(3, 4))
    noise: Doubles = _second_lowest(sums) / (CORNER * (CORNER - lag)) + _FLOOR
    return noise


def _second_lowest(values: Floats) -> Doubles:
    ordered: Doubles = np.sort(values, axis=-1)[..., 1].astype(np.float64)
    return ordered


def _galaxy(pixels: Images, background: Doubles) -> Iterator[Doubles]:
    """Yield the ten statistics of the object in the center, each `[N]`."""
    center = _channels_first(pixels[:, _CENTER, _CENTER])
    inner, middle, outer = (_light(center, half, background) for half in (4, 8, 16))
    # Keep the colors of a galaxy that is fainter than the errors of its background finite.
    channels = np.maximum(outer, 64.0)
    yield np.log(channels[0] / channels[1])
    yield np.log(channels[2] / channels[1])
    red, green, blue = center
    total = np.maximum(outer.sum(axis=0), 200.0)
    contrast = _total(np.abs(red - green)) + _total(np.abs(blue - green))
    yield np.log((contrast + 1.0) / total)
    yield np.log(np.maximum(inner.sum(axis=0), 20.0) / total)
    yield np.log(np.maximum(middle.sum(axis=0), 50.0) / total)
    yield np.log(total)
    light = red + green + blue
    yield light[:, 12:20, 12:20].max(axis=(1, 2)).astype(np.float64)
    slope = _roughness(light, 1)
    yield np.log(_curvature(light) / slope)
    yield np.log(slope / _roughness(light, 4))
    core = np.ascontiguousarray(light[:, 8:24, 8:24])
    yield np.log(_curvature(core) / _roughness(core, 2))


def _light(center: Floats, half: int, background: Doubles) -> Doubles:
    """Return the light above the background in the central square of side `2 half`, `[3, N]`."""
    middle = center.shape[-1] // 2
    square = slice(middle - half, middle + half)
    light: Doubles = center[:, :, square, square].sum(axis=(2, 3)) - 4 * half**2 * background.T
    return light


def _roughness(light: Floats, lag: int) -> Doubles:
    """Return the sum of absolute differences of pixels `lag` apart, `[N]`, at least 1."""
    down = _total(np.abs(light[:, lag:] - light[:, :-lag]))
    across = _total(np.abs(light[:, :, lag:] - light[:, :, :-lag]))
    return down + across + 1.0


def _curvature(light: Floats) -> Doubles:
    """Return the sum of absolute second differences, `[N]`, at least 1."""
    down = light[:, 2:] - 2 * light[:, 1:-1] + light[:, :-2]
    across = light[:, :, 2:] - 2 * light[:, :, 1:-1] + light[:, :, :-2]
    return _total(np.abs(down)) + _total(np.abs(across)) + 1.0


def _total(values: Floats) -> Doubles:
    total: Doubles = values.sum(axis=(1, 2)).astype(np.float64)
    return total
