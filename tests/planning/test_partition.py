"""Where units end: whole fields and shards share one, and each is fetched once."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listings import FakeCatalog, listing, member, new_folder, planned, shard_row

from gax_batch.planning import partition as module
from gax_batch.planning.plan import Plan, make_plan, read_unit_members
from gax_batch.sources.base import with_columns

TABLE = "s3://survey/galaxies.parquet"


def on_fields(fields: int, each: int) -> pa.Table:
    """Galaxies of a table in no order of their fields."""
    count = fields * each
    numbers = np.random.default_rng(1).permutation(count) // each
    names = pa.array([f"g{i}" for i in range(count)])
    columns = {
        "galaxy_id": names,
        "source_uri": pa.array([f"{TABLE}#galaxy=g{i}" for i in range(count)]),
        "source_version": pa.array(["1|2|3|"] * count),
        "object_uri": pa.array([f"s3://survey/frames/{n:06}-{{band}}.fits" for n in numbers]),
        "row": pa.array(np.arange(count)),
        "size": pa.array(np.full(count, 36_000_000 // each)),
    }
    return with_columns(columns, count)


def shards(sizes: dict[str, int]) -> pa.Table:
    return listing(shard_row(shard, row) for shard, size in sizes.items() for row in range(size))


def objects(plan: Plan) -> dict[str, list[str]]:
    """The objects of each unit."""
    return {
        unit: [*dict.fromkeys(str(m["object_uri"]) for m in members)]
        for unit, members in planned(plan).items()
    }


def test_a_survey_of_100_000_fields_is_few_units_and_each_field_is_in_one_of_them():
    table = on_fields(100_000, 5)
    plan = make_plan([table], [], {}, settings_fingerprint="s", unit_size=4096, folder=new_folder())
    assert plan.members == 500_000
    assert len(plan.units) <= 200
    assert max(unit.members for unit in plan.units) <= 4096
    fields: Counter[str] = Counter()
    for index in range(len(plan.units)):
        fields.update(set(read_unit_members(*plan.local_place(index))["object_uri"].to_pylist()))
    assert set(fields.values()) == {1}
    assert len(fields) == 100_000
    assert not any(unit.whole for unit in plan.units)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=25), st.integers(1, 12), st.integers(5, 40))
def test_a_shard_that_fits_is_never_cut_and_what_is_whole_is_told(sizes, unit_size, batch):
    table = shards({f"{number:02}": size for number, size in enumerate(sizes)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gax_batch.system.disk_database.BATCH_ROWS", batch)
        plan = FakeCatalog().plan(table, unit_size)
    units = objects(plan)
    of_shard = defaultdict(list)
    for unit, found in units.items():
        for uri in found:
            of_shard[uri].append(unit)
    for number, size in enumerate(sizes):
        assert len(of_shard[f"s3://survey/{number:02}.parquet"]) == -(-size // unit_size)
    for unit in plan.units:
        assert unit.members <= unit_size
        assert unit.whole == all(len(of_shard[uri]) == 1 for uri in units[unit.unit_id])
    # Two neighbors that were whole and together small enough would be one unit.
    whole = [unit.members if unit.whole else unit_size for unit in plan.units]
    assert all(2 * max(pair) + 2 * 9 > unit_size for pair in itertools.pairwise(whole))


def test_batches_make_no_difference(monkeypatch):
    table = shards({f"{number:02}": 1 + number * 7 % 11 for number in range(40)})
    whole = objects(FakeCatalog().plan(table, 20))
    for rows in (1, 7, 64):
        monkeypatch.setattr("gax_batch.system.disk_database.BATCH_ROWS", rows)
        assert objects(FakeCatalog().plan(table, 20)) == whole


def test_a_survey_that_grows_while_a_run_is_interrupted_keeps_most_units():
    sizes = {f"{number:04}": 5 for number in range(2000)}
    before = set(objects(FakeCatalog().plan(shards(sizes), 100)))
    after = set(objects(FakeCatalog().plan(shards(sizes | {"0007-new": 3}), 100)))
    assert len(before - after) <= 0.1 * len(before)


def test_units_of_the_catalog_keep_their_members_when_shards_are_added():
    catalog, sizes = FakeCatalog(), {"a": 3, "b": 3, "c": 3}
    catalog.apply(catalog.plan(shards(sizes), 10))
    (unit,) = catalog.parts
    plan = catalog.plan(shards(sizes | {"ab": 3, "d": 3}), 10)
    assert [u.reason for u in plan.units] == ["new"]
    plan = catalog.plan(shards(sizes | {"ab": 3, "d": 3}), 10, settings_fingerprint="t")
    assert {u.unit_id: (u.members, u.whole) for u in plan.units if u.reason != "new"} == {unit: (9, True)}


def test_the_bytes_of_a_unit_are_bounded_but_no_field_is_cut_for_them(monkeypatch):
    monkeypatch.setattr(module, "MAX_UNIT_BYTES", 100_000_000)
    table = on_fields(60, 5)
    plan = make_plan([table], [], {}, settings_fingerprint="s", unit_size=4096, folder=new_folder())
    assert max(unit.bytes or 0 for unit in plan.units) <= 100_000_000
    assert {unit.members for unit in plan.units} <= {5, 10}
    monkeypatch.setattr(module, "MAX_UNIT_BYTES", 1_000_000)
    plan = make_plan([table], [], {}, settings_fingerprint="s", unit_size=4096, folder=new_folder())
    assert [unit.members for unit in plan.units] == [5] * 60


def test_loose_images_fill_their_units():
    plan = FakeCatalog().plan(listing(member(f"m{i:03}") for i in range(100)), 7)
    assert [unit.members for unit in plan.units] == [7] * 14 + [2]
    assert not any(unit.whole for unit in plan.units)
