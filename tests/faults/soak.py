"""A long run on one machine: memory, objects, files and sockets over time, and speed at its begin and end.

    python -m faults.soak [CUTOUTS]

Simulated cutouts in packed shards, cataloged with the stand-in engine, so that everything but the networks
works as hard as it can. Fails if the last tenth of the run is slower than 95 % of the first, or if anything
grows.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from fake_engine import fake_engine

from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster import pipeline
from gax_batch.imaging.cutout import CUTOUT_BYTES
from gax_batch.runner import run as run_module
from gax_batch.runner.settings import load_settings
from gax_batch.simulate.population import draw_population
from gax_batch.simulate.render import render
from gax_batch.system.machine import MIB
from gax_batch.system.messages import redirect_messages

CUTOUTS = 1_000_000
UNIT_SIZE = 4_096
DISTINCT = 256
SAMPLE_SECONDS = 2.0
SLOWEST = 0.95
# By what the median of the last tenth may be above that of the first: what comes and goes.
STORE = "store, MiB"
LIMITS = {"memory, MiB": 150, "open files": 20, "sockets": 20, STORE: 64}


class Gauge:
    """Samples this process and its children."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, dict[str, float]]] = []
        # By process, those that have ended included.
        self._cpu_seconds: dict[tuple[int, float], float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Gauge":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def between(self, start: float, end: float) -> dict[str, float]:
        """The median of each measure between two times; of the object store the lowest, where blocks pass."""
        some = [values for when, values in self.samples if start <= when <= end]
        some = some or [min(self.samples, key=lambda sampled: abs(sampled[0] - start))[1]]
        return {
            name: float((np.min if name == STORE else np.median)([values[name] for values in some]))
            for name in some[0]
        }

    def cpu_seconds(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What all processes had used by then."""
        whens, used = zip(*((when, values["CPU s"]) for when, values in self.samples), strict=True)
        return np.interp(times, whens, used)

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            held = sample(self._cpu_seconds)
            self.samples.append((time.monotonic(), held | {"CPU s": sum(self._cpu_seconds.values())}))


def sample(cpu_seconds: dict[tuple[int, float], float]) -> dict[str, float]:
    """Private memory, open files and sockets of all processes, and what is in Ray's object store.

    What each process has used of the processor is noted in `cpu_seconds`.
    """
    memory = files = sockets = 0
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        try:
            info = process.memory_info()
            memory += info.rss - info.shared
            files += process.num_fds()
            cpu_seconds[process.pid, process.create_time()] = sum(process.cpu_times()[:2])
            sockets += len(process.net_connections())
        except psutil.Error:
            continue
    store = 0.0
    if ray.is_initialized():
        name = "object_store_memory"
        store = ray.cluster_resources().get(name, 0) - ray.available_resources().get(name, 0)
    return {
        "memory, MiB": memory / MIB,
        "open files": files,
        "sockets": sockets,
        STORE: store / MIB,
    }


def write_shards(folder: Path, count: int) -> None:
    """Shards of one unit each; the same few images again and again, under new names."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    images = pa.array(
        [pixels.tobytes() for pixels in render(draw_population(rng, DISTINCT), rng)], pa.binary(CUTOUT_BYTES)
    )
    for start in range(0, count, UNIT_SIZE):
        rows = range(start, min(start + UNIT_SIZE, count))
        ids = [f"sim-{number:08d}" for number in rows]
        indices = pa.array([number % DISTINCT for number in rows], pa.int32())
        table = pa.table({"galaxy_id": ids, "cutout": images.take(indices)})
        pq.write_table(table, folder / f"{start:08d}.parquet", dictionary_pagesize_limit=64 * MIB)


def run(folder: Path, count: int) -> None:
    """Catalog the survey, print what was measured, and judge it."""
    write_shards(folder / "shards", count)
    ends: list[tuple[float, int]] = []
    execute = pipeline.execute

    def timed(*arguments: Any) -> Iterator[Any]:
        for result in execute(*arguments):
            ends.append((time.monotonic(), result.state.planned))
            yield result

    pipeline.execute = timed
    run_module.load_engine = fake_engine
    catalog = str(folder / "catalog")
    given = {"input": str(folder / "shards"), "catalog": catalog, "unit_size": UNIT_SIZE, "cpus": 2}
    before = left_over()
    with Gauge() as gauge, redirect_messages(print):
        outcome = run_module.run_survey(load_settings(None, given))
    assert outcome.exit_code == 0
    assert len(set(Catalog(catalog).galaxies(["galaxy_id"])["galaxy_id"].to_pylist())) == count
    judge(ends, gauge, left_over() - before)


def left_over() -> set[str]:
    """Processes below this one, and files in the temporary folder but for logs."""
    files = {str(path) for path in Path(tempfile.gettempdir()).glob("gax-*") if path.suffix != ".log"}
    return files | {str(process) for process in psutil.Process().children(recursive=True)}


def judge(ends: list[tuple[float, int]], gauge: Gauge, left: set[str]) -> None:
    """Compare the first tenth of the run with the last; the first unit ends when the engine has loaded.

    On a machine that others use too, seconds of the processor tell more than seconds.
    """
    times = np.array([when for when, _ in ends])
    done = np.cumsum([cutouts for _, cutouts in ends])
    marks = np.interp(np.linspace(done[0], done[-1], 11), done, times)
    each = (done[-1] - done[0]) / 10
    levels = [gauge.between(start, end) for start, end in pairwise(marks)]
    held = {name: [level[name] for level in levels] for name in LIMITS}
    rates = {
        "cutouts/s": each / np.diff(marks),
        "cutouts/CPU s": each / np.diff(gauge.cpu_seconds(marks)),
    }
    print(f"{'':14}{'first tenth':>14}{'last tenth':>14}")
    for name, values in (rates | held).items():
        print(f"{name:14}{values[0]:14,.0f}{values[9]:14,.0f}")
    for name, values in (rates | held).items():
        print(f"{name} by tenth:", ", ".join(f"{value:,.0f}" for value in values))
    print("left over:", ", ".join(sorted(left)) or "nothing")
    more = {name: values[9] - values[0] for name, values in held.items()}
    grown = {name: growth for name, growth in more.items() if growth > LIMITS[name]}
    assert not grown, f"these grew: {grown}"
    assert max(values[9] / values[0] for values in rates.values()) >= SLOWEST, "the last tenth was slower"
    assert not left, left


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(
        prefix="soak-", dir=sys.argv[2] if len(sys.argv) > 2 else None
    ) as scratch:
        run(Path(scratch), int(sys.argv[1]) if len(sys.argv) > 1 else CUTOUTS)
