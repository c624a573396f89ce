"""Cutouts of frames: each band's pixels around a galaxy, averaged to 64x64 at Galaxy Zoo 2 scale.

A Galaxy Zoo 2 image has 424 pixels of 0.02 Petrosian R90 (Willett et al. 2013, section 2.2), of which the
models see the central 256 as 64: a cutout's pixel is 0.08 R90. Each band is cut by its own coordinates, so
bands may have different pixels. Bands are not rotated to north: the orientation does not matter to the
models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gax_batch.imaging import fits
from gax_batch.imaging.cutout import IMAGE_SIDE, ImageFlag
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.resampling import Window, area_average
from gax_batch.imaging.rgb import PRESETS, to_rgb
from gax_batch.imaging.wcs import Projection
from gax_batch.rejects import Reason, RejectError, Stage
from gax_batch.sources.bands import band_objects, missing_bands
from gax_batch.storage.bulk_reads import fetch_each

MAX_FRAME_BYTES = 1024 * 1024 * 1024
PIXEL_R90 = 0.02 * 256 / IMAGE_SIDE
"""Size of a cutout's pixel in units of the Petrosian R90."""
MAX_ROTATION_DEGREES = 2.0

Float = npt.NDArray[np.float32]
Cutouts = list[tuple[Float, ImageFlag] | RejectError]


@dataclass(frozen=True, slots=True)
class _Bands:
    """Bands with common pixels, `[height, width, bands]`."""

    planes: Float
    projection: Projection


def cut_field(members: pa.Table, decoder: Decoder) -> Cutouts:
    """Cut galaxies out of the field that contains them.

    Args:
        members: `MEMBER_SCHEMA` with positions and a single `object_uri`.
        decoder: Has the settings of decoding.

    Returns:
        For each member float32 `[64, 64, 3]` from 0 to 1 (`[64, 64]` for one band) and the cutout's flags, or
        its reject.

    Raises:
        TransientError: The storage kept failing.
        FatalError: The storage refused the frames.
    """
    preset = PRESETS[decoder.preset]
    uri = members["object_uri"][0].as_py()
    version = members["source_version"][0].as_py()
    try:
        bands = _read_bands(uri, preset.bands, version, decoder)
    except RejectError as error:
        return [error] * len(members)
    ra, dec = (members[name].to_numpy() for name in ("ra", "dec"))
    places = [some.projection.pixels(ra, dec) for some in bands]
    cutouts: Cutouts = []
    for index, radius in enumerate(members["radius"].to_pylist()):
        arcsec = PIXEL_R90 * (decoder.default_radius if radius is None else radius)
        try:
            planes, flags = _cut(bands, [(float(x[index]), float(y[index])) for x, y in places], arcsec)
        except RejectError as error:
            cutouts.append(error)
        else:
            cutouts.append((to_rgb(planes, preset), flags))
    return cutouts


def _read_bands(uri: str, bands: Sequence[str], version: str, decoder: Decoder) -> list[_Bands]:
    if missing := missing_bands(version, bands):
        raise RejectError(Stage.READ, Reason.MISSING_BAND, f"{uri} has no band {', '.join(missing)}")
    objects = band_objects(uri, version, bands)
    read: dict[int, _Bands] = {}
    limits = replace(decoder.limits, bytes=MAX_FRAME_BYTES)

    def handle(index: int, found: bytes | RejectError) -> None:
        if isinstance(found, RejectError):
            raise found
        plane, header = fits.read_frame(found, limits)
        try:
            read[index] = _Bands(plane[..., None], Projection.of_header(header))
        except ValueError as error:
            raise RejectError(Stage.DECODE, Reason.CORRUPT, f"{objects[index].uri}: {error}") from None

    fetch_each(objects, handle, max_bytes=MAX_FRAME_BYTES)
    found = [read[index] for index in range(len(bands))]
    for band in found[1:]:
        turned = (band.projection.rotation - found[0].projection.rotation + 180) % 360 - 180
        if abs(turned) > MAX_ROTATION_DEGREES:
            raise RejectError(
                Stage.DECODE,
                Reason.WRONG_SHAPE,
                f"the bands of {uri} are rotated by {abs(turned):.1f} degrees",
            )
    return _joined(found)


def _joined(bands: Sequence[_Bands]) -> list[_Bands]:
    """Join neighboring bands with the same pixels, since averaging three takes as long as averaging one."""
    joined = [bands[0]]
    for band in bands[1:]:
        last = joined[-1]
        if last.projection.has_pixels_of(band.projection):
            joined[-1] = _Bands(np.concatenate([last.planes, band.planes], axis=2), last.projection)
        else:
            joined.append(band)
    return joined


def _cut(
    bands: Sequence[_Bands], places: Sequence[tuple[float, float]], arcsec: float
) -> tuple[Float, ImageFlag]:
    flags = ImageFlag(0)
    cut: list[Float] = []
    for band, (x, y) in zip(bands, places, strict=True):
        if not (np.isfinite(x) and np.isfinite(y)):
            raise RejectError(Stage.READ, Reason.OFF_FRAME, "the position is not on every band's frame")
        scale = arcsec / band.projection.pixel_arcsec
        if scale < 1:
            flags |= ImageFlag.UPSCALED
        # The center of a pixel is a whole number, its edge half a pixel before it.
        span = scale * IMAGE_SIDE
        window = Window(x + 0.5 - span / 2, y + 0.5 - span / 2, scale, IMAGE_SIDE)
        cut.append(_average(*_surroundings(band.planes, window)))
    planes = np.moveaxis(np.concatenate(cut, axis=2), 2, 0)
    if not np.isfinite(planes).all():
        planes = fits.fill_masked(planes, sky=0.0)
        flags |= ImageFlag.MASKED
    # Rows of FITS are counted from the bottom.
    return planes[:, ::-1], flags


def _average(pixels: Float, window: Window) -> Float:
    """Return the mean of the known pixels of each output pixel; NaN if fewer than half are known."""
    known = np.isfinite(pixels)
    if known.all():
        return np.asarray(area_average(pixels, window), np.float32)
    share = area_average(known.astype(np.float32), window)
    light = area_average(np.where(known, pixels, np.float32(0)), window)
    return np.where(share >= 0.5, light / np.maximum(share, 0.5), np.nan).astype(np.float32)


def _surroundings(planes: Float, window: Window) -> tuple[Float, Window]:
    """Return the pixels that a window needs, with NaN beyond the frame's edges."""
    height, width, bands = planes.shape
    span = window.scale * window.side
    left, top = int(np.floor(window.left)), int(np.floor(window.top))
    right, bottom = int(np.ceil(window.left + span)), int(np.ceil(window.top + span))
    inner = planes[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if left < 0 or top < 0 or right > width or bottom > height:
        pixels = np.full((bottom - top, right - left, bands), np.nan, np.float32)
        y, x = max(-top, 0), max(-left, 0)
        pixels[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        inner = pixels
    return inner, window.moved(left, top)
