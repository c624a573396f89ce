"""A galaxy's fluxes in three bands, and FITS files of them."""

import io

import numpy as np
import numpy.typing as npt
from astropy.io import fits

Fluxes = dict[str, npt.NDArray[np.float32]]


def galaxy(side: int = 128) -> Fluxes:
    """A red galaxy on noise, not symmetric, in nanomaggies."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:side, :side] - side / 2
    light = 3 * np.exp(-np.hypot(x - y / 3, 2 * y) / (side / 16)) + np.exp(-np.hypot(x - 9, y - 12) / 2)
    return {
        band: (light * share + rng.normal(0, 0.02, light.shape)).astype(np.float32)
        for band, share in (("g", 0.4), ("r", 0.8), ("i", 1.2))
    }


def stored(*hdus: fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU) -> bytes:
    first = () if isinstance(hdus[0], fits.PrimaryHDU) else (fits.PrimaryHDU(),)
    buffer = io.BytesIO()
    fits.HDUList([*first, *hdus]).writeto(buffer)
    return buffer.getvalue()


def cube(bands: Fluxes, order: str = "gri", **header: object) -> fits.PrimaryHDU:
    hdu = fits.PrimaryHDU(np.stack([bands[band] for band in order]))
    hdu.header.update(header)
    return hdu
