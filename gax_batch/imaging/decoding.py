"""Decode any supported form of a cutout (image, FITS file, raw tensor) to uint8 `[64, 64, 3]`."""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from gax_batch.imaging.cutout import (
    DEFAULT_LIMITS,
    Cutout,
    ImageFlag,
    central_window,
    cutout_from_array,
    decode_cutout,
    finish_cutout,
)
from gax_batch.imaging.defaults import DEFAULT_PRESET, DEFAULT_RADIUS_ARCSEC, GZ2_CROP
from gax_batch.imaging.fits import read_band_files, read_bands
from gax_batch.imaging.fits_file import is_fits
from gax_batch.imaging.limits import ImageLimits
from gax_batch.imaging.rgb import PRESETS, to_rgb


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes what was read to cutouts.

    Attributes:
        crop: Side of the central square that is used, as a fraction of the image's shorter side.
        limits: Limits of images. Larger images are rejected.
        preset: Name of the mapping from a FITS file's bands to RGB, a key of `gax_batch.imaging.rgb.PRESETS`.
        default_radius: Petrosian R90 of galaxies on frames whose radius is unknown, arcseconds.
    """

    crop: float = GZ2_CROP
    limits: ImageLimits = DEFAULT_LIMITS
    preset: str = DEFAULT_PRESET
    default_radius: float = DEFAULT_RADIUS_ARCSEC

    def decode(self, found: bytes | tuple[bytes, ...] | npt.NDArray[Any]) -> tuple[Cutout, ImageFlag]:
        """Make a cutout.

        Args:
            found: An encoded JPEG, PNG, TIFF or FITS file, a tuple of FITS files of one band each in the
                preset's order, or a tensor as for `gax_batch.imaging.cutout.cutout_from_array`.

        Returns:
            The cutout, uint8 `[64, 64, 3]`, and the image's flags.

        Raises:
            RejectError: The input cannot be used; stage `decode`.
        """
        preset = PRESETS[self.preset]
        if isinstance(found, tuple):
            planes, flags = read_band_files(found, preset, self.limits)
        elif not isinstance(found, bytes):
            return cutout_from_array(found, crop=self.crop)
        elif not is_fits(found):
            return decode_cutout(found, crop=self.crop, limits=self.limits)
        else:
            planes, flags = read_bands(found, preset, self.limits)
        height, width = planes.shape[1:]
        window = central_window(width, height, self.crop)
        box = window.pixel_box(width, height)
        return finish_cutout(to_rgb(planes, preset, box), window.moved(*box[:2]), flags)
