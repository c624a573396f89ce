"""A whole run on loose JPEGs compared with a user's script, and on packed shards with the engine alone.

Start-up is excluded: a small and a large survey are run each way, and the rate is that of the difference. The
small survey has enough units that most processes of a run have started.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.afternoon import DRAWS as SCRIPT_DRAWS
from benchmarks.galaxies import jpegs, write_jpegs
from benchmarks.suite import Lab, Row, Sample, Target
from benchmarks.usage import ENGINES, KINDS, Usage
from gax_batch.imaging.cutout import decode_cutout
from gax_batch.models import DEFAULT_DRAWS
from gax_batch.models.bundle import load_bundle
from gax_batch.models.engine import Engine
from gax_batch.runner.pack import pack_survey
from gax_batch.runner.settings import PackSettings, check_settings

UNIT = 256
# Numbers of galaxies in the small and in the large survey. The script is slower and gets fewer.
OURS = (4 * UNIT, 12 * UNIT)
SCRIPT = (16, 112)
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
            given = {"input": str(self.loose(count)), "output": str(place), "unit_size": UNIT}
            pack_survey(check_settings(PackSettings, given))
        return place


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """Seconds of some work, and its CPU seconds by kind of process."""

    seconds: float
    cpu: Counter[str]


Way = Callable[[int, str], ProcessTimes]


def process(*arguments: str) -> ProcessTimes:
    """Run a Python process, which must succeed, and return its times."""
    start = time.perf_counter()
    with (
        subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running,
        Usage(running.pid) as usage,
    ):
        said, _ = running.communicate()
    assert running.returncode == 0, said
    return ProcessTimes(time.perf_counter() - start, usage.seconds())


def rows_in(folder: Path) -> int:
    """Return the number of rows in all Parquet files below a folder."""
    return sum(pq.read_metadata(path).num_rows for path in folder.rglob("*.parquet"))


def cataloging(survey: Path, count: int, output: Path) -> ProcessTimes:
    """Return the times of `gax run`."""
    command = ["-c", "from gax_batch.cli import main; main()", "run"]
    command += ["--input", str(survey), "--catalog", str(output), "--unit-size", str(UNIT)]
    spent = process(*command)
    assert rows_in(output / "galaxies") == count
    return spent


def scripted(survey: Path, count: int, output: Path) -> ProcessTimes:
    """Return the times of the afternoon's script."""
    spent = process("-m", "benchmarks.afternoon", str(survey), str(output))
    assert rows_in(output) == count
    return spent


def between(way: Way, counts: tuple[int, int], turn: str) -> tuple[float, dict[str, float]]:
    """Return galaxies a second between a small and a large survey, and CPU milliseconds of each by kind."""
    small, large = (way(count, f"{turn}-{count}") for count in counts)
    more = counts[1] - counts[0]
    cpu = {kind: (large.cpu[kind] - small.cpu[kind]) / more * 1e3 for kind in KINDS}
    return more / (large.seconds - small.seconds), cpu


def run(lab: Lab) -> Iterator[Row]:
    surveys, out = Surveys(lab.folder / "surveys"), lab.folder / "out"
    engine = Engine(load_bundle())
    images = np.stack([decode_cutout(data)[0] for data in jpegs(ENGINE)])
    counts, fewer = ((UNIT, 2 * UNIT), (16, 32)) if lab.quick else (OURS, SCRIPT)

    def alone(count: int, _: str) -> ProcessTimes:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(count // ENGINE):
            engine.summarize(images)
        return ProcessTimes(time.perf_counter() - start, Counter({ENGINES: time.process_time() - cpu}))

    ways: dict[str, tuple[Way, tuple[int, int]]] = {
        "loose": (lambda n, turn: cataloging(surveys.loose(n), n, out / f"loose-{turn}"), counts),
        "script": (lambda n, turn: scripted(surveys.loose(n), n, out / f"script-{turn}"), fewer),
        "packed": (lambda n, turn: cataloging(surveys.packed(n), n, out / f"packed-{turn}"), counts),
        "engine": (alone, (0, 2 * ENGINE)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    engine.summarize(images)
    for turn in range(lab.few_turns):
        for name, (way, sizes) in ways.items():
            speed, cpu = between(way, sizes, str(turn))
            speeds[name].append(speed)
            costs[name].append(cpu)

    def profile(name: str, peer: str, its: str) -> Iterator[Row]:
        for kind in KINDS:
            ours, other = (Sample(tuple(cpu[kind] for cpu in costs[way])) for way in (name, its))
            beside = (peer, other) if kind == ENGINES else ()
            yield Row(f"{name}, of it CPU, {kind}", "ms a galaxy", ours, *beside)

    samples = {name: Sample(tuple(values)) for name, values in speeds.items()}
    what = f"whole run, {DEFAULT_DRAWS} draws"
    script = (f"afternoon script, {SCRIPT_DRAWS} draws", samples["script"], Target(9, of_ratio=True))
    yield Row(f"{what}, loose JPEGs", "galaxies/s", samples["loose"], *script)
    yield from profile("loose", "afternoon script", "script")
    limit = ("the engine alone", samples["engine"], Target(0.85, of_ratio=True))
    yield Row(f"{what}, packed shards", "galaxies/s", samples["packed"], *limit)
    yield from profile("packed", "the engine alone", "engine")
