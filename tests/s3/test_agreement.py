"""The same galaxies give the same rows, however they are packed and wherever they lie."""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import tar_bytes
from astropy.io import fits
from bad_images import encoded
from catalogs import catalog_without_ray
from listings import listed, new_folder
from sky_fields import ARCSEC, header

from gax_batch import storage
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.rgb import PRESETS, to_rgb
from gax_batch.runner.pack import pack_survey
from gax_batch.runner.settings import PackSettings, check_settings
from gax_batch.sources import Source, open_frames, open_source, read_unit
from gax_batch.sources.framing import PIXEL_R90

SDSS = PRESETS["sdss-gri"]
NAMES = ["g0", "g1", "g2"]
SIDE = 424
# Four pixels of an image are one of a cutout: the radius at which that holds for a frame.
RADIUS = 4 * ARCSEC / PIXEL_R90
TOLD_APART = ["unit_id", "run_id", "source_uri", "source_version"]


def fluxes(seed: int) -> npt.NDArray[np.float32]:
    """`[3, 424, 424]` nanomaggies of i, r and g: a smooth, inclined, colored galaxy and a little noise."""
    dice = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    light = np.exp(-4 * np.hypot(columns, (rows + 0.4 * columns) * dice.uniform(1, 2)))
    colors = dice.uniform(0.5, 2, 3)[:, None, None]
    return (light * colors + dice.normal(0, 0.002, (3, SIDE, SIDE))).astype(np.float32)


def image(planes: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.floor(to_rgb(planes, SDSS) * 255 + 0.5).astype(np.uint8)


def fits_bytes(*hdus: fits.ImageHDU | fits.PrimaryHDU) -> bytes:
    buffer = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(buffer)
    return buffer.getvalue()


def multi_extension(planes: npt.NDArray[np.float32]) -> bytes:
    bands = zip(SDSS.bands, planes, strict=True)
    return fits_bytes(fits.PrimaryHDU(), *(fits.ImageHDU(plane[::-1], name=band) for band, plane in bands))


def parquet_of(images: dict[str, bytes]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"galaxy_id": NAMES, "image": list(images.values())}), sink)
    return sink.getvalue().to_pybytes()


def write_packages(root: str) -> None:
    """The galaxies as PNGs, JPEGs and FITS files, loose and in shards, below a folder or prefix."""
    planes = {name: fluxes(seed) for seed, name in enumerate(NAMES)}
    png = {f"{name}.png": encoded(image(p)) for name, p in planes.items()}
    jpeg = {f"{name}.jpg": encoded(image(p), "JPEG", quality=95) for name, p in planes.items()}
    fit = {f"{name}.fits": multi_extension(p) for name, p in planes.items()}
    for kind, images in (("png", png), ("jpeg", jpeg), ("fits", fit)):
        for name, data in images.items():
            storage.write_bytes(f"{root}/{kind}/{name}", data)
    for kind, images in (("png", png), ("jpeg", jpeg)):
        storage.write_bytes(f"{root}/{kind}-tar/survey.tar", tar_bytes(*images.items()))
        storage.write_bytes(f"{root}/{kind}-parquet/survey.parquet", parquet_of(images))
        for originals in (False, True):
            packed = f"{root}/{kind}-{'originals' if originals else 'cutouts'}"
            settings = check_settings(PackSettings, {"input": f"{root}/{kind}", "output": packed})
            pack_survey(settings, originals=originals, processes=1)
    for number, (name, p) in enumerate(planes.items()):
        head = header(150.0 + number, 2.0, SIDE)
        for band, plane in zip(SDSS.bands, p, strict=True):
            storage.write_bytes(
                f"{root}/frames/{name}-{band}.fits", fits_bytes(fits.PrimaryHDU(plane[::-1], head))
            )


def sources(root: str, table: str) -> Iterator[tuple[str, Source]]:
    for kind in ("png", "jpeg"):
        for package in ("", "-tar", "-parquet", "-cutouts", "-originals"):
            yield f"{kind}{package}", open_source(f"{root}/{kind}{package}")
    yield "fits", open_source(f"{root}/fits")
    yield "frames", open_frames(f"{root}/frames", table, bands=SDSS.bands)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("table") / "galaxies.csv"
    rows = [f"{name},{150.0 + number},2.0,{RADIUS}" for number, name in enumerate(NAMES)]
    path.write_text("\n".join(["galaxy_id,ra,dec,radius", *rows, ""]))
    return str(path)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("packages"))
    write_packages(folder)
    return folder


@pytest.fixture(scope="module")
def expected(local: str, table: str) -> dict[str, pa.Table]:
    """Rows by package, of the galaxies on a disk."""
    return {name: rows_of(source) for name, source in sources(local, table)}


def rows_of(source: Source) -> pa.Table:
    """A catalog's rows but for what tells where they came from."""
    catalog = catalog_without_ray(source, str(new_folder() / "catalog"), new_folder())
    assert len(catalog.rejects()) == 0
    return catalog.galaxies().sort_by("galaxy_id").drop_columns(TOLD_APART)


def pixels_of(source: Source) -> npt.NDArray[np.int64]:
    cutouts = read_unit(listed(source), Decoder()).sort_by("galaxy_id")["cutout"].to_pylist()
    return np.stack([np.frombuffer(cutout, np.uint8).astype(int) for cutout in cutouts])


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_same_bytes_give_the_same_rows_however_they_are_packed(
    kind: str, expected: dict[str, pa.Table]
) -> None:
    loose = expected[kind]
    assert loose["galaxy_id"].to_pylist() == NAMES
    for package in ("tar", "parquet", "cutouts", "originals"):
        assert expected[f"{kind}-{package}"].equals(loose), package


@pytest.mark.parametrize(
    ("kind", "mean", "most"),
    [
        ("fits", 0.1, 1),  # the image was rounded to 8 bits before it was averaged, the FITS file was not
        ("jpeg", 1.0, 6),
        ("frames", 0.3, 3),  # bands are averaged before they are stretched, images afterwards
    ],
)
def test_other_encodings_of_the_same_galaxies_agree(
    kind: str, mean: float, most: int, local: str, table: str
) -> None:
    """In gray levels of 255, to the PNGs."""
    found = {name: pixels_of(source) for name, source in sources(local, table) if name in (kind, "png")}
    difference = np.abs(found[kind] - found["png"])
    assert found["png"].max() > 150
    assert difference.mean() <= mean
    assert difference.max() <= most


def test_in_a_bucket_they_are_what_they_are_on_a_disk(
    root: str, table: str, expected: dict[str, pa.Table]
) -> None:
    place = f"{root}/packages"
    write_packages(place)
    found = {name: rows_of(source) for name, source in sources(place, table)}
    assert found.keys() == expected.keys()
    for name, rows in found.items():
        assert rows.equals(expected[name]), name
