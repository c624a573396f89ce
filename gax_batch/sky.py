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
        wcs: astropy's.
        width: Of the frame, pixels.
        height: Likewise.
        pixel_arcsec: Side of a pixel: the root of its area.
        rotation: Position angle of the frame's columns at its reference pixel, degrees.
        center: Direction of its center, `[3]`.
        reach: Distance from center to the farthest corner, as a chord of the unit sphere.
    """

    wcs: Any
    width: int
    height: int
    pixel_arcsec: float
    rotation: float
    center: Floats
    reach: float

    @classmethod
    def of_header(cls, header: "Header") -> Self:
        """Read a header's projection.

        Raises:
            ValueError: It has none of the sky.
        """
        from astropy.wcs import WCS, NoConvergence
        from astropy.wcs.utils import proj_plane_pixel_area

        width, height = int(header.get("NAXIS1", 0)), int(header.get("NAXIS2", 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # real headers break the standard in ways that do not matter here
            try:
                wcs = WCS(header, naxis=2)
                if not wcs.has_celestial:
                    raise ValueError("its header has no coordinates on the sky")
                corners = np.array([[0, 0], [0, height - 1], [width - 1, 0], [width - 1, height - 1]], float)
                points = np.vstack([[(width - 1) / 2, (height - 1) / 2], corners])
                vectors = directions(*wcs.all_pix2world(points, 0).T)
                matrix = wcs.pixel_scale_matrix
                side = math.sqrt(proj_plane_pixel_area(wcs)) * 3600
            except (NoConvergence, TypeError, ArithmeticError, np.linalg.LinAlgError) as error:
                raise ValueError(f"its coordinates cannot be used: {error}") from None
        if not np.isfinite(vectors).all() or not side > 0:
            raise ValueError("its coordinates are not finite")
        reach = float(np.linalg.norm(vectors[1:] - vectors[0], axis=1).max())
        rotation = math.degrees(math.atan2(matrix[0, 1], matrix[1, 1]))
        return cls(wcs, width, height, side, rotation, vectors[0], reach)

    def pixels(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Column and row of positions in degrees, from 0 at the first pixel's center; NaN for no place."""
        from astropy.wcs import NoConvergence

        try:
            x, y = self.wcs.all_world2pix(np.stack([ra, dec], axis=1), 0).T
        except NoConvergence as error:
            x, y = error.best_solution.T
        # The other side of the sky is projected onto the frame too.
        far = np.linalg.norm(directions(ra, dec) - self.center, axis=1) > 1.0
        return np.where(far, np.nan, x), np.where(far, np.nan, y)

    def has_pixels_of(self, other: "Projection") -> bool:
        """Whether a pixel of the other frame is the same pixel of this one, to a thousandth."""
        if (self.width, self.height) != (other.width, other.height):
            return False
        ends = np.array([[0, 0], [self.width - 1, self.height - 1], [0, self.height - 1]], float)
        ra, dec = other.wcs.all_pix2world(ends, 0).T
        return bool(np.allclose(np.stack(self.pixels(ra, dec), axis=1), ends, rtol=0, atol=1e-3))

    def edge_distance(self, ra: Floats, dec: Floats) -> Floats:
        """Pixels from positions to the frame's nearest edge; negative outside, and where there is none."""
        x, y = self.pixels(ra, dec)
        distance = np.minimum(
            np.minimum(x + 0.5, self.width - 0.5 - x), np.minimum(y + 0.5, self.height - 0.5 - y)
        )
        return np.nan_to_num(distance, nan=-1.0)


def directions(ra: Floats, dec: Floats) -> Floats:
    """Unit vectors `[N, 3]` of positions in degrees."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def healpix_cells(ra: Floats, dec: Floats, order: int) -> npt.NDArray[np.int64]:
    """HEALPix cells (Gorski et al. 2005, ApJ 622, 759) of positions, nested numbering.

    Args:
        ra: Right ascension, degrees, `[N]`; NaN where it is not known.
        dec: Declination likewise.
        order: The base-2 logarithm of NSIDE: the sky has 12 * 4**order cells.

    Returns:
        int64 `[N]`; -1 where there is no position.
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
