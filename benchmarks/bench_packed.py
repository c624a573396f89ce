"""Packed shards compared with the loose JPEGs from which they were made, on one core, and their size."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from benchmarks.galaxies import object_store, plan_units, write_jpegs
from benchmarks.suite import Lab, Row, Sample, Target, in_turns, rates
from gax_batch.imaging.decoding import Decoder
from gax_batch.runner.pack import pack_survey
from gax_batch.runner.settings import PackSettings, check_settings
from gax_batch.sources import read_unit
from gax_batch.storage.listing import list_objects

COUNT = 4096
FASTER = Target(10, of_ratio=True)
# A million cutouts fit in 8 GB.
SMALLER = Target(8000, at_most=True)


def pack(loose: str, packed: str, *, originals: bool) -> None:
    """Pack a survey into one shard."""
    settings = check_settings(PackSettings, {"input": loose, "output": packed, "unit_size": COUNT})
    pack_survey(settings, originals=originals, processes=1)


def read(units: list[pa.Table], count: int) -> None:
    """Read units as a run does."""
    cutouts = pa.concat_tables(read_unit(members, Decoder()) for members in units)
    assert len(cutouts) - cutouts["cutout"].null_count == count


def measured(root: str, where: str, lab: Lab) -> Iterator[Row]:
    """Write, pack and read a survey below a folder or prefix."""
    count = lab.count(COUNT)
    places = {name: f"{root}/{name}" for name in ("loose", "packed", "originals")}
    write_jpegs(places["loose"], count)
    pack(places["loose"], places["packed"], originals=False)
    pack(places["loose"], places["originals"], originals=True)
    plans = {name: plan_units(place, _plan(lab, where, name), COUNT) for name, place in places.items()}
    works = {name: lambda units=units: read(units, count) for name, units in plans.items()}
    speed = rates(in_turns(works, turns=lab.turns), count)
    peer = ("loose JPEGs", speed["loose"])
    yield Row(f"packed cutouts read, {where}", "1/s", speed["packed"], *peer, FASTER)
    yield Row(f"packed originals read, {where}", "1/s", speed["originals"], *peer)
    size = sum(info.size for info in list_objects(places["packed"])) / count
    yield Row("size of a packed cutout", "bytes", Sample((size,)), target=SMALLER)


def _plan(lab: Lab, where: str, name: str) -> Path:
    return lab.folder / "plans" / where.replace(" ", "-") / name


def run(lab: Lab) -> Iterator[Row]:
    yield from measured(str(lab.folder / "survey"), "local disk", lab)
    with object_store(lab.folder) as (bucket, server):
        rows = list(measured(bucket, f"S3 ({server})", lab))
    yield from rows[:2]
