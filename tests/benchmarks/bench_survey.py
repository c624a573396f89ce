"""A whole run on loose JPEGs beside a user's afternoon script, and on packed shards beside the engine alone.

Start-up is left out: of each way a small and a large survey are run, and the rate is of what lies between.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from benchmarks.afternoon import DRAWS
from benchmarks.galaxies import jpegs, write_jpegs
from benchmarks.suite import Lab, Row, Sample, Target

from gax_batch.config import load_settings
from gax_batch.imaging import decode_cutout
from gax_batch.inference import Engine
from gax_batch.models.bundle import load_bundle
from gax_batch.pack import pack_survey

UNIT = 128
# Galaxies of the small and of the large survey: two units and twelve; the script is slower.
OURS = (2 * UNIT, 12 * UNIT)
SCRIPT = (32, 160)
ENGINE = 256


@dataclass(frozen=True, slots=True)
class Surveys:
    """Folders of loose JPEGs and of packed shards by their number of galaxies."""

    folder: Path

    def loose(self, count: int) -> Path:
        place = self.folder / f"loose-{count}"
        if not place.exists():
            place.mkdir(parents=True)
            write_jpegs(str(place), count)
        return place

    def packed(self, count: int) -> Path:
        place = self.folder / f"packed-{count}"
        if not place.exists():
            given = {"input": str(self.loose(count)), "catalog": str(place), "unit_size": UNIT}
            pack_survey(load_settings(None, given), lambda _: None)
        return place


def process(*arguments: str) -> float:
    """Seconds of a Python process that must succeed."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.perf_counter() - start


def rows_in(folder: Path) -> int:
    """Rows of all Parquet files below a folder."""
    return sum(pq.read_metadata(path).num_rows for path in folder.rglob("*.parquet"))


def cataloging(survey: Path, count: int, output: Path) -> float:
    """Seconds of `gax run`."""
    command = ["-c", "from gax_batch.cli import main; main()", "run", "--draws", str(DRAWS)]
    command += ["--input", str(survey), "--catalog", str(output), "--unit-size", str(UNIT)]
    seconds = process(*command)
    assert rows_in(output / "galaxies") == count
    return seconds


def scripted(survey: Path, count: int, output: Path) -> float:
    """Seconds of the afternoon's script."""
    seconds = process("-m", "benchmarks.afternoon", str(survey), str(output))
    assert rows_in(output) == count
    return seconds


def rate(way: Callable[[int, str], float], counts: tuple[int, int], turn: str) -> float:
    """Galaxies a second between a small and a large survey."""
    small, large = (way(count, f"{turn}-{count}") for count in counts)
    return (counts[1] - counts[0]) / (large - small)


def run(lab: Lab) -> Iterator[Row]:
    surveys, out = Surveys(lab.folder / "surveys"), lab.folder / "out"
    engine = Engine(load_bundle(), draws=DRAWS)
    images = np.stack([decode_cutout(data)[0] for data in jpegs(ENGINE)])
    counts, fewer = ((UNIT, 2 * UNIT), (16, 32)) if lab.quick else (OURS, SCRIPT)

    def alone(count: int, _: str) -> float:
        start = time.perf_counter()
        for _ in range(count // ENGINE):
            engine.summarize(images)
        return time.perf_counter() - start

    ways: dict[str, tuple[Callable[[int, str], float], tuple[int, int]]] = {
        "loose": (lambda n, turn: cataloging(surveys.loose(n), n, out / f"loose-{turn}"), counts),
        "script": (lambda n, turn: scripted(surveys.loose(n), n, out / f"script-{turn}"), fewer),
        "packed": (lambda n, turn: cataloging(surveys.packed(n), n, out / f"packed-{turn}"), counts),
        "engine": (alone, (0, 2 * ENGINE)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    engine.summarize(images)
    for turn in range(min(lab.turns, 3)):
        for name, (way, sizes) in ways.items():
            speeds[name].append(rate(way, sizes, str(turn)))
    samples = {name: Sample(tuple(values)) for name, values in speeds.items()}
    what = f"whole run, {DRAWS} draws"
    script = ("afternoon script", samples["script"], Target(8, of_ratio=True))
    yield Row(f"{what}, loose JPEGs", "galaxies/s", samples["loose"], *script)
    limit = ("the engine alone", samples["engine"], Target(0.92, of_ratio=True))
    yield Row(f"{what}, packed shards", "galaxies/s", samples["packed"], *limit)
