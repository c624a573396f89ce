"""Positions on the sky: a frame's world coordinate system, directions, and HEALPix cells."""

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from astropy.io.fits import Header

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Projection:
    """A frame's projection of the sky (Calabretta & Greisen 2002, A&A 395, 1077).

    Attributes:
        wcs: World coordinate system of astropy.
        width: Width of the frame, pixels.
        height: Height of the frame, pixels.
        pixel_arcsec: Side of a pixel: the root of its area, arcseconds.
        rotation: Position angle of the frame's columns at its reference pixel, degrees.
        center: Direction of the frame's center, unit vector, float64 `[3]`.
    """

    wcs: Any
    width: int
    height: int
    pixel_arcsec: float
    rotation: float
    center: Floats

    @classmethod
    def of_header(cls, header: "Header") -> Self:
        """Read a header's projection.

        Raises:
            ValueError: The header does not have one, or its coordinates are not RA and Dec near ICRS.
        """
        from astropy.wcs import WCS, NoConvergence
        from astropy.wcs.utils import proj_plane_pixel_area

        width, height = int(header.get("NAXIS1", 0)), int(header.get("NAXIS2", 0))
        if width < 1 or height < 1:
            raise ValueError("its image has no pixels")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # real headers violate the standard in ways that do not matter
            try:
                wcs = WCS(header, naxis=2)
                _check_system(wcs, header)
                middle = np.array([[(width - 1) / 2, (height - 1) / 2]])
                center = directions(*wcs.all_pix2world(middle, 0, ra_dec_order=True).T)[0]
                matrix = wcs.pixel_scale_matrix
                side = math.sqrt(proj_plane_pixel_area(wcs)) * 3600
            except (NoConvergence, TypeError, ArithmeticError, np.linalg.LinAlgError) as error:
                raise ValueError(f"its coordinates cannot be used: {error}") from None
        if not np.isfinite(center).all() or not side > 0:
            raise ValueError("its coordinates are not finite")
        rotation = math.degrees(math.atan2(matrix[0, 1], matrix[1, 1]))
        return cls(wcs, width, height, side, rotation, center)

    def pixels(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Return column and row of positions in degrees, from 0 at the first pixel's center; NaN if none."""
        from astropy.wcs import NoConvergence

        try:
            x, y = self.wcs.all_world2pix(np.stack([ra, dec], axis=1), 0, ra_dec_order=True).T
        except NoConvergence as error:
            x, y = error.best_solution.T
        # The projection also maps the opposite side of the sky onto the frame.
        far = np.linalg.norm(directions(ra, dec) - self.center, axis=1) > 1.0
        return np.where(far, np.nan, x), np.where(far, np.nan, y)

    def positions(self, pixels: Floats) -> tuple[Floats, Floats]:
        """Return right ascension and declination, degrees, of columns and rows `[N, 2]`."""
        ra, dec = self.wcs.all_pix2world(pixels, 0, ra_dec_order=True).T
        return ra, dec

    def has_pixels_of(self, other: "Projection") -> bool:
        """Return whether a pixel of the other frame is the same pixel of this one, to a thousandth."""
        if (self.width, self.height) != (other.width, other.height):
            return False
        ends = np.array([[0, 0], [self.width - 1, self.height - 1], [0, self.height - 1]], float)
        places = self.pixels(*other.positions(ends))
        return bool(np.allclose(np.stack(places, axis=1), ends, rtol=0, atol=1e-3))


def _check_system(wcs: Any, header: "Header") -> None:
    if not wcs.has_celestial:
        raise ValueError("its header has no coordinates on the sky")
    if (wcs.wcs.lngtyp.strip(), wcs.wcs.lattyp.strip()) != ("RA", "DEC"):
        raise ValueError(f"its coordinates are {wcs.wcs.lngtyp} and {wcs.wcs.lattyp}, not RA and DEC")
    if wcs.wcs.radesys.strip().upper().startswith("FK4"):
        raise ValueError("its coordinates are of B1950 (FK4), not ICRS or J2000")
    if not all(isinstance(header.get(key), (int, float)) for key in ("CRVAL1", "CRVAL2")):
        raise ValueError("its header does not have the position of its reference pixel (CRVAL1, CRVAL2)")


def directions(ra: Floats, dec: Floats) -> Floats:
    """Return unit vectors `[N, 3]` of positions in degrees."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def healpix_cells(ra: Floats, dec: Floats, order: int) -> npt.NDArray[np.int64]:
    """Return the HEALPix cells (Gorski et al. 2005, ApJ 622, 759) of positions, in nested numbering.

    Args:
        ra: Right ascension, degrees, float64 `[N]`; NaN if unknown.
        dec: Declination, degrees, float64 `[N]`; NaN if unknown.
        order: The base-2 logarithm of NSIDE: the sky has 12 * 4**order cells.

    Returns:
        Cells, int64 `[N]`; -1 without a position.
    """
    from astropy import units
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix.nested import lonlat_to_healpix

    cells = np.full(len(ra), -1, np.int64)
    known = np.isfinite(ra) & (np.abs(dec) <= 90)
    if known.any():
        lon, lat = Longitude(ra[known], units.deg), Latitude(dec[known], units.deg)
        cells[known] = lonlat_to_healpix(lon, lat, order)
    return cells
