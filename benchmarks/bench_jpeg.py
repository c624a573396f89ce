"""From a JPEG of 424 pixels to a cutout of 64x64, on one core."""

import io
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.galaxies import area_averaged, jpegs
from benchmarks.suite import Lab, Row, Sample, Target, in_turns, rates
from gax_batch.imaging.cutout import decode_cutout

COUNT = 1000


def by_pillow(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode all pixels, crop, and average over areas, in Pillow."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    rim = (image.width - 256) / 2
    box = (rim, rim, image.width - rim, image.height - rim)
    return np.asarray(image.resize((64, 64), Image.Resampling.BOX, box=box))


def run(lab: Lab) -> Iterator[Row]:
    images = jpegs(lab.count(COUNT))
    works = {
        "ours": lambda: [decode_cutout(data) for data in images],
        "Pillow": lambda: [by_pillow(data) for data in images],
    }
    speed = rates(in_turns(works, turns=lab.turns, clock=time.process_time), len(images))
    name = "Pillow: full decode, area average"
    yield Row("JPEGs decoded to cutouts", "1/s/core", speed["ours"], name, speed["Pillow"], Target(2500))
    levels = [
        float(np.abs(decode_cutout(data)[0].astype(int) - full).mean())
        for data in images
        for full in [area_averaged(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))]
    ]
    target = Target(1, at_most=True)
    for what, value in (("all cutouts", float(np.mean(levels))), ("the worst one", max(levels))):
        name = f"mean difference to a full decode, {what}"
        yield Row(name, "gray levels", Sample((value,)), target=target)
