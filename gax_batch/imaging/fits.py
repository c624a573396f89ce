"""FITS cutouts: bands as planes of one image, as extensions, or in one file each.

Integers and floats of any size and byte order are supported, scaled or not (BSCALE, BLANK), with gzip, bzip2
or fpack compression. The band of an image is in its `EXTNAME`, `BAND` or `FILTER`, or in the file's `BANDS`.
Without any of these, images and planes are the preset's bands from blue to red. FITS standard 4.0 (Pence et
al. 2010, A&A 524, A42) counts rows from the bottom. Rows are flipped, so that north is where other images
have it.
"""

import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gax_batch.imaging import fits_file
from gax_batch.imaging.cutout import ImageFlag
from gax_batch.imaging.fits_file import is_fits
from gax_batch.imaging.limits import ImageLimits
from gax_batch.imaging.rgb import PRESETS, Preset
from gax_batch.rejects import Reason, RejectError, Stage

if TYPE_CHECKING:
    from astropy.io.fits import Header

Float = npt.NDArray[np.float32]

SUFFIXES = tuple(
    f".{name}{packed}" for name in ("fits", "fit", "fts") for packed in ("", ".gz", ".bz2", ".fz")
)
MAX_MASKED = 0.5
"""Maximum fraction of masked pixels in a cutout. Up to that, they are filled with the sky level."""

_BAND_KEYS = ("EXTNAME", "BAND", "FILTER", "FILTER1")
# Its decoder (astropy 8.0) trusts the size that a tile claims, and writes beyond its memory.
_UNSAFE = "HCOMPRESS_1"
# Each tile of a compressed image is decompressed separately. Usually a tile is a row.
_MAX_TILES = 65_536
_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    zlib.error,
    struct.error,
)


def read_bands(data: bytes, preset: Preset, limits: ImageLimits) -> tuple[Float, ImageFlag]:
    """Read the bands of a FITS file that a preset needs.

    Args:
        data: The file.
        preset: The bands that become red, green and blue.
        limits: Limits of images. The limit in bytes also applies to the decompressed file.

    Returns:
        Fluxes, float32 `[bands, height, width]` from red to blue, with the first row on top and masked pixels
        filled with the sky level; and the image's flags.

    Raises:
        RejectError: The file cannot be used; stage `decode`.
    """
    data = fits_file.plain(data, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # real files violate the standard in ways that do not matter here
        try:
            images = _images(data, limits)
        except _errors() as error:
            raise _undecodable(data, error) from None
    flags = ImageFlag(0) if preset.bands else ImageFlag.GRAYSCALE
    return _whole(_chosen(images, preset), flags)


def read_band_files(files: Sequence[bytes], preset: Preset, limits: ImageLimits) -> tuple[Float, ImageFlag]:
    """Read a galaxy with one file per band. Only the first plane of a file's first image counts.

    Args:
        files: One file for each of the preset's bands, in their order.
        preset: The bands.
        limits: As for `read_bands`. The limit in pixels applies to all bands together.

    Returns:
        As `read_bands`.

    Raises:
        RejectError: A file cannot be used, or their shapes differ; stage `decode`.
    """
    planes: list[Float] = []
    limits = replace(limits, pixels=limits.pixels // len(preset.bands))
    for band, data in zip(preset.bands, files, strict=True):
        try:
            planes.append(read_frame(data, limits)[0])
        except RejectError as error:
            raise _reject(error.reject.reason, f"band {band}: {error.reject.detail}") from None
    return _whole(_stacked(planes), ImageFlag(0))


def read_frame(data: bytes, limits: ImageLimits) -> tuple[Float, "Header"]:
    """Read the first image of a FITS file, with its rows in the file's order, and its header.

    Args:
        data: The file.
        limits: Limits of images. The limit in bytes also applies to the decompressed file.

    Returns:
        Fluxes, float32 `[height, width]`, masked pixels NaN; and the header, which has the coordinates.

    Raises:
        RejectError: The file cannot be used; stage `decode`.
    """
    if not is_fits(data):
        raise _reject(Reason.NOT_AN_IMAGE, f"the bytes start with {data[:8]!r}, so it is not a FITS file")
    data = fits_file.plain(data, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            hdu = _first_image(io.BytesIO(data))
            _check_size(hdu, 0, limits)
            return _pixels(hdu)[0], hdu.header
        except _errors() as error:
            raise _undecodable(data, error) from None


def read_header(file: BinaryIO, max_bytes: int = ImageLimits().header_bytes) -> "Header":
    """Read the header of the first image of a FITS file, without its pixels.

    Args:
        file: The file, compressed or not.
        max_bytes: Maximum size in bytes of this header and those before it.

    Raises:
        ValueError: The file does not have an image.
        OSError: It cannot be read, or the headers are larger.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _first_image(fits_file.open_headers(file, max_bytes)).header
        except RejectError as error:
            raise ValueError(error.reject.detail) from None
        except OSError:
            raise
        except _errors() as error:
            raise ValueError(str(error)) from None


def _first_image(file: BinaryIO | io.RawIOBase) -> Any:
    from astropy.io import fits

    for hdu in fits.open(file, memmap=False, lazy_load_hdus=True):
        if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2:
            return hdu
    raise _reject(Reason.WRONG_SHAPE, "the file does not have an image")


def fill_masked(planes: Float, sky: float | None = None) -> Float:
    """Fill pixels that are NaN in any band with the sky level.

    Args:
        planes: Fluxes, float32 `[bands, height, width]`.
        sky: The level between galaxies; None for the median of each band.

    Returns:
        The filled planes.

    Raises:
        RejectError: More than `MAX_MASKED` of the pixels are NaN; stage `decode`.
    """
    masked = ~np.isfinite(planes).all(axis=0)
    if masked.all():
        raise _reject(Reason.NOT_FINITE, "every pixel is NaN or infinite")
    if masked.mean() > MAX_MASKED:
        raise _reject(Reason.MASKED, f"{masked.mean():.0%} of the pixels are masked or off the frame")
    levels = [np.median(plane[~masked]) if sky is None else sky for plane in planes]
    return np.where(masked, np.array(levels, np.float32)[:, None, None], planes)


def _images(data: bytes, limits: ImageLimits) -> list[tuple[str | None, Float]]:
    """Return every band of the file with its name or None: `[height, width]`, masked pixels NaN."""
    from astropy.io import fits

    found: list[tuple[str | None, Float]] = []
    total = 0
    with fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=True) as hdus:
        for hdu in hdus:
            if not hdu.is_image or hdu.header.get("NAXIS", 0) < 2:
                continue
            total += _check_size(hdu, total, limits)
            pixels = _pixels(hdu)
            names = _names(hdu.header, len(pixels))
            found += list(zip(names, pixels, strict=True))
    return found


def _check_size(hdu: Any, total: int, limits: ImageLimits) -> int:
    """Return the number of pixels of an image. All bands together are limited."""
    shape, limit = hdu.shape, limits.pixels
    size, sides = int(math.prod(shape)), " x ".join(map(str, shape))
    if not size:
        raise _reject(Reason.ZERO_PIXELS, f"an image of {sides} pixels")
    if total + size > limit:
        raise _reject(Reason.TOO_MANY_PIXELS, f"{sides} and more before it, the limit is {limit} in total")
    if getattr(hdu, "compression_type", None) == _UNSAFE:
        raise _reject(Reason.UNSUPPORTED_FORMAT, f"tiles compressed by {_UNSAFE}; use RICE_1 or GZIP_2")
    tile = getattr(hdu, "tile_shape", shape)
    if size > _MAX_TILES * math.prod(tile):
        raise _reject(Reason.DECOMPRESSION_BOMB, f"{sides} pixels in tiles of {' x '.join(map(str, tile))}")
    return size


def _pixels(hdu: Any) -> Float:
    pixels = _unpacked(hdu)
    if pixels.dtype.kind == "c":
        raise _reject(Reason.WRONG_SHAPE, "complex pixels")
    if pixels.ndim > 3:
        pixels = pixels.reshape([n for n in pixels.shape[:-2] if n > 1] + list(pixels.shape[-2:]))
    if pixels.ndim > 3:
        raise _reject(Reason.WRONG_SHAPE, f"an image of shape {list(pixels.shape)}")
    blank = hdu.header.get("BLANK")
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    # astropy makes BLANK pixels NaN where it scales, but leaves plain integers unchanged.
    masked = pixels == blank if blank is not None and pixels.dtype.kind in "iu" else None
    fluxes = pixels.astype(np.float32)
    if masked is not None:
        fluxes[masked] = np.nan
    # A value that is too large for the arithmetic of colors is not a flux.
    fluxes[np.abs(fluxes) > 1e30] = np.nan
    return fluxes


def _unpacked(hdu: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(hdu.data)
    except (*_ERRORS, MemoryError):
        raise
    except Exception as error:
        raise ValueError(str(error)) from error


def _names(header: "Header", planes: int) -> list[str | None]:
    bands = str(header.get("BANDS", "")).strip()
    named = [part for part in re.split(r"[\s,;]+", bands) if part]
    if len(named) == 1 and len(named[0]) == planes:
        named = list(named[0])
    if len(named) == planes:
        return [name.lower() for name in named]
    if planes == 1:
        texts = (str(header[key]).strip().lower() for key in _BAND_KEYS if header.get(key))
        return [next(filter(None, texts), None)]
    return [None] * planes


def _chosen(images: Sequence[tuple[str | None, Float]], preset: Preset) -> Float:
    """Return the preset's bands from red to blue, `[bands, height, width]`."""
    if not images:
        raise _reject(Reason.WRONG_SHAPE, "the file does not have an image")
    if not preset.bands:
        planes = [images[0][1]]
    else:
        by_band = {band: plane for name, plane in images if (band := _band(name, preset)) is not None}
        if not by_band and len(images) == len(preset.bands):
            by_band = {band: plane for band, (_, plane) in zip(preset.bands[::-1], images, strict=True)}
        missing = [band for band in preset.bands if band not in by_band]
        if missing:
            there = ", ".join(name or "unnamed" for name, _ in images)
            raise _reject(
                Reason.MISSING_BAND,
                f"no band {', '.join(missing)} among the images: {there}{_proposal([n for n, _ in images])}",
            )
        planes = [by_band[band] for band in preset.bands]
    return _stacked(planes)


def _stacked(planes: Sequence[Float]) -> Float:
    shapes = {plane.shape for plane in planes}
    if len(shapes) > 1:
        sizes = " and ".join(f"{width} x {height}" for height, width in sorted(shapes))
        raise _reject(Reason.WRONG_SHAPE, f"the bands have {sizes} pixels")
    return np.stack(planes)


def _whole(planes: Float, flags: ImageFlag) -> tuple[Float, ImageFlag]:
    """Fill masked pixels, set their flag, and put the first row on top."""
    if not np.isfinite(planes).all():
        planes = fill_masked(planes)
        flags |= ImageFlag.MASKED
    return planes[:, ::-1], flags


def _proposal(names: Sequence[str | None]) -> str:
    """Return the presets whose bands are all among the named images, as the end of a reject's detail."""
    fitting = [
        key
        for key, preset in PRESETS.items()
        if preset.bands and set(preset.bands) <= {_band(name, preset) for name in names}
    ]
    return f"; these are the bands of --preset {' or '.join(fitting)}" if fitting else ""


def _band(name: str | None, preset: Preset) -> str | None:
    """Return the band in a name such as `g`, `SDSS_g`, `HSC-G` or `r.00000`; None unless it has just one."""
    parts = set(re.split(r"[^a-z0-9]+", name or ""))
    found = [band for band in preset.bands if band in parts]
    return found[0] if len(found) == 1 else None


def _errors() -> tuple[type[Exception], ...]:
    """Return the classes of astropy's errors for damaged files."""
    from astropy.io.fits import VerifyError

    return (*_ERRORS, VerifyError)


def _reject(reason: Reason, detail: str) -> RejectError:
    return RejectError(Stage.DECODE, reason, detail)


def _undecodable(data: bytes, error: Exception) -> RejectError:
    if isinstance(error, RejectError):
        return error
    cut = len(data) % 2880 or "truncated" in str(error).lower() or "too small" in str(error)
    return _reject(Reason.TRUNCATED if cut else Reason.CORRUPT, str(error) or type(error).__name__)
