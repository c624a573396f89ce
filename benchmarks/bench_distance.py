"""The effect of distance on morphology: the same spirals as observed, and as if at twice the distance."""

import csv
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from benchmarks.suite import Lab, Row, Sample
from gax_batch import gz2
from gax_batch.imaging.decoding import Decoder
from gax_batch.models.bundle import load_bundle
from gax_batch.models.engine import Engine

Pixels = npt.NDArray[np.float64]

COUNT = 200
DRAWS = 16
# Cutouts are scaled to their galaxy: if 90 % of the light is within 10 arcsec, a seeing of 1.3 arcsec is 6.5
# pixels of 424 (FWHM). At twice the distance, the seeing and the noise of each pixel are twice as large.
FWHM = 6.5
BLUR = np.sqrt(3) * FWHM / 2.355
MEASURED = {
    "fraction of spiral arms": "t04_spiral_a08_spiral",
    "fraction of a bar": "t03_bar_a06_bar",
    "fraction of features or a disk": "t01_smooth_or_features_a02_features_or_disk",
}


def blurred(image: Pixels) -> Pixels:
    """Return the image with twice the seeing."""
    return np.asarray(gaussian_filter(image, (BLUR, BLUR, 0)), np.float64)


def noised(image: Pixels, of: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the image with twice the noise of another's corners, which is correlated over 4 pixels."""
    corners = np.concatenate([of[:60, :60].reshape(-1, 3), of[-60:, -60:].reshape(-1, 3)])
    spread = 1.4826 * np.median(np.abs(corners - np.median(corners, axis=0)), axis=0)
    noise = zoom(rng.normal(0, 1, (106, 106, 3)), (4, 4, 1), order=1)
    return np.asarray(image + noise / noise.std() * 2 * np.maximum(spread, 2.0), np.float64)


def cutout(image: Pixels) -> npt.NDArray[np.uint8]:
    """Return the 64x64 cutout of an image of 424x424, as a run makes it."""
    buffer = BytesIO()
    Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return Decoder().decode(buffer.getvalue())[0]


def spirals(folder: Path, count: int) -> Iterator[Pixels]:
    """Yield images of the first clear spirals of the challenge, float64 `[424, 424, 3]`."""
    with (folder / "class5.csv").open() as file:
        names = [row["galaxy_id"] for row in csv.DictReader(file) if row["class5"] == "spiral"]
    for name in names[:count]:
        with Image.open(folder / "images" / f"{name}.jpg") as picture:
            yield np.asarray(picture.convert("RGB"), np.float64)


def run(lab: Lab) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    images = list(spirals(lab.data("kaggle"), lab.count(COUNT)))
    versions = {
        "as observed": images,
        "blurred": [blurred(image) for image in images],
        "blurred and noised": [noised(blurred(image), image, rng) for image in images],
    }
    engine = Engine(load_bundle(), models=("bayesian", "svr"), draws=DRAWS, precision="float32")
    found: dict[str, dict[str, Sample]] = {}
    for version, pixels in versions.items():
        prob = engine.summarize(np.stack([cutout(image) for image in pixels])).prob
        columns = {name: gz2.ANSWERS.index(answer) for name, answer in MEASURED.items()}
        means = {f"mean {name}": float(prob[:, column].mean()) for name, column in columns.items()}
        path = gz2.most_likely(prob)[:, columns["fraction of spiral arms"]]
        means["share with spiral arms on the most likely path"] = float(path.mean())
        found[version] = {name: Sample((value,)) for name, value in means.items()}
    observed = found.pop("as observed")
    for version, samples in found.items():
        for name, sample in samples.items():
            yield Row(
                f"{name}, {version} as at twice the distance", "", sample, "as observed", observed[name]
            )
