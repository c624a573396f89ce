"""Each reader on any bytes at all: what it may raise, and how long and how much it may take.

A finding is an exception that neither rejects a cutout nor ends the command in one line, or more memory or
time than `MEMORY_MIB` and `SECONDS` (a native crash is one too; the fuzzer sees it).
"""

import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from gax_batch.errors import FatalError, UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.fits import read_frame
from gax_batch.imaging.limits import ImageLimits
from gax_batch.rejects import RejectError
from gax_batch.sources.cutouts import read_unit
from gax_batch.sources.shards import ShardSource
from gax_batch.storage import stat
from gax_batch.system.machine import MIB, memory_bound

SECONDS = 10.0
MEMORY_MIB = 1024
LIMITS = ImageLimits(bytes=4 * MIB, pixels=4_000_000, memory_mib=MEMORY_MIB)

_PNG = b"\x89PNG\r\n\x1a\n"
_TAR_BLOCK = 512


def image(data: bytes) -> None:
    """JPEG, PNG or TIFF."""
    _decode(_with_png_checksums(data))


def fits(data: bytes) -> None:
    """FITS, as a cutout or, if no band is found in it, as one band of a galaxy or frame."""
    if not _decode(data):
        with suppress(RejectError):
            read_frame(data, LIMITS)


def tar(data: bytes) -> None:
    """A WebDataset shard."""
    _read_shard(_with_tar_checksums(data), ".tar")


def parquet(data: bytes) -> None:
    """A Parquet shard."""
    _read_shard(data, ".parquet")


TARGETS: dict[str, Callable[[bytes], None]] = {"image": image, "fits": fits, "tar": tar, "parquet": parquet}


def check(reader: str, data: bytes) -> None:
    """Give bytes to a reader.

    Raises:
        AssertionError: It took too long.
        Exception: What else it raised is a finding, MemoryError among it.
    """
    start = time.process_time()
    with memory_bound(MEMORY_MIB * MIB):
        TARGETS[reader](data)
    taken = time.process_time() - start
    assert taken < SECONDS, f"{reader} took {taken:.1f} s"


def _decode(data: bytes) -> bool:
    """Whether a cutout came of it."""
    try:
        cutout, flags = Decoder(limits=LIMITS).decode(data)
    except RejectError:
        return False
    assert cutout.shape == (64, 64, 3)
    assert cutout.dtype == np.uint8
    assert int(flags) >= 0
    return True


def _read_shard(data: bytes, suffix: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        path = Path(file.name)
        path.write_bytes(data)
        with suppress(UsageError, FatalError):
            for members in ShardSource([stat(str(path))]).list_members():
                cutouts = read_unit(members.slice(0, 8), Decoder(limits=LIMITS))
                assert len(cutouts) == min(8, len(members))
                # What the boundary around one cutout has caught is none of the reasons that are known.
                surprises = [d for d in cutouts["detail"].to_pylist() if d and "Error:" in d]
                assert not surprises, surprises


def _with_png_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums, so that mutations are read; other bytes as they are."""
    if not data.startswith(_PNG):
        return data
    repaired, place = bytearray(data), len(_PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        repaired[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(repaired)


def _with_tar_checksums(data: bytes) -> bytes:
    """A tar whose headers have right checksums, as far as headers follow one another."""
    repaired, place = bytearray(data), 0
    while place + _TAR_BLOCK <= len(data):
        block = repaired[place : place + _TAR_BLOCK]
        if not any(block):
            break
        block[148:156] = b" " * 8
        repaired[place + 148 : place + 156] = b"%06o\0 " % sum(block)
        try:
            size = int(bytes(block[124:136]).rstrip(b"\0 ") or b"0", 8)
        except ValueError:
            break
        place += _TAR_BLOCK * (1 + -(-max(0, size) // _TAR_BLOCK))
    return bytes(repaired)
