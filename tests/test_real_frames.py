"""Galaxies found in real frames become a catalog; their cutouts are centered and have the frames' colors."""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import sep
from astropy.io import fits
from astropy.wcs import WCS
from fake_engine import fake_engine
from listings import listed
from PIL import Image

from gax_batch.catalog.snapshots import Catalog
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.rgb import PRESETS
from gax_batch.runner import run as run_module
from gax_batch.runner.run import run_survey
from gax_batch.runner.settings import load_settings
from gax_batch.sources import open_frames, read_unit
from gax_batch.sources.framing import PIXEL_R90

SDSS = PRESETS["sdss-gri"]
# A star's half-light radius is 1.2 pixels on these frames. R50 by R90 is 0.43 for an exponential disk, less
# for a star with wings, 0.75 for evenly spread light, such as of two galaxies taken for one.
RESOLVED_PIXELS = 2.2
R50_BY_R90 = (0.35, 0.65)
BROKEN = sep.OBJ_TRUNC | sep.OBJ_DOVERFLOW | sep.OBJ_SINGU
CENTER = 31.5
CORE_PIXELS = 8.0
ENLARGED = 3


@dataclass(frozen=True)
class Found:
    """What sep found on the frames: places in pixels, R90 in pixels, and each band's flux in the core."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    r90: npt.NDArray[np.float64]
    core: npt.NDArray[np.float64]
    wcs: WCS

    @property
    def names(self) -> list[str]:
        return [f"g{number:02d}" for number in range(len(self.x))]


@pytest.fixture(scope="module")
def frames(shared_data: Path) -> Path:
    return shared_data / "frames"


@pytest.fixture(scope="module")
def found(frames: Path) -> Found:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an old keyword in the headers
        hdus = {band: fits.open(frames / f"ngc6976_sdss_{band}.fits.bz2")[0] for band in SDSS.bands}
        wcs = WCS(hdus["r"].header)
    planes = {band: hdu.data.astype(np.float32) for band, hdu in hdus.items()}
    r = planes["r"]
    noise = sep.Background(r).globalrms
    objects = sep.extract(r, 3 * noise, minarea=60)
    x, y = objects["x"], objects["y"]
    radii, _ = sep.flux_radius(r, x, y, 6 * objects["a"], [0.5, 0.9], normflux=objects["flux"])
    r50, r90 = radii.T
    # Windowed positions: the mean of all of a galaxy's pixels is drawn to its neighbors.
    x, y, _ = sep.winpos(r, x, y, np.minimum(r50, CORE_PIXELS) * 2 / 2.35)
    inside = np.minimum.reduce([x, y, r.shape[1] - x, r.shape[0] - y]) > 25
    resolved = (r50 > RESOLVED_PIXELS) & (r50 > R50_BY_R90[0] * r90) & (r50 < R50_BY_R90[1] * r90)
    has_center = np.hypot(x - objects["x"], y - objects["y"]) < 0.2 * r90
    galaxies = inside & resolved & has_center & ((objects["flag"] & BROKEN) == 0)
    x, y, r90 = x[galaxies], y[galaxies], r90[galaxies]
    core = np.stack([sep.sum_circle(planes[band], x, y, 0.3 * r90)[0] for band in SDSS.bands], axis=1)
    return Found(x, y, r90, core, wcs)


@pytest.fixture(scope="module")
def table(found: Found, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("table") / "galaxies.csv"
    ra, dec = found.wcs.all_pix2world(found.x, found.y, 0)
    arcsec = found.wcs.proj_plane_pixel_area().to_value("arcsec2") ** 0.5
    rows = zip(found.names, ra, dec, found.r90 * arcsec, strict=True)
    lines = [f"{name},{a},{d},{radius}" for name, a, d, radius in rows]
    path.write_text("\n".join(["galaxy_id,ra,dec,radius", *lines, ""]))
    return str(path)


@pytest.fixture(scope="module")
def cutouts(frames: Path, table: str) -> npt.NDArray[np.uint8]:
    """`[galaxies, 64, 64, 3]`"""
    unit = read_unit(listed(open_frames(str(frames), table, bands=SDSS.bands)), Decoder())
    pixels = unit.sort_by("galaxy_id")["cutout"].to_pylist()
    return np.stack([np.frombuffer(cutout, np.uint8).reshape(64, 64, 3) for cutout in pixels])


def distances() -> npt.NDArray[np.float64]:
    rows, columns = np.mgrid[:64, :64]
    return np.hypot(rows - CENTER, columns - CENTER)


def test_they_become_a_catalog(
    frames: Path, found: Found, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "load_engine", partial(fake_engine))
    catalog = str(tmp_path / "catalog")
    values = {"input": str(frames), "frames": True, "positions": table, "catalog": catalog, "cpus": 2}
    assert run_survey(load_settings(None, values)).exit_code == 0
    rows = Catalog(catalog).galaxies().sort_by("galaxy_id")
    assert rows["galaxy_id"].to_pylist() == found.names
    assert len(Catalog(catalog).rejects()) == 0
    x, y = found.wcs.all_world2pix(rows["ra"].to_numpy(), rows["dec"].to_numpy(), 0)
    np.testing.assert_allclose(np.stack([x, y]), np.stack([found.x, found.y]), atol=1e-6)


def test_they_are_centered(found: Found, cutouts: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    """The light of the core is within 0.5 of 64 pixels of the center, and of all together within 0.25."""
    picture = np.concatenate(np.kron(cutouts, np.ones((1, ENLARGED, ENLARGED, 1), np.uint8)), axis=1)
    Image.fromarray(picture).save(tmp_path / "galaxies.png")
    assert len(cutouts) == len(found.names) >= 6
    light = cutouts.astype(float).sum(axis=3)
    away = distances()
    rim = (away >= CORE_PIXELS) & (away < CORE_PIXELS + 2)
    light = np.maximum(light - np.median(light[:, rim], axis=1)[:, None, None], 0) * (away < CORE_PIXELS)
    total = light.sum(axis=(1, 2))
    rows, columns = np.mgrid[:64, :64]
    offsets = np.stack([(light * axis).sum(axis=(1, 2)) / total - CENTER for axis in (rows, columns)])
    assert np.hypot(*offsets).max() < 0.5
    assert np.abs(offsets.mean(axis=1)).max() < 0.25


def test_their_colors_are_those_of_the_frames(found: Found, cutouts: npt.NDArray[np.uint8]) -> None:
    """Red by green and blue by green of a core are within 8 % of the ratios of its weighted fluxes."""
    expected = found.core * np.array(SDSS.weights)
    core = distances() <= 0.3 / PIXEL_R90
    shown = cutouts[:, core].mean(axis=1)
    for color in (0, 2):
        ratio = (shown[:, color] / shown[:, 1]) / (expected[:, color] / expected[:, 1])
        np.testing.assert_allclose(ratio, 1, atol=0.08)
    red_by_blue = shown[:, 0] / shown[:, 2]
    assert red_by_blue.max() > 1.5 * red_by_blue.min()  # galaxies of different colors, not one gray
