"""Default settings of cutouts. This module imports no library, since `--help` shows its values."""

from typing import Literal

PresetName = Literal["sdss-gri", "legacy-grz", "hsc-gri", "panstarrs-gri", "single"]
"""Name of a mapping from the bands of FITS files to red, green and blue."""

DEFAULT_PRESET: PresetName = "sdss-gri"

GZ2_CROP = 256 / 424
"""Side of the central square of a Galaxy Zoo 2 image on which the networks are trained, as a fraction."""

DEFAULT_RADIUS_ARCSEC = 7.0
"""Petrosian R90 of a galaxy of unknown size, arcseconds: about the median of the Galaxy Zoo 2 sample."""
