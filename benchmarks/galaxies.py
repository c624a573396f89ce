"""The galaxies that benchmarks read: real cutouts if they are available, else simulated ones as large."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bad_images import encoded, galaxy
from s3 import ceph
from s3.servers import environment, make_bucket, moto

from benchmarks.suite import SHARED
from gax_batch import storage
from gax_batch.planning.plan import make_plan, read_unit_members
from gax_batch.sources import open_source

SIDE = 424
# At this quality a simulated galaxy has about 14 kB, as those of the Galaxy Zoo challenge.
QUALITY = 84
DISTINCT = 200


def jpegs(count: int) -> list[bytes]:
    """Return cutouts of 424 pixels and about 14 kB, repeated if there are not enough."""
    real = sorted((SHARED / "kaggle" / "images").glob("*.jpg"))[:count]
    found = [path.read_bytes() for path in real] or [
        encoded(galaxy(SIDE, seed=seed), "JPEG", quality=QUALITY) for seed in range(min(count, DISTINCT))
    ]
    return list(islice(cycle(found), count))


def write_jpegs(place: str, count: int) -> None:
    """Write loose cutouts below a folder or prefix."""
    for number, data in enumerate(jpegs(count)):
        storage.write_bytes(storage.join(place, f"{number:07d}.jpg"), data)


def area_averaged(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the central 256 of 424 pixels averaged to 64x64, with plain NumPy, of one or several images."""
    rim = (SIDE - 256) // 2
    middle = pixels[..., rim : SIDE - rim, rim : SIDE - rim, :]
    blocks = middle.reshape(*middle.shape[:-3], 64, 4, 64, 4, 3)
    return np.round(blocks.mean(axis=(-4, -2), dtype=np.float32)).astype(np.uint8)


def plan_units(place: str, folder: Path, unit_size: int) -> list[pa.Table]:
    """List and plan a survey. Return the members of its units."""
    folder.mkdir(parents=True, exist_ok=True)
    members = open_source(place).list_members()
    plan = make_plan(members, [], {}, settings_fingerprint="s", unit_size=unit_size, folder=folder)
    return [read_unit_members(*plan.local_place(index)) for index in range(len(plan.units))]


@contextmanager
def object_store(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the URI of a new bucket and its server: Ceph's gateway, or moto if Ceph is not installed."""
    name = "moto" if ceph.missing_programs() else "Ceph"
    server = moto() if name == "moto" else ceph.running(folder / "ceph")
    with server as endpoint, environment(endpoint):
        yield make_bucket("benchmarks"), name
