"""What one input may ask of the machine, and what hostile files claim, checked before they are decoded.

Each check reads a few bytes of a header, so that what it refuses costs nothing. What no header tells is
caught by the bound on memory (`gax_batch.system.machine.memory_bound`).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from gax_batch.rejects import Reason, RejectError, Stage

MIB = 1 << 20
MAX_PATH_CHARACTERS = 4096
"""Of an object's name with its folders; Linux has no longer paths."""
DEFAULT_UNIT_SIZE = 4096
"""Cutouts of a unit, unless another number is asked for."""
MAX_UNIT_SIZE = 65_536
"""Cutouts of a unit: 0.8 GB of pixels."""
MAX_SCANS = 100
"""Of a JPEG: each lets libjpeg walk over all pixels once more. Encoders write ten."""
MAX_TIFF_VALUES = 262_144
"""Of a number's tag: each becomes a Python object. An image of a million rows has as many strips."""

# Small images may be as empty as they like.
_FREE_BYTES = 16 * MIB
_START_OF_SCAN = b"\xff\xda"
# Types of TIFF tags whose values Pillow keeps as the bytes that they are (TIFF 6.0, section 2).
_BYTES_TYPES = frozenset({1, 2, 6, 7})


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may need at most.

    Attributes:
        bytes: Encoded size; of a packed FITS file also its size once it is unpacked.
        pixels: Width times height, from the header; of a FITS file those of all its bands.
        expansion: How many times its encoded bytes its pixels may take, if these are more than 16 MiB.
        header_bytes: Of all headers of a FITS file, or of one entry of a tar.
        memory_mib: What reading a unit may take besides what its process has.
    """

    bytes: int = 64 * MIB
    pixels: int = 64_000_000
    expansion: int = 200
    header_bytes: int = 4 * MIB
    memory_mib: int = 4096

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Of a run's settings, `max_image_bytes` and so on, or their record; an older record lacks some."""
        names = {f.name: f"max_image_{f.name}" for f in fields(cls)}
        return cls(**{name: settings[key] for name, key in names.items() if key in settings})

    def check_expansion(self, unpacked: int, encoded: int, stage: Stage = Stage.DECODE) -> None:
        """Refuse what its bytes cannot honestly hold.

        Args:
            unpacked: Bytes of the pixels, or of a file once it is unpacked.
            encoded: Bytes that they come from.
            stage: Of the reject.

        Raises:
            RejectError: It is a decompression bomb.
        """
        if unpacked > max(_FREE_BYTES, self.expansion * encoded):
            detail = f"{encoded} bytes unpack to {unpacked}, more than {self.expansion} times as many"
            raise RejectError(stage, Reason.DECOMPRESSION_BOMB, detail)


@dataclass(frozen=True, slots=True)
class ListingLimits:
    """What a listing may hold at most.

    Attributes:
        id_characters: Of a galaxy's id; a longer one is a reject.
        shard_members: Entries of a tar or rows of a Parquet shard; a larger one ends the command.
    """

    id_characters: int = 256
    shard_members: int = 10_000_000


def check_scans(jpeg: bytes) -> None:
    """Refuse a JPEG of so many scans that decoding it takes minutes.

    Raises:
        RejectError: It is a decompression bomb.
    """
    # In compressed data 0xFF is followed by 0 (ITU T.81, B.1.1.5), so that this counts markers.
    scans = jpeg.count(_START_OF_SCAN)
    if scans > MAX_SCANS:
        raise RejectError(Stage.DECODE, Reason.DECOMPRESSION_BOMB, f"{scans} scans, the limit is {MAX_SCANS}")


def check_tags(tiff: bytes) -> None:
    """Refuse a TIFF with a tag of so many numbers that reading them takes gigabytes.

    Raises:
        RejectError: It is a decompression bomb. What is broken in other ways passes: it is the decoder's.
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
