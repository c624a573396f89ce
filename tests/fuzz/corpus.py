"""Small valid files of every kind that a reader takes: what the fuzzers mutate."""

import bz2
import gzip
import io
import tarfile
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from bad_images import encoded
from bad_images import galaxy as pixels
from fits_images import cube, galaxy, stored
from PIL import Image

SIDE = 16


def images() -> Iterator[bytes]:
    """JPEG, PNG and TIFF files of every mode and packing."""
    color = Image.fromarray(pixels(SIDE))
    gray = color.convert("L")
    for image in (color, gray, color.convert("RGBA"), color.convert("P"), color.convert("1")):
        yield encoded(image)
        yield encoded(image, "TIFF")
    yield encoded(np.asarray(gray, np.uint16) * 257)
    yield encoded(color, pnginfo=None, transparency=(0, 0, 0))
    for options in ({}, {"progressive": True}, {"subsampling": 0, "quality": 30}):
        yield encoded(color, "JPEG", **options)
    yield encoded(gray, "JPEG")
    yield encoded(color.convert("CMYK"), "JPEG")
    for packing in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield encoded(color, "TIFF", compression=packing)
    yield encoded(np.asarray(gray, np.float32) / 255, "TIFF")
    yield encoded(np.asarray(gray, np.uint16), "TIFF")


def fits_files() -> Iterator[bytes]:
    """FITS files with bands as planes or extensions, of every number, plain and packed."""
    bands = galaxy(SIDE)
    yield (plain := stored(cube(bands, "irg", BANDS="irg")))
    yield gzip.compress(plain, mtime=0)
    yield bz2.compress(plain)
    yield stored(*(fits.ImageHDU(flux.astype(np.float64), name=band) for band, flux in bands.items()))
    counts = {band: np.rint(flux * 1000).astype(np.int16) for band, flux in bands.items()}
    scaled = [fits.ImageHDU(count, name=band) for band, count in counts.items()]
    for hdu in scaled:
        hdu.scale("int16", bscale=0.5, bzero=10)
        hdu.header["BLANK"] = -99
    yield stored(*scaled)
    for packing in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"):
        yield stored(
            *(
                fits.CompImageHDU(np.abs(count), name=band, compression_type=packing)
                for band, count in counts.items()
            )
        )
    for packing in ("RICE_1", "GZIP_2"):
        yield stored(
            *(fits.CompImageHDU(flux, name=b, compression_type=packing) for b, flux in bands.items())
        )
    yield stored(fits.BinTableHDU(np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])))


def tars() -> Iterator[bytes]:
    """Tar files of every dialect, with long names, attributes and positions."""
    image = encoded(pixels(SIDE))
    for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=dialect) as tar:
            for name in ("a", "folder/b", "é" if dialect != tarfile.USTAR_FORMAT else "e", "n" * 90):
                longer = name * 2 if dialect != tarfile.USTAR_FORMAT else name
                for suffix, data in ((".png", image), (".json", b'{"ra": 1.5, "dec": -2}')):
                    info = tarfile.TarInfo(longer + suffix)
                    info.size = len(data)
                    if dialect == tarfile.PAX_FORMAT:
                        info.pax_headers = {"comment": "x", "mtime": "1.5"}
                    tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "a.png"
            tar.addfile(link)
        yield buffer.getvalue()


def parquet_files() -> Iterator[bytes]:
    """Parquet shards of every kind of image column."""
    files = [encoded(pixels(SIDE, seed=i)) for i in range(3)]
    raw = [pixels(64, seed=i) for i in range(3)]
    ids: pa.Array = pa.array(["a", "b", "c"])
    tensor = pa.fixed_shape_tensor(pa.uint8(), (4, 4, 3))
    small = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(144) % 251, pa.uint8()), 48)
    columns: list[tuple[pa.Array, pa.Array]] = [
        (ids, pa.array(files, pa.binary())),
        (pa.array([1, 2, 3]), pa.array([r.tobytes() for r in raw], pa.binary(12_288))),
        (ids, pa.array([{"bytes": data, "path": None} for data in files])),
        (ids, pa.array([r[:6, :6].tolist() for r in raw], pa.list_(pa.list_(pa.list_(pa.uint8()))))),
        (ids, pa.ExtensionArray.from_storage(tensor, small)),
        (ids, pa.array([{"data": [1.0] * 48, "shape": [4, 4, 3]}] * 3)),
    ]
    for packing, (names, image) in zip(
        ("snappy", "zstd", "gzip", "none", "snappy", "zstd"), columns, strict=True
    ):
        sink = io.BytesIO()
        table = pa.table({"galaxy_id": names, "ra": [1.0, None, 3.0], "dec": [1.0, 2.0, 3.0], "image": image})
        pq.write_table(table, sink, compression=packing, row_group_size=2)
        yield sink.getvalue()


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "image": images,
    "fits": fits_files,
    "tar": tars,
    "parquet": parquet_files,
}
"""The files of each reader."""
