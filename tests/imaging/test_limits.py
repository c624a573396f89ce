"""What a hostile file claims costs nothing, and what it does not claim is bounded by memory."""

import bz2
import gzip
import io
import os
import struct
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import write_tar
from astropy.io import fits
from bad_images import encoded, jpeg_of_scans, png_claiming, tiff_of_numbers
from bad_images import galaxy as pixels
from fits_images import cube, galaxy, stored
from listings import listed
from message_facts import numbers_in
from PIL import Image

from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import decode_cutout
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.fits import read_header
from gax_batch.imaging.limits import ImageLimits, ListingLimits
from gax_batch.rejects import RejectError
from gax_batch.sources import open_source, read_unit
from gax_batch.storage.listing import list_objects
from gax_batch.system.machine import MIB, memory_bound

SOON_SECONDS = 5.0
BOMB = "decompression_bomb"


@contextmanager
def cheaply(mib: int = 256) -> Iterator[None]:
    """What is done in this block takes little CPU time and no more memory than this."""
    start = time.process_time()
    with memory_bound(mib * MIB):
        yield
    assert time.process_time() - start < SOON_SECONDS


def reject_of(data: bytes, **limits: int) -> tuple[str, str]:
    with cheaply(), pytest.raises(RejectError) as caught:
        Decoder(limits=ImageLimits(**limits)).decode(data)
    return caught.value.reject.reason, caught.value.reject.detail


def rejects_of(path: Path, **limits: int) -> list[str | None]:
    members = listed(open_source(str(path)))
    reasons: list[str | None] = read_unit(members, Decoder(limits=ImageLimits(**limits)))[
        "reason"
    ].to_pylist()
    return reasons


# --- images


def test_a_jpeg_of_a_hundred_scans_is_read_and_one_more_is_not():
    assert decode_cutout(jpeg_of_scans(90))[0].shape == (64, 64, 3)
    reason, detail = reject_of(jpeg_of_scans(101))
    assert (reason, numbers_in(detail)) == (BOMB, ["100", "110"])


def test_a_tag_of_many_numbers_is_not_read():
    reason, detail = reject_of(tiff_of_numbers(7_000_000))
    assert (reason, numbers_in(detail)) == (BOMB, ["262144", "7000000"])


def test_an_image_unpacks_to_so_many_times_its_bytes_and_small_ones_as_far_as_they_like():
    assert reject_of(png_claiming(7_000, 7_000))[0] == BOMB
    sky = np.zeros((1500, 1500), np.uint8)  # 2 kB
    sky[700:800, 700:800] = pixels(100)[..., 0]
    dark = encoded(sky)
    assert sky.nbytes > 100 * len(dark)
    assert decode_cutout(dark)[0].shape == (64, 64, 3)
    large = np.tile(sky, (3, 3))
    assert reject_of(encoded(large), expansion=20)[0] == BOMB
    assert decode_cutout(encoded(large), limits=ImageLimits(expansion=2000))[0].shape == (64, 64, 3)


def test_a_tile_that_claims_gigabytes_is_a_reject(tmp_path):
    data = bytearray(encoded(Image.fromarray(pixels(64)), "TIFF", compression="tiff_adobe_deflate"))
    (start,) = struct.unpack_from("<L", data, 4)
    (tags,) = struct.unpack_from("<H", data, start)
    for place in range(start + 2, start + 2 + 12 * tags, 12):
        if struct.unpack_from("<H", data, place)[0] == 278:  # RowsPerStrip
            struct.pack_into("<HHLL", data, place, 278, 4, 1, 2**31 - 1)
    (tmp_path / "1.tif").write_bytes(data)
    with cheaply():
        (reason,) = rejects_of(tmp_path)
    assert reason in (None, "corrupt", "truncated", BOMB)


# --- FITS

IMAGE_EXTENSION = b"XTENSION= 'IMAGE   '".ljust(80)
GOOD = stored(cube(galaxy(64)))
_END = b"END".ljust(80)


@pytest.mark.parametrize(
    "more",
    [
        IMAGE_EXTENSION + b" " * 5_000_000,
        (IMAGE_EXTENSION + b"NAXIS   =                    0".ljust(80) + b"END".ljust(2720)) * 1500,
    ],
    ids=["a header without an end", "many headers"],
)
def test_headers_of_extensions_are_bounded_too(more: bytes):
    reason, detail = reject_of(GOOD + more)
    assert (reason, numbers_in(detail)) == ("too_many_bytes", ["4194304"])
    assert reject_of(GOOD + more, header_bytes=2880)[0] == "too_many_bytes"


def test_what_lies_behind_the_last_extension_is_not_looked_at():
    with cheaply():
        cutout, _ = Decoder().decode(GOOD + b"x" * 20_000_000)
    np.testing.assert_array_equal(cutout, Decoder().decode(GOOD)[0])


def test_tiles_whose_decoder_is_not_safe_are_not_unpacked():
    """Of 200 files with a few wrong bytes, one ended the process."""
    counts = np.abs(np.rint(galaxy(64)["g"])).astype(np.int16)
    data = stored(fits.CompImageHDU(counts, name="g", compression_type="HCOMPRESS_1"))
    reason, detail = reject_of(data)
    assert reason == "unsupported_format"
    assert all(name in detail for name in ("HCOMPRESS_1", "RICE_1", "GZIP_2"))


def test_an_image_of_too_many_tiles_is_not_unpacked():
    data = stored(fits.CompImageHDU(np.rint(galaxy(64)["g"]).astype(np.int16), name="g"))
    for key, value in {"ZNAXIS1": 2000, "ZNAXIS2": 2000, "ZTILE1": 1, "ZTILE2": 1}.items():
        start = data.index(key.encode().ljust(8) + b"=")
        data = data[:start] + f"{key:8}= {value:20}".encode().ljust(80) + data[start + 80 :]
    reason, detail = reject_of(data)
    assert (reason, numbers_in(detail)) == (BOMB, ["1", "1", "2000", "2000"])


def test_a_tile_that_unpacks_to_gigabytes_is_a_reject(tmp_path):
    """No header tells: the bound on memory does."""
    counts = {b: np.rint(f * 100).astype(np.int16) for b, f in galaxy(16).items()}
    plain = stored(*(fits.CompImageHDU(c, name=b, compression_type="GZIP_1") for b, c in counts.items()))
    with fits.open(io.BytesIO(plain), disable_image_compression=True) as hdus:
        table = hdus[1]
        bomb = np.frombuffer(gzip.compress(bytes(16 * MIB), 6) * 32, np.uint8)
        columns = fits.ColDefs(
            [fits.Column("COMPRESSED_DATA", "QB()", array=np.array([bomb] * len(table.data), object))]
        )
        hdu = fits.BinTableHDU.from_columns(columns)
        keys = (
            "ZIMAGE",
            "ZCMPTYPE",
            "ZBITPIX",
            "ZNAXIS",
            "ZNAXIS1",
            "ZNAXIS2",
            "ZTILE1",
            "ZTILE2",
            "EXTNAME",
        )
        for key in keys:
            if key in table.header:
                hdu.header[key] = table.header[key]
        buffer = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    (tmp_path / "1.fits").write_bytes(buffer.getvalue())
    (tmp_path / "2.fits").write_bytes(GOOD)
    start = time.process_time()
    assert rejects_of(tmp_path, memory_mib=256) == [BOMB, None]
    assert time.process_time() - start < SOON_SECONDS


def test_bzip2_that_unpacks_far_is_a_reject():
    packed = bz2.compress(GOOD[:2880] + bytes(40 * MIB))
    assert len(packed) < 10_000
    assert reject_of(packed)[0] == BOMB


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_header_of_a_frame_is_bounded(pack: Callable[[bytes], bytes]):
    with cheaply(), pytest.raises(OSError, match="4194304"):
        read_header(io.BytesIO(pack(GOOD[: GOOD.index(_END)] + b" " * 30_000_000)))


# --- tars


def header_of(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("a.png")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_header_that_claims_gigabytes_is_refused(tmp_path):
    path = tmp_path / "t.tar"
    with path.open("wb") as file:
        file.write(header_of(b"x", 64 << 30))
        file.truncate(65 << 30)  # of holes
    with cheaply(), pytest.raises(UsageError, match=r"t\.tar.*68719476736.*4194304"):
        listed(open_source(str(path)))


def test_headers_of_headers_are_refused(tmp_path):
    path = tmp_path / "t.tar"
    path.write_bytes((header_of(b"L", 5) + b"a.png".ljust(512, b"\0")) * 3000 + bytes(1024))
    with cheaply(), pytest.raises(UsageError, match=r"t\.tar"):
        listed(open_source(str(path)))


@pytest.mark.parametrize("size", [-1024, 2**63 - 1], ids=["backwards", "beyond the end"])
def test_headers_that_lead_elsewhere_are_refused(tmp_path, size):
    """GNU's numbers may be negative: the listing would go round in a circle."""
    number = size.to_bytes(12, "big", signed=True)
    block = bytearray(header_of(b"0", 0))
    block[124:136] = (b"\xff" if size < 0 else b"\x80") + number[1:]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "t.tar").write_bytes(header_of(b"0", 0) * 2 + block + bytes(1024))
    with cheaply(), pytest.raises(UsageError, match=r"t\.tar"):
        listed(open_source(str(tmp_path)))


def test_a_tar_has_so_many_entries(tmp_path):
    path = write_tar(tmp_path / "t.tar", *((f"{i}.json", b"{}") for i in range(5)), ("a.png", b"x"))
    assert len(listed(open_source(str(path), limits=ListingLimits(shard_members=6)))) == 1
    with pytest.raises(UsageError, match=r" 5 .*--max-shard-members"):
        listed(open_source(str(path), limits=ListingLimits(shard_members=5)))


def test_positions_without_an_image_are_not_kept(tmp_path):
    filler = b'{"ra": 1, "x": "' + b"x" * 60_000 + b'"}'
    path = write_tar(tmp_path / "t.tar", *((f"{i}.json", filler) for i in range(1500)), ("a.png", b"x"))
    with cheaply(64):
        assert len(listed(open_source(str(path)))) == 1


# --- Parquet


def test_a_long_id_is_cut_however_often_it_is_there(tmp_path):
    """20,000 rows of one id of a megabyte are 20 GB once they are unpacked."""
    ids = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["x" * MIB])
    images = pa.array([b"x"] * 20_000)
    pq.write_table(pa.table({"galaxy_id": ids, "image": images}), tmp_path / "s.parquet")
    assert (tmp_path / "s.parquet").stat().st_size < 2 * MIB
    with cheaply(512):
        members = listed(open_source(str(tmp_path)))
    assert set(members["reason"].to_pylist()) == {"bad_id"}
    assert {len(name) for name in members["galaxy_id"].to_pylist()} == {256}


def test_an_image_that_each_row_repeats_is_read_a_few_rows_at_a_time(tmp_path):
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array([bytes(4 * MIB)]))
    table = pa.table({"galaxy_id": range(64), "image": images})
    options = {"compression": "zstd", "dictionary_pagesize_limit": 32 * MIB, "store_schema": False}
    pq.write_table(table, tmp_path / "s.parquet", **options)
    start = time.process_time()
    assert rejects_of(tmp_path, memory_mib=128) == ["not_an_image"] * 64
    assert time.process_time() - start < 2 * SOON_SECONDS


def test_a_page_that_unpacks_beyond_memory_rejects_its_row_group_alone(tmp_path):
    images = [bytes(96 * MIB), encoded(pixels(64)), encoded(pixels(64))]
    table = pa.table({"galaxy_id": range(3), "image": pa.array(images, pa.binary())})
    pq.write_table(table, tmp_path / "s.parquet", compression="zstd", use_dictionary=False, row_group_size=1)
    del images, table
    assert (tmp_path / "s.parquet").stat().st_size < MIB
    first, *others = rejects_of(tmp_path, memory_mib=64)
    assert first in (BOMB, "too_many_bytes")  # the allocator may have kept memory from before
    assert others == [None, None]


def test_a_shard_has_so_many_rows(tmp_path):
    pq.write_table(pa.table({"galaxy_id": range(9), "image": [b"x"] * 9}), tmp_path / "s.parquet")
    assert len(listed(open_source(str(tmp_path), limits=ListingLimits(shard_members=9)))) == 9
    with pytest.raises(UsageError, match=r" 9 .*--max-shard-members.* 8\b"):
        listed(open_source(str(tmp_path), limits=ListingLimits(shard_members=8)))


def test_a_footer_that_claims_gigabytes_is_refused(tmp_path):
    path = tmp_path / "s.parquet"
    with path.open("wb") as file:
        file.write(b"PAR1")
        file.truncate(5 << 30)
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<L", 0xFFFF_FFF0) + b"PAR1")
    with cheaply(), pytest.raises(UsageError, match="4294967280"):
        listed(open_source(str(path)))


# --- names


def test_ids_have_so_many_characters(tmp_path):
    for name in ("1234567890", "12345678901"):
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels(64)))
    members = listed(open_source(str(tmp_path), limits=ListingLimits(id_characters=10)))
    assert members["reason"].to_pylist() == [None, "bad_id"]


def test_folders_deeper_than_the_system_reads_are_named_in_one_line(tmp_path):
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):  # of 200 characters: more than any path may have
        os.mkdir("d" * 200, dir_fd=place)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("1.png", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)
    with pytest.raises(UsageError, match=tmp_path.name) as caught:
        list_objects(str(tmp_path))
    assert len(str(caught.value)) < 400


# --- memory


def test_a_bound_holds_and_ends():
    with memory_bound(64 * MIB), pytest.raises(MemoryError):
        np.ones(256 * MIB, np.uint8)
    assert np.ones(256 * MIB, np.uint8).sum() == 256 * MIB
    with memory_bound(2048 * MIB), memory_bound(MIB):  # the first one holds
        np.ones(256 * MIB, np.uint8)
