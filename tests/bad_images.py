"""Damaged, oversized and unusual images, generated on demand."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def galaxy(width: int = 128, height: int | None = None, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A noisy, colored, elongated blob, `uint8 [height, width, 3]`."""
    height = height or width
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = np.exp(-6 * (x**2 + 2 * (y + 0.3 * x) ** 2))[..., None] * np.array([230.0, 190.0, 150.0])
    noise = np.random.default_rng(seed).normal(12, 3, (height, width, 3))
    return np.clip(light + noise, 0, 255).astype(np.uint8)


def encoded(pixels: npt.NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A tiny PNG whose header claims a size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg_without_height() -> bytes:
    """A JPEG whose frame header says that it is 0 pixels high."""
    data = encoded(galaxy(), "JPEG")
    height = data.index(b"\xff\xc0") + 5
    return data[:height] + b"\0\0" + data[height + 2 :]


def float_tiff(value: float) -> bytes:
    """A 32-bit float TIFF with one odd pixel near its center."""
    pixels = (galaxy()[..., 0] / 255).astype(np.float32)
    pixels[60, 60] = value
    return encoded(pixels, "TIFF")


def flipped_bytes() -> bytes:
    """A PNG whose compressed pixels are damaged, but whose end is there."""
    data = bytearray(encoded(galaxy()))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    return bytes(data)


def jpeg_of_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is there so many times."""
    data = encoded(galaxy(424), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def tiff_of_numbers(count: int) -> bytes:
    """A TIFF whose resolution is so many fractions, each an object once it is read."""
    tags = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1)]
    tags += [(278, 3, 1, 64), (279, 4, 1, 4096), (282, 5, count, 4200)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<L", 4104) + bytes(4096) + directory + bytes(96 + 8 * count)


_PNG = encoded(galaxy())
_JPEG = encoded(galaxy(424), "JPEG", quality=90)

# file name -> (bytes, reason), each rejected at the stage "decode"
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut_jpeg.jpg": (lambda: _JPEG[: len(_JPEG) // 2], "truncated"),
    "cut_jpeg_header.jpg": (lambda: _JPEG[:20], "truncated"),
    "zero_filled_jpeg.jpg": (lambda: _JPEG[: len(_JPEG) // 2] + bytes(len(_JPEG)), "truncated"),
    "cut_png.png": (lambda: _PNG[: len(_PNG) // 2], "truncated"),
    "cut_png_header.png": (lambda: _PNG[:20], "truncated"),
    "cut_tiff.tif": (lambda: encoded(galaxy(), "TIFF")[:5000], "truncated"),
    "damaged.png": (flipped_bytes, "corrupt"),
    "no_width.png": (lambda: png_claiming(0, 64), "zero_pixels"),
    "no_height.png": (lambda: png_claiming(64, 0), "zero_pixels"),
    "no_height.jpg": (jpeg_without_height, "zero_pixels"),
    "bomb.png": (lambda: png_claiming(100_000, 100_000), "too_many_pixels"),
    "hollow.png": (lambda: png_claiming(7_000, 7_000), "decompression_bomb"),
    "scans.jpg": (lambda: jpeg_of_scans(101), "decompression_bomb"),
    "numbers.tif": (lambda: tiff_of_numbers(262_145), "decompression_bomb"),
    "text.jpg": (lambda: b"<html>404 not found</html>", "not_an_image"),
    "gif.jpg": (lambda: encoded(galaxy(), "GIF"), "unsupported_format"),
    "bmp.jpg": (lambda: encoded(galaxy(), "BMP"), "unsupported_format"),
    "webp.jpg": (lambda: encoded(galaxy(), "WEBP"), "unsupported_format"),
    "integers.tif": (lambda: encoded(galaxy()[..., 0].astype(np.int32), "TIFF"), "unsupported_format"),
    "flux.tif": (lambda: float_tiff(250.0), "unsupported_format"),
    "black.jpg": (lambda: encoded(np.zeros((424, 424, 3), np.uint8), "JPEG"), "blank"),
    "constant.png": (lambda: encoded(np.full((100, 100, 3), 77, np.uint8)), "blank"),
    "transparent.png": (lambda: encoded(Image.new("RGBA", (90, 90), (9, 9, 9, 0))), "blank"),
    "nan.tif": (lambda: float_tiff(np.nan), "not_finite"),
    "infinite.tif": (lambda: float_tiff(np.inf), "not_finite"),
}
