"""From loose JPEGs of 14 kB on S3 to cutouts, on all cores, listing included."""

import io
import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import s3fs
from PIL import Image

from benchmarks.galaxies import area_averaged, object_store, plan_units, write_jpegs
from benchmarks.suite import Lab, Row, Target, in_turns, rates
from gax_batch.imaging.decoding import Decoder
from gax_batch.sources import read_unit

COUNT = 3000
CORES = os.cpu_count() or 1
TARGET = Target(6, of_ratio=True)


def read_members(members: pa.Table) -> int:
    """Read one unit as a run does."""
    return int(read_unit(members, Decoder())["cutout"].is_valid().to_numpy().sum())


def ours(place: str, lab: Lab, pool: ProcessPoolExecutor, count: int) -> None:
    """List, plan, and read one unit per core."""
    units = plan_units(place, lab.folder / "plan", -(-count // CORES))
    assert sum(pool.map(read_members, units)) == count


def fetch_and_decode(paths: Sequence[str]) -> int:
    """Get many objects concurrently, and decode one after the other."""
    cutouts = [
        area_averaged(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        for data in s3fs.S3FileSystem().cat(list(paths)).values()
    ]
    return len(np.stack(cutouts))


def by_s3fs(place: str, pool: ProcessPoolExecutor, count: int) -> None:
    """List, and let each core fetch and decode some hundred objects at a time."""
    files = s3fs.S3FileSystem()
    files.invalidate_cache()
    paths = files.find(place)
    size = min(250, -(-count // CORES))
    chunks = [paths[start : start + size] for start in range(0, count, size)]
    assert sum(pool.map(fetch_and_decode, chunks)) == count


def shrunk(batch: dict[str, npt.NDArray[np.uint8]]) -> dict[str, npt.NDArray[np.uint8]]:
    """Convert a batch of whole images to one of cutouts."""
    return {"cutout": area_averaged(batch["image"])}


def by_ray(place: str, count: int) -> None:
    """Use Ray Data's own reader of images, and average in batches."""
    import ray.data
    from pyarrow.fs import S3FileSystem

    scheme, _, address = os.environ["AWS_ENDPOINT_URL"].partition("://")
    store = S3FileSystem(scheme=scheme, endpoint_override=address, region=os.environ["AWS_REGION"])
    path = place.removeprefix("s3://")
    images = ray.data.read_images(path, filesystem=store, mode="RGB").map_batches(shrunk, batch_size=64)
    assert sum(len(batch["cutout"]) for batch in images.iter_batches(batch_size=1024)) == count


def run(lab: Lab) -> Iterator[Row]:
    import ray

    count = lab.count(COUNT)
    spawn = multiprocessing.get_context("spawn")
    with object_store(lab.folder) as (bucket, server), ProcessPoolExecutor(CORES, spawn) as pool:
        place = f"{bucket}/loose"
        write_jpegs(place, count)
        ray.init(
            address="local",
            num_cpus=CORES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
        )
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        works = {
            "ours": partial(ours, place, lab, pool, count),
            "ray": partial(by_ray, place, count),
            "s3fs": partial(by_s3fs, place, pool, count),
        }
        speed = rates(in_turns(works, turns=lab.few_turns), count)
        ray.shutdown()
    what = f"{count:,} loose JPEGs from S3 ({server}) on {CORES} cores"
    yield Row(what, "1/s", speed["ours"], "ray.data.read_images", speed["ray"], TARGET)
    yield Row(what, "1/s", speed["ours"], "s3fs and Pillow, a process per core", speed["s3fs"], TARGET)
