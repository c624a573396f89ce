"""Encoded images and raw tensors to cutouts: uint8 `[64, 64, 3]`, RGB, with the galaxy at the center.

Training and inference share this code. An image's central square has `crop` times the side of its shorter
side (by default the 256 of 424 pixels of a Galaxy Zoo 2 cutout). It is averaged over areas to 64x64 pixels.
An image of 64x64 pixels is used unchanged. JPEGs are decoded at 1/2, 1/4 or 1/8 size where that agrees with
averaging. All arithmetic is integer or elementwise, so that the result is the same on every machine.
"""

import io
import struct
import warnings
import zlib
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from gax_batch.imaging import jpeg
from gax_batch.imaging.defaults import GZ2_CROP
from gax_batch.imaging.limits import ImageLimits, check_scans, check_tags
from gax_batch.imaging.resampling import Window, area_average
from gax_batch.rejects import Reason, RejectError, Stage

Cutout = npt.NDArray[np.uint8]

IMAGE_SIDE = 64
CUTOUT_BYTES = IMAGE_SIDE * IMAGE_SIDE * 3

_DRAFT_FACTORS = (8, 4, 2)
_FLOAT_TOLERANCE = 1e-3
_OTHER_FORMATS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"\x00\x00\x00\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"II+\x00": "BigTIFF",
    b"MM\x00+": "BigTIFF",
    b"\x89HDF": "HDF5",
}
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)


class ImageFlag(IntFlag):
    """Properties of a cutout's image: the low bits of the catalog's `flags`."""

    UPSCALED = 1
    GRAYSCALE = 2
    ALPHA = 4
    SIXTEEN_BIT = 8
    MASKED = 64


DEFAULT_LIMITS = ImageLimits()


def decode_cutout(
    data: bytes, *, crop: float = GZ2_CROP, limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[Cutout, ImageFlag]:
    """Decode a JPEG, PNG or TIFF to a cutout.

    Args:
        data: The encoded image. Gray, palette, CMYK and 16-bit images become 8-bit RGB, alpha is composed
            over black, 32-bit floats range from 0 (black) to 1 (white).
        crop: Side of the central square that is used, as a fraction of the image's shorter side.
        limits: Limits of the image. Larger images are rejected.

    Returns:
        The cutout, uint8 `[64, 64, 3]`, and the image's flags.

    Raises:
        RejectError: The image cannot be used; stage `decode`.
    """
    return decode_window(data, IMAGE_SIDE, crop=crop, limits=limits)


def decode_window(
    data: bytes, side: int, *, crop: float = GZ2_CROP, limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[Cutout, ImageFlag]:
    """Decode a central window of another size at a cutout's scale. Training augments within its margin.

    Args:
        data: The encoded image, as for `decode_cutout`.
        side: Side of the window in cutout pixels. 64 gives the cutout itself; a Galaxy Zoo 2 image of 424
            pixels has 106.
        crop: As for `decode_cutout`: the fraction of the image that becomes 64 pixels.
        limits: As for `decode_cutout`.

    Returns:
        The window, uint8 `[side, side, 3]`, and the image's flags.

    Raises:
        RejectError: The image cannot be used; stage `decode`.
        ValueError: The window is larger than the image.
    """
    plain = _plain_jpeg(data, side, crop, limits) if data.startswith(jpeg.MAGIC) else None
    if plain is not None:
        return finish_cutout(*plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about broken metadata, which is not used
        image = _open(data, limits)
        flags = _flags_of(image)
        window = central_window(image.width, image.height, crop, side)
        try:
            pixels, window = _decode(image, window)
        except Image.DecompressionBombError as error:
            raise _reject(Reason.TOO_MANY_PIXELS, str(error)) from None
        except _DECODER_ERRORS as error:
            raise _undecodable(data, error) from None
    return finish_cutout(pixels, window, flags)


def cutout_from_array(array: npt.NDArray[Any], *, crop: float = GZ2_CROP) -> tuple[Cutout, ImageFlag]:
    """Make a cutout of a raw tensor.

    Args:
        array: Pixels, uint8, uint16 or floats from 0 to 1, `[height, width, 3]` or `[height, width]`.
        crop: As for `decode_cutout`.

    Returns:
        The cutout, uint8 `[64, 64, 3]`, and the tensor's flags.

    Raises:
        RejectError: The tensor cannot be used; stage `decode`.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise _reject(Reason.WRONG_SHAPE, f"shape {list(array.shape)}")
    if array.dtype.kind != "f" and array.dtype not in (np.uint8, np.uint16):
        raise _reject(Reason.WRONG_SHAPE, f"pixels are {array.dtype}, not uint8, uint16 or float")
    height, width = array.shape[:2]
    if not height or not width:
        raise _reject(Reason.ZERO_PIXELS, f"{width} x {height} pixels")
    flags = ImageFlag.GRAYSCALE if array.ndim == 2 else ImageFlag(0)
    if array.dtype == np.uint16:
        flags |= ImageFlag.SIXTEEN_BIT
    window = central_window(width, height, crop)
    left, top, right, bottom = window.pixel_box(width, height)
    return finish_cutout(array[top:bottom, left:right], window.moved(left, top), flags)


def central_window(width: int, height: int, crop: float, side: int = IMAGE_SIDE) -> Window:
    """Return the window of a cutout in an image, or of another size at the same scale."""
    if not 0 < crop <= 1:
        raise ValueError(f"crop must be above 0 and at most 1, not {crop}")
    final = width == height == IMAGE_SIDE
    # Round, since 256 / 424 * 424 is not 256 in floating point.
    scale = 1.0 if final else round(crop * min(width, height), 6) / IMAGE_SIDE
    return Window.centered(width, height, scale, side)


class _Checked(ImageFile):
    """Distinguishes an image without pixels from one whose header cannot be read."""

    def _open(self) -> None:
        super()._open()  # type: ignore[safe-super]
        if self.mode and not all(self.size):
            raise _reject(Reason.ZERO_PIXELS, f"{self.size[0]} x {self.size[1]} pixels")


class _Jpeg(_Checked, JpegImageFile):
    pass


class _Png(_Checked, PngImageFile):
    pass


class _Tiff(_Checked, TiffImageFile):
    pass


# Call the plugins by name: Pillow's `open` would try its parsers for other formats on hostile bytes.
_READERS: dict[bytes, type[ImageFile]] = {
    jpeg.MAGIC: _Jpeg,
    b"\x89PNG\r\n\x1a\n": _Png,
    b"II*\x00": _Tiff,
    b"MM\x00*": _Tiff,
}


def is_encoded(data: bytes) -> bool:
    """Return whether the bytes start like a supported image format, which raw pixels do not."""
    return data.startswith(tuple(_READERS))


def _open(data: bytes, limits: ImageLimits) -> ImageFile:
    if not data:
        raise _reject(Reason.EMPTY_FILE, "no bytes")
    if len(data) > limits.bytes:
        raise _reject(Reason.TOO_MANY_BYTES, f"{len(data)} bytes, the limit is {limits.bytes}")
    reader = next((r for magic, r in _READERS.items() if data.startswith(magic)), None)
    if reader is None:
        raise _unknown(data)
    if reader is _Jpeg:
        check_scans(data)
    if reader is _Tiff:
        check_tags(data)
    try:
        image = reader(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise _reject(Reason.TOO_MANY_PIXELS, str(error)) from None
    except _DECODER_ERRORS as error:
        raise _undecodable(data, error) from None
    if image.width * image.height > limits.pixels:
        size = f"{image.width} x {image.height} pixels"
        raise _reject(Reason.TOO_MANY_PIXELS, f"{size}, the limit is {limits.pixels}")
    limits.check_expansion(image.width * image.height * len(image.getbands()), len(data))
    return image


def _flags_of(image: ImageFile) -> ImageFlag:
    raw = _raw_mode(image)
    flags = ImageFlag(0)
    if (
        image.mode in ("1", "L", "LA", "La", "I", "F")
        or image.mode.startswith("I;16")
        or raw.startswith("LA")
    ):
        flags |= ImageFlag.GRAYSCALE
    if "A" in image.getbands() or "transparency" in image.info:
        flags |= ImageFlag.ALPHA
    if ";16" in raw:
        flags |= ImageFlag.SIXTEEN_BIT
    return flags


def _raw_mode(image: ImageFile) -> str:
    """Return how the file stores its pixels. Pillow's own mode does not show whether they had 16 bits."""
    arguments = image.tile[0].args if image.tile else ""
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return str(raw or "")


def _decode(image: ImageFile, window: Window) -> tuple[npt.NDArray[Any], Window]:
    if isinstance(image, JpegImageFile):
        factor = _draft_factor(window)
        if factor > 1:
            image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
            window = window.shrunk(factor)
    box = window.pixel_box(image.width, image.height)
    return _pixels(image.crop(box), "transparency" in image.info), window.moved(box[0], box[1])


def _plain_jpeg(
    data: bytes, side: int, crop: float, limits: ImageLimits
) -> tuple[npt.NDArray[Any], Window, ImageFlag] | None:
    """Return the pixels, window and flags of a plain JPEG, or None if Pillow must decode it."""
    header = jpeg.read_header(data) if len(data) <= limits.bytes else None
    if header is None or header.width * header.height > limits.pixels:
        return None
    check_scans(data)
    limits.check_expansion(header.width * header.height * (1 if header.gray else 3), len(data))
    window = central_window(header.width, header.height, crop, side)
    factor = _draft_factor(window)
    pixels = jpeg.read_pixels(data, header, factor)
    if pixels is None:
        return None
    window = window.shrunk(factor)
    left, top, right, bottom = window.pixel_box(pixels.shape[1], pixels.shape[0])
    flags = ImageFlag.GRAYSCALE if header.gray else ImageFlag(0)
    return pixels[top:bottom, left:right], window.moved(left, top), flags


def _draft_factor(window: Window) -> int:
    """Return the factor by which a JPEG may be decoded smaller."""
    return next((f for f in _DRAFT_FACTORS if _draft_agrees(window, f)), 1)


def _draft_agrees(window: Window, factor: int) -> bool:
    """Return whether a scaled JPEG gives the same averages: exactly, or with at least twice the sampling."""
    return window.divides(factor) or window.scale >= 2 * factor


def _pixels(image: Image.Image, transparency: bool) -> npt.NDArray[Any]:
    """Return the pixels, uint8, uint16 or float32, `[h, w]` or `[h, w, 3]`."""
    mode = image.mode
    if transparency or mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return _over_black(np.asarray(image.convert("RGBA")))
    if mode == "I":
        raise _reject(Reason.UNSUPPORTED_FORMAT, "32-bit integer pixels; use 8 or 16 bits")
    if mode == "F" or mode.startswith("I;16"):
        pixels = np.asarray(image)
        return pixels.astype(pixels.dtype.newbyteorder("="))
    return np.asarray(image if mode in ("L", "RGB") else image.convert("L" if mode == "1" else "RGB"))


def _over_black(rgba: Cutout) -> Cutout:
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)


def finish_cutout(pixels: npt.NDArray[Any], window: Window, flags: ImageFlag) -> tuple[Cutout, ImageFlag]:
    """Average pixels over areas to a cutout.

    Args:
        pixels: Pixels, uint8, uint16 or floats from 0 to 1, `[height, width, 3]` or `[height, width]`.
        window: The window of the cutout in them.
        flags: The image's flags so far.

    Returns:
        The cutout, uint8 `[side, side, 3]`, and the image's flags.

    Raises:
        RejectError: It is blank, or its pixels are not finite; stage `decode`.
    """
    if pixels.dtype.kind == "f":
        _check_floats(pixels)
    if window.scale < 1:
        flags |= ImageFlag.UPSCALED
    cutout = _to_bytes(area_average(pixels, window), pixels.dtype)
    if cutout.ndim == 2:
        cutout = np.repeat(cutout[..., None], 3, axis=2)
    # Compare the middle first: it decides for all but one in a million.
    corner, middle = cutout[0, 0], cutout[cutout.shape[0] // 2, cutout.shape[1] // 2]
    if (middle == corner).all() and (cutout == corner).all():
        raise _reject(Reason.BLANK, f"every pixel is {cutout[0, 0].tolist()}")
    return np.ascontiguousarray(cutout), flags


def _check_floats(pixels: npt.NDArray[Any]) -> None:
    if not np.isfinite(pixels).all():
        raise _reject(Reason.NOT_FINITE, f"{int((~np.isfinite(pixels)).sum())} pixels are NaN or infinite")
    low, high = float(pixels.min()), float(pixels.max())
    if low < -_FLOAT_TOLERANCE or high > 1 + _FLOAT_TOLERANCE:
        raise _reject(
            Reason.UNSUPPORTED_FORMAT, f"float pixels from {low:g} to {high:g}; scale them to 0 to 1"
        )


def _to_bytes(pixels: npt.NDArray[Any], source: np.dtype[Any]) -> Cutout:
    if pixels.dtype == np.uint8:
        return pixels
    factor = 255.0 if source.kind == "f" else 1 / 257 if source == np.uint16 else 1.0
    levels = pixels * factor
    np.clip(levels, 0, 255, out=levels)
    levels += 0.5
    rounded: Cutout = levels.astype(np.uint8)
    return rounded


def _reject(reason: Reason, detail: str) -> RejectError:
    return RejectError(Stage.DECODE, reason, detail)


def _unknown(data: bytes) -> RejectError:
    name = next((name for magic, name in _OTHER_FORMATS.items() if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        name = "AVIF or HEIC"
    if name is not None:
        return _reject(Reason.UNSUPPORTED_FORMAT, f"a {name} file; JPEG, PNG and TIFF are supported")
    return _reject(Reason.NOT_AN_IMAGE, f"the bytes start with {data[:8]!r}")


def _undecodable(data: bytes, error: Exception) -> RejectError:
    complete = (b"\xff\xd9" in data[-64:]) if data.startswith(b"\xff\xd8") else b"IEND" in data[-64:]
    is_tiff = data.startswith((b"II", b"MM"))
    cut = "truncated" in str(error).lower() or "not enough" in str(error).lower() if is_tiff else not complete
    return _reject(Reason.TRUNCATED if cut else Reason.CORRUPT, str(error) or type(error).__name__)
