"""Fields of Gaussian galaxies at positions, and tables of these positions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

ARCSEC = 0.4


def header(ra: float, dec: float, side: int, pixel: float = ARCSEC, turned: float = 0.0) -> fits.Header:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(side + 1) / 2] * 2
    angle = np.radians(turned)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = turn @ np.diag([-pixel, pixel]) / 3600
    return wcs.to_header()


def write_field(
    folder: Path,
    name: str,
    spots: Mapping[tuple[float, float], float],
    *,
    ra: float = 150.0,
    dec: float = 2.0,
    side: int = 300,
) -> None:
    """A square field with Gaussian spots at positions; i and g have other pixels than r."""
    for band, shift, light in (("g", 3, 0.5), ("r", 0, 1.0), ("i", -5, 1.3)):
        head = header(ra, dec, side)
        head["CRPIX1"] += shift
        x, y = WCS(head).all_world2pix(np.array(list(spots)), 0).T if spots else (np.empty(0), np.empty(0))
        rows, columns = np.mgrid[:side, :side]
        image = np.random.default_rng(1).normal(0, 0.01, (side, side))
        for column, row, flux in zip(x, y, spots.values(), strict=True):
            image += light * flux * np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / 50)
        fits.writeto(folder / f"{name}-{band}-7.fits", image.astype(np.float32), head)


def write_table(path: Path, rows: Mapping[str, tuple[float, float]], radius: float | None = 5.0) -> str:
    lines = [f"{name},{ra},{dec},{'' if radius is None else radius}" for name, (ra, dec) in rows.items()]
    path.write_text("\n".join(["galaxy_id,ra,dec,petroR90_r", *lines, ""]))
    return str(path)
