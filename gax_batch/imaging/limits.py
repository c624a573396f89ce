"""Limits of one input, and checks of the sizes that hostile files claim, before they are decoded.

Each check reads only a few bytes of a header, so that refusing a file costs almost nothing. Needs that no
header shows are limited by `gax_batch.system.machine.memory_bound`.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from gax_batch.rejects import Reason, RejectError, Stage

MIB = 1 << 20
MAX_PATH_CHARACTERS = 4096
"""Maximum length of an object's name with its folders. Linux does not support longer paths."""
DEFAULT_UNIT_SIZE = 4096
"""Default number of cutouts in a unit."""
MAX_UNIT_SIZE = 65_536
"""Maximum number of cutouts in a unit: 0.8 GB of pixels."""
MAX_SCANS = 100
"""Maximum number of scans in a JPEG: libjpeg processes all pixels once for each. Encoders write ten."""
MAX_TIFF_VALUES = 262_144
"""Maximum number of values in a TIFF tag: each becomes a Python object. A tag has one per strip."""

# Small images may have any expansion.
_FREE_BYTES = 16 * MIB
_START_OF_SCAN = b"\xff\xda"
# Types of TIFF tags whose values Pillow keeps as bytes (TIFF 6.0, section 2).
_BYTES_TYPES = frozenset({1, 2, 6, 7})


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of an image.

    Attributes:
        bytes: Maximum encoded size in bytes; also that of a compressed FITS file after decompression.
        pixels: Maximum width times height, from the header; for a FITS file, of all its bands.
        expansion: Maximum ratio of the bytes of pixels to the encoded bytes, if the pixels have more than 16
            MiB.
        header_bytes: Maximum size in bytes of all headers of a FITS file, or of one entry of a tar.
        memory_mib: Maximum memory, in MiB, that reading a unit may take in addition to that of its process.
    """

    bytes: int = 64 * MIB
    pixels: int = 64_000_000
    expansion: int = 200
    header_bytes: int = 4 * MIB
    memory_mib: int = 4096

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Read the limits from a run's settings or their record. Old records lack some of them."""
        names = {f.name: f"max_image_{f.name}" for f in fields(cls)}
        return cls(**{name: settings[key] for name, key in names.items() if key in settings})

    def check_expansion(self, unpacked: int, encoded: int, stage: Stage = Stage.DECODE) -> None:
        """Refuse data that unpack to implausibly many bytes.

        Args:
            unpacked: Bytes of the pixels, or of a decompressed file.
            encoded: Bytes of their source.
            stage: Stage of the reject.

        Raises:
            RejectError: It is a decompression bomb.
        """
        if unpacked > max(_FREE_BYTES, self.expansion * encoded):
            detail = f"{encoded} bytes unpack to {unpacked}, more than {self.expansion} times as many"
            raise RejectError(stage, Reason.DECOMPRESSION_BOMB, detail)


@dataclass(frozen=True, slots=True)
class ListingLimits:
    """Limits of a listing.

    Attributes:
        id_characters: Maximum length of a galaxy's id. A longer one is a reject.
        shard_members: Maximum entries of a tar or rows of a Parquet shard. A larger one is an error.
    """

    id_characters: int = 256
    shard_members: int = 10_000_000


def check_scans(jpeg: bytes) -> None:
    """Refuse a JPEG whose number of scans would make decoding take minutes.

    Raises:
        RejectError: It is a decompression bomb.
    """
    # In compressed data 0xFF is followed by 0 (ITU T.81, B.1.1.5), so that this counts markers.
    scans = jpeg.count(_START_OF_SCAN)
    if scans > MAX_SCANS:
        raise RejectError(Stage.DECODE, Reason.DECOMPRESSION_BOMB, f"{scans} scans, the limit is {MAX_SCANS}")


def check_tags(tiff: bytes) -> None:
    """Refuse a TIFF with a tag whose values would take gigabytes.

    Raises:
        RejectError: It is a decompression bomb. Other faults are left to the decoder.
    """
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}L", tiff, 4)
        (tags,) = struct.unpack_from(f"{order}H", tiff, start)
        for tag in range(tags):
            _, kind, count = struct.unpack_from(f"{order}HHL", tiff, start + 2 + 12 * tag)
            if kind not in _BYTES_TYPES and count > MAX_TIFF_VALUES:
                detail = f"a tag of {count} numbers, the limit is {MAX_TIFF_VALUES}"
                raise RejectError(Stage.DECODE, Reason.DECOMPRESSION_BOMB, detail)
    except struct.error:
        return
