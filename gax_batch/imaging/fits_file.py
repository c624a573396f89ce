"""A FITS file as bytes: decompressed, and with headers of limited size, before astropy parses it.

By the standard a header ends after a card `END`. astropy searches for one to the end of the file, and creates
an object for each card before it.
"""

import bz2
import gzip
import io
import math
import re
import zlib
from typing import Any, BinaryIO

from gax_batch.imaging.limits import ImageLimits
from gax_batch.rejects import Reason, RejectError, Stage

_PLAIN, _GZIP, _BZIP2 = b"SIMPLE  =", b"\x1f\x8b", b"BZh"
_END = b"END" + b" " * 77
_SIZE = re.compile(rb"(BITPIX|NAXIS[0-9]{0,3}|PCOUNT|GCOUNT) *= *([+-]?[0-9]{1,18})\b")
_BLOCK = 2880
_CARD = 80


def is_fits(data: bytes) -> bool:
    """Return whether bytes start like a FITS file, compressed or not."""
    return data.startswith((_PLAIN, _GZIP, _BZIP2))


def plain(data: bytes, limits: ImageLimits) -> bytes:
    """Decompress a file, if necessary, and cut it off after its last valid header and data.

    Args:
        data: A file for which `is_fits` is true.
        limits: Limits of bytes, of headers, and of the expansion.

    Returns:
        The bytes of a plain FITS file.

    Raises:
        RejectError: It is not a FITS file, or exceeds a limit; stage `decode`.
    """
    return _checked(_unpacked(data, limits), limits)


def open_headers(file: BinaryIO, max_bytes: int) -> io.RawIOBase:
    """Return a decompressed file of which only headers can be read. More than `max_bytes` raise OSError."""
    magic = file.read(len(_BZIP2))
    file.seek(0)
    unpacked: Any = file
    if magic.startswith(_GZIP):
        unpacked = gzip.GzipFile(fileobj=file)
    elif magic == _BZIP2:
        unpacked = bz2.BZ2File(file)
    return _BoundedHeaders(unpacked, max_bytes)


class _BoundedHeaders(io.RawIOBase):
    """A file of which only headers are read: astropy searches for their end up to the end of the file."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._left = self._limit = max_bytes

    def read(self, size: int | None = -1) -> bytes:
        data = self._file.read(self._left + 1 if size is None or size < 0 else size)
        self._left -= len(data)
        if self._left < 0:
            raise OSError(f"its headers have more than {self._limit} bytes")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _unpacked(data: bytes, limits: ImageLimits) -> bytes:
    limit = limits.bytes
    if data.startswith(_PLAIN):
        return data
    try:
        if data.startswith(_GZIP):
            unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            plain, done = unzip.decompress(data, limit + 1), unzip.eof
        else:
            bunzip = bz2.BZ2Decompressor()
            plain, done = bunzip.decompress(data, limit + 1), bunzip.eof
    except (zlib.error, OSError) as error:
        raise _reject(Reason.CORRUPT, f"it cannot be decompressed: {error}") from None
    if len(plain) > limit:
        raise _reject(Reason.TOO_MANY_BYTES, f"more than {limit} bytes when decompressed, the limit")
    if not done:
        raise _reject(Reason.TRUNCATED, f"the compressed file ends after {len(plain)} bytes")
    limits.check_expansion(len(plain), len(data))
    if not plain.startswith(_PLAIN):
        raise _reject(Reason.NOT_AN_IMAGE, f"the decompressed bytes start with {plain[:8]!r}")
    return plain


def _checked(data: bytes, limits: ImageLimits) -> bytes:
    """Return the file up to its last valid header and data, so that a search for an end is short."""
    start = total = 0
    while start == 0 or data.startswith(b"XTENSION", start):
        header = _header(data, start, limits.header_bytes - total)
        if header is None:
            if len(data) - start > limits.header_bytes - total:
                limit = f"the headers have more than {limits.header_bytes} bytes"
                raise _reject(Reason.TOO_MANY_BYTES, limit)
            if start == 0:
                raise _reject(Reason.TRUNCATED, "the file ends within its header")
            return data
        total += len(header)
        start += len(header) + _padded(_data_bytes(header))
    # Anything may follow the last data: astropy would parse it as a header.
    return data if start >= len(data) else data[:start]


def _header(data: bytes, start: int, most: int) -> bytes | None:
    """Return the blocks of the header at `start`, or None if it does not end within `most` bytes."""
    for card in range(start, min(len(data), start + most), _CARD):
        if data[card : card + _CARD] == _END:
            return data[start : start + _padded(card + _CARD - start)]
    return None


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _data_bytes(header: bytes) -> int:
    """Return the size in bytes of the data after a header (FITS standard 4.0, equation 2)."""
    values: dict[bytes, int] = {}
    for card in range(0, len(header), _CARD):
        found = _SIZE.match(header, card, card + _CARD)
        if found is not None:
            values.setdefault(found[1], int(found[2]))
    axes = [values.get(b"NAXIS%d" % n, 0) for n in range(1, values.get(b"NAXIS", 0) + 1)]
    if not axes:
        return 0
    items = values.get(b"GCOUNT", 1) * (values.get(b"PCOUNT", 0) + math.prod(axes))
    return max(0, abs(values.get(b"BITPIX", 8)) // 8 * items)


def _reject(reason: Reason, detail: str) -> RejectError:
    return RejectError(Stage.DECODE, reason, detail)
