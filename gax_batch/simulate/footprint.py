"""The region of the sky that a simulated survey covers, similar to that of SDSS."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Wedge:
    """A region between two right ascensions and two declinations, degrees ICRS.

    `ra_stop` may exceed 360 for a wedge across the origin of right ascension.
    """

    ra_start: float
    ra_stop: float
    dec_start: float
    dec_stop: float

    @property
    def square_degrees(self) -> float:
        """Solid angle in square degrees."""
        height = np.sin(np.radians(self.dec_stop)) - np.sin(np.radians(self.dec_start))
        return float(np.degrees(height) * (self.ra_stop - self.ra_start))


# The Legacy survey's contiguous northern cap and its three southern stripes (76, 82, 86), rounded to
# disjoint wedges: Abazajian et al. (2009, ApJS 182, 543), figure 1 and section 2.
FOOTPRINT: tuple[Wedge, ...] = (
    Wedge(140, 232, -3, 0),
    Wedge(122, 245, 0, 12),
    Wedge(118, 255, 12, 45),
    Wedge(118, 240, 45, 55),
    Wedge(135, 225, 55, 65),
    Wedge(310, 418, -1.25, 1.25),
    Wedge(310, 410, -11, -8.5),
    Wedge(340, 390, 13, 16),
)


def draw_positions(
    rng: np.random.Generator, n: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Draw positions that are uniform on the sphere within `FOOTPRINT`.

    Args:
        rng: Source of randomness.
        n: Number of positions.

    Returns:
        Right ascensions in [0, 360) and declinations, degrees ICRS, float64 `[n]` each.
    """
    areas = np.array([wedge.square_degrees for wedge in FOOTPRINT])
    corners = np.array([[w.ra_start, w.ra_stop, w.dec_start, w.dec_stop] for w in FOOTPRINT])
    chosen = rng.choice(len(FOOTPRINT), size=n, p=areas / areas.sum())
    ra_start, ra_stop, dec_start, dec_stop = corners[chosen].T
    ra = rng.uniform(ra_start, ra_stop) % 360.0
    sine = rng.uniform(np.sin(np.radians(dec_start)), np.sin(np.radians(dec_stop)))
    return ra, np.degrees(np.arcsin(sine))


def in_footprint(ra: npt.ArrayLike, dec: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return whether positions (degrees, broadcast) lie within `FOOTPRINT`."""
    ra, dec = np.broadcast_arrays(np.asarray(ra, np.float64), np.asarray(dec, np.float64))
    inside = np.zeros(ra.shape, np.bool_)
    for w in FOOTPRINT:
        along = (ra - w.ra_start) % 360.0 <= w.ra_stop - w.ra_start
        inside |= along & (dec >= w.dec_start) & (dec <= w.dec_stop)
    return inside
