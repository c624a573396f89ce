"""From three-band frames to cutouts at positions, on one core, after a frame is in memory."""

import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.visualization import make_lupton_rgb
from astropy.wcs import WCS
from listings import listed
from scipy.ndimage import zoom

from benchmarks.suite import Lab, Row, Sample, Target, in_turns
from gax_batch.imaging.decoding import Decoder
from gax_batch.sources import open_frames, read_unit

COUNT = 2000
RADIUS_ARCSEC = 7.0
SPREAD_DEX = 0.17
RIM_PIXELS = 60
BANDS = ("i", "r", "g")


def write_positions(path: Path, frame: Path, count: int) -> str:
    """Write a table of galaxies all over a frame, with the distribution of radii of Galaxy Zoo 2."""
    dice = np.random.default_rng(0)
    header = fits.getheader(frame)
    sides = np.array([header["NAXIS1"], header["NAXIS2"]])
    places = dice.uniform(RIM_PIXELS, sides - RIM_PIXELS, (count, 2))
    ra, dec = WCS(header).all_pix2world(places, 0).T
    radii = RADIUS_ARCSEC * 10 ** dice.normal(0, SPREAD_DEX, count)
    lines = [f"g{i},{a},{d},{r:.3f}" for i, (a, d, r) in enumerate(zip(ra, dec, radii, strict=True))]
    path.write_text("\n".join(["galaxy_id,ra,dec,radius", *lines, ""]))
    return str(path)


def by_astropy(members: pa.Table, frames: Path) -> npt.NDArray[np.uint8]:
    """Return the same cutouts by astropy, with a linear zoom and its Lupton mapping. Frames are read once."""
    bands = [fits.open(frames / f"ngc6976_sdss_{band}.fits.bz2")[0] for band in BANDS]
    projections = [WCS(band.header) for band in bands]
    cutouts = []
    for galaxy in members.to_pylist():
        side = 64 * 0.08 * galaxy["radius"] / 0.396
        place = SkyCoord(galaxy["ra"], galaxy["dec"], unit="deg")
        planes = [
            Cutout2D(band.data, place, round(side), wcs=wcs, mode="partial", fill_value=0).data
            for band, wcs in zip(bands, projections, strict=True)
        ]
        scaled = [zoom(plane, 64 / plane.shape[0], order=1) for plane in planes]
        cutouts.append(make_lupton_rgb(*scaled, stretch=0.5, Q=5))
    return np.stack(cutouts)


def run(lab: Lab) -> Iterator[Row]:
    warnings.simplefilter("ignore")  # of an old keyword in the frames' headers
    frames = lab.data("frames")
    count = lab.count(COUNT)
    table = write_positions(lab.folder / "galaxies.csv", frames / "ngc6976_sdss_r.fits.bz2", count)
    members = listed(open_frames(str(frames), table, bands=BANDS))
    few = members.slice(0, max(count // 10, 1))
    works = {
        "ours": lambda: read_unit(members, Decoder()),
        "frame alone": lambda: read_unit(members.slice(0, 1), Decoder()),
        "astropy": lambda: by_astropy(few, frames),
        "astropy, frame alone": lambda: by_astropy(members.slice(0, 1), frames),
    }
    seconds = in_turns(works, turns=lab.turns, clock=time.process_time)
    ours = _beyond(seconds["ours"], seconds["frame alone"], count - 1)
    peer = _beyond(seconds["astropy"], seconds["astropy, frame alone"], len(few) - 1)
    name = "astropy: Cutout2D, zoom, make_lupton_rgb"
    yield Row("cutouts of three-band frames", "1/s/core", ours, name, peer, Target(1500))


def _beyond(whole: Sample, start: Sample, more: int) -> Sample:
    """Return the cutouts a second after the first one, whose time includes reading the frame."""
    pairs = zip(whole.values, start.values, strict=True)
    return Sample(tuple(more / (all_of_them - first) for all_of_them, first in pairs))
