import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listings import BAD_VERSION, GONE_VERSION, FakeCatalog, listing, member, planned, rows_now, shard_row
from message_facts import numbers_in

from gax_batch.errors import FatalError, UsageError
from gax_batch.planning.plan import Plan, read_unit_members
from gax_batch.sources.base import MEMBER_SCHEMA, POSITION_SCHEMA


def facts(plan: Plan) -> list[tuple[object, ...]]:
    return [(u.unit_id, u.fingerprint, u.reason, u.members) for u in plan.units]


# Few names, ids and versions, so that ids collide, members change, vanish and come back all the time.
names = st.sampled_from([f"m{i}" for i in range(10)])
members_st = st.builds(
    lambda name, galaxy, version, position: member(
        name, galaxy_id=galaxy, source_version=version, ra=position, dec=position
    ),
    names,
    st.sampled_from(["A", "B", "C", "D", "E", "F", "G", "", None]),
    st.sampled_from(["1", "2", BAD_VERSION]),
    st.sampled_from([None, 1.0, 2.0]),
)
listings = st.lists(members_st, max_size=10, unique_by=lambda m: m["source_uri"])
sizes = st.integers(1, 5)


def check_partition(
    plan: Plan, units: dict[str, list[dict[str, object]]], table: pa.Table, before: set[object]
):
    """Every listed member is in one unit, or was known and is unchanged."""
    seen = Counter(m["source_uri"] for members in units.values() for m in members)
    listed = set(table["source_uri"].to_pylist())
    assert set(seen) <= listed
    assert not [uri for uri, count in seen.items() if count > 1]
    assert listed - set(seen) <= before
    counts = plan.counts.as_dict()
    assert sum(counts.values()) - counts["vanished"] == len(listed)
    assert counts["new"] == len(listed - before)
    assert counts["vanished"] == len(before - listed)
    assert plan.members == sum(seen.values()) == sum(u.members for u in plan.units)


def is_moved(catalog: FakeCatalog, table: pa.Table) -> bool:
    """Whether a galaxy of a unit that vanished as a whole has its id newly claimed in the listing."""
    listed = {m["source_uri"] for m in table.to_pylist()}
    kept = {id_ for _, id_ in of_vanished_units(catalog, listed)}
    had = {m["source_uri"]: m["galaxy_id"] for m in catalog.members}
    return any(
        m["galaxy_id"] in kept and had.get(m["source_uri"]) != m["galaxy_id"]
        for m in table.to_pylist()
        if m["reason"] in (None, "duplicate_id")
    )


def of_vanished_units(catalog: FakeCatalog, listed: set[object]) -> set[tuple[object, object]]:
    """URIs and ids of the galaxies of units of which nothing is listed."""
    return {
        (m["source_uri"], m["galaxy_id"])
        for _, _, members in catalog.parts.values()
        if not listed & {m["source_uri"] for m in members}
        for m in members
        if m["reason"] is None
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(listings, sizes, st.sampled_from("st"), st.booleans()), min_size=1, max_size=4))
def test_whatever_happens_to_a_survey_each_cutout_is_cataloged_once(nights):
    catalog = FakeCatalog()
    for rows, unit_size, settings_fingerprint, full in nights:
        catalog.settings = settings_fingerprint
        table = listing(rows)
        before = {m["source_uri"] for m in catalog.members}
        if is_moved(catalog, table):
            with pytest.raises(UsageError, match=r"://.*://"):
                catalog.plan(table, unit_size, full=full)
            continue
        plan = catalog.plan(table, unit_size, full=full)
        check_partition(plan, planned(plan), table, before)
        catalog.apply(plan)
        after = Counter(m["source_uri"] for m in catalog.members)
        assert set(after.values()) <= {1}
        assert set(table["source_uri"].to_pylist()) <= set(after)
        cataloged = Counter(m["galaxy_id"] for m in catalog.members if m["reason"] is None)
        assert set(cataloged.values()) <= {1}
        # Nobody listed loses an id to a vanished galaxy, unless there was no unit to redo.
        listed = set(table["source_uri"].to_pylist())
        owners = listed | {uri for uri, _ in of_vanished_units(catalog, listed)}
        lost = [m for m in catalog.members if m["source_uri"] in listed and m["reason"] == "duplicate_id"]
        assert all(any(uri in m["detail"] for uri in owners) for m in lost)
        again = catalog.plan(table, unit_size)
        assert again.units == []
        assert again.counts.unchanged == len(table)


@settings(max_examples=30, deadline=None)
@given(listings, listings, sizes, st.randoms(use_true_random=False))
def test_the_order_of_a_listing_does_not_matter(first, second, unit_size, random):
    catalog = FakeCatalog()
    catalog.apply(catalog.plan(listing(first), unit_size))
    table = listing(second)
    order = list(range(len(table)))
    random.shuffle(order)
    other = table.take(pa.array(order, pa.int64()))
    if is_moved(catalog, table):
        for either in (table, other):
            with pytest.raises(UsageError, match=r"://.*://"):
                catalog.plan(either, unit_size)
        return
    plan, shuffled = catalog.plan(table, unit_size), catalog.plan(other, unit_size)
    assert facts(plan) == facts(shuffled)
    assert planned(plan) == planned(shuffled)


@settings(max_examples=30, deadline=None)
@given(listings, members_st, sizes)
def test_units_keep_their_names_when_a_member_is_added(rows, extra, unit_size):
    catalog = FakeCatalog()
    catalog.apply(catalog.plan(listing(rows), unit_size))
    before = set(catalog.parts)
    rows = [row for row in rows if row["source_uri"] != extra["source_uri"]]
    plan = catalog.plan(listing([*rows, extra]), unit_size)
    assert {u.unit_id for u in plan.units if u.reason != "new"} <= before
    catalog.apply(plan)
    assert before <= set(catalog.parts)


def test_new_members_are_cut_into_units_in_order():
    plan = FakeCatalog().plan(listing(member(f"m{i:02}") for i in range(10)))
    assert [u.members for u in plan.units] == [4, 4, 2]
    assert [u.bytes for u in plan.units] == [40, 40, 20]
    assert {u.reason for u in plan.units} == {"new"}
    read = [[m["galaxy_id"] for m in members] for members in planned(plan).values()]
    assert read == [[f"m{i:02}" for i in range(j, min(j + 4, 10))] for j in (0, 4, 8)]
    assert {name: count for name, count in plan.counts.as_dict().items() if count} == {"new": 10}
    assert numbers_in(str(plan.counts)) == ["0", "0", "0", "0", "10"]


def test_shards_larger_than_a_unit_share_none_and_their_rows_stay_in_order():
    rows = [shard_row(shard, row) for shard in ("b", "a", "a-b") for row in range(12)]
    plan = FakeCatalog().plan(listing(rows), unit_size=8)
    read = [[(m["object_uri"], m["row"]) for m in members] for members in planned(plan).values()]
    assert all(len({uri for uri, _ in unit}) == 1 for unit in read)
    assert sorted([row for _, row in unit] for unit in read) == sorted(
        [list(range(8)), list(range(8, 12))] * 3
    )
    assert {u.bytes for u in plan.units} == {None}


def test_unit_ids_and_fingerprints_are_plain_sha256():
    plan = FakeCatalog().plan(listing([member("a", ra=1.5, dec=-0.5), member("b")]))
    uris = [f"s3://survey/{name}.jpg" for name in "ab"]
    ra, dec = (np.float64(value).view(np.int64) for value in (1.5, -0.5))
    born = "".join(f"{uri}\x1f" for uri in uris)
    now = f"{uris[0]}\x1f1\x1fa\x1f{ra}\x1f{dec}\x1f\0\x1f{uris[1]}\x1f1\x1fb\x1f\0\x1f\0\x1f\0\x1f"
    first, second = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in (born, now))
    assert facts(plan) == [(first, second, "new", 2)]


@pytest.mark.parametrize(
    "change",
    [
        {"source_version": "2"},
        {"galaxy_id": "other"},
        {"ra": 1.0000001},
        {"galaxy_id": ""},
    ],
    ids=str,
)
def test_a_changed_member_redoes_its_whole_unit_under_the_same_name(cataloged, change):
    _, second = cataloged.parts
    plan = cataloged.plan(rows_now(f=change))
    (unit,) = plan.units
    assert (unit.unit_id, unit.reason, unit.members) == (second, "changed", 4)
    assert unit.fingerprint != cataloged.parts[second][1]
    assert plan.counts.as_dict() == {
        "new": 0,
        "changed": 1,
        "model_changed": 0,
        "retried": 0,
        "forced": 0,
        "unchanged": 7,
        "vanished": 0,
    }
    assert [m["source_uri"][-5] for m in planned(plan)[second]] == list("efgh")


def table_of(**positions: tuple[float, float] | None) -> pa.Table:
    rows = [
        {"galaxy_id": name, "id_column": "id", **dict(zip(("ra", "dec"), place or (None, None), strict=True))}
        for name, place in positions.items()
    ]
    return pa.Table.from_pylist(rows, schema=POSITION_SCHEMA)


def test_a_position_that_a_run_does_not_mention_is_kept(cataloged):
    nowhere = {"ra": None, "dec": None}
    forgotten = rows_now(**dict.fromkeys("abcdefgh", nowhere))
    assert cataloged.plan(forgotten).units == []
    changed = rows_now(**dict.fromkeys("abcdefgh", nowhere) | {"f": nowhere | {"source_version": "2"}})
    (members,) = planned(cataloged.plan(changed)).values()
    assert [(m["ra"], m["dec"]) for m in members] == [(1.0, 2.0)] * 4


def test_a_galaxy_keeps_its_position_under_another_uri(cataloged):
    moved = rows_now(f={"ra": None, "dec": None, "source_uri": "s3://survey/moved.jpg"})
    units = planned(cataloged.plan(moved)).values()
    (found,) = [m for members in units for m in members if m["galaxy_id"] == "f"]
    assert (found["ra"], found["dec"]) == (1.0, 2.0)


def test_a_table_of_positions_changes_and_removes_the_positions_that_it_has(cataloged):
    nowhere = rows_now(**{name: {"ra": None, "dec": None} for name in "abcdefgh"})
    plan = cataloged.plan(nowhere, positions=[table_of(a=(5.0, 6.0), b=None, z=(1.0, 1.0))])
    assert plan.counts.changed == 2
    (members,) = planned(plan).values()
    assert [m["ra"] for m in members] == [5.0, None, 1.0, 1.0]
    matched = plan.matched
    assert (matched.column, matched.cutouts, matched.in_table, matched.elsewhere) == ("id", 8, 2, 6)


def test_a_position_that_is_not_a_number_is_no_position(cataloged):
    nowhere = {"ra": None, "dec": None}
    catalog = FakeCatalog(parts=cataloged.parts)
    table = rows_now(a=nowhere)
    as_nan = table.set_column(1, "ra", pa.array([np.nan] + [1.0] * 7)).set_column(
        2, "dec", pa.array([np.nan] + [2.0] * 7)
    )
    assert facts(catalog.plan(as_nan)) == facts(catalog.plan(table))


def test_other_settings_redo_every_listed_unit_under_its_name(cataloged):
    plan = cataloged.plan(rows_now(b={"source_version": "2"}), settings_fingerprint="t")
    assert {u.unit_id: u.reason for u in plan.units} == dict.fromkeys(cataloged.parts, "model changed")
    assert (plan.counts.changed, plan.counts.model_changed, plan.counts.unchanged) == (1, 7, 0)


def test_a_full_run_redoes_what_is_up_to_date(cataloged):
    plan = cataloged.plan(rows_now(b={"source_version": "2"}), full=True)
    assert [u.reason for u in sorted(plan.units, key=lambda u: list(cataloged.parts).index(u.unit_id))] == [
        "changed",
        "forced",
    ]
    assert (plan.counts.changed, plan.counts.forced, plan.counts.unchanged) == (1, 7, 0)


def test_vanished_members_stay_until_their_unit_is_redone(cataloged):
    without_a = rows_now().slice(1)
    plan = cataloged.plan(without_a)
    assert (plan.units, plan.counts.vanished) == ([], 1)
    plan = cataloged.plan(rows_now(b={"source_version": "2"}).slice(1))
    cataloged.apply(plan)
    assert "a" not in {m["galaxy_id"] for m in cataloged.members}


def test_an_empty_listing_and_another_input_leave_the_catalog_alone(cataloged):
    assert cataloged.plan(listing([]), settings_fingerprint="t").units == []
    plan = cataloged.plan(listing([member("z")]), settings_fingerprint="t", full=True)
    assert [u.reason for u in plan.units] == ["new"]
    assert plan.counts.vanished == 8


def test_blocks_are_bounded_and_make_no_difference(monkeypatch):
    table = listing(member(f"m{i:03}") for i in range(100))
    whole = FakeCatalog().plan(table, unit_size=7)
    read = planned(whole)
    monkeypatch.setattr("gax_batch.system.disk_database.BATCH_ROWS", 10)
    parts = FakeCatalog().plan(table, unit_size=7)
    assert facts(parts) == facts(whole)
    assert planned(parts) == read


def test_chunks_of_the_listing_make_no_difference():
    table = listing(member(f"m{i:03}", galaxy_id=f"g{i % 60}") for i in range(100))
    chunked = pa.concat_tables([table.slice(i, 9) for i in range(0, 100, 9)])
    assert facts(FakeCatalog().plan(chunked)) == facts(FakeCatalog().plan(table))


def test_a_stored_plan_has_a_row_group_per_unit_and_few_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("gax_batch.planning.plan.UNITS_PER_FILE", 3)
    plan = FakeCatalog().plan(listing(member(f"m{i:03}") for i in range(100)), unit_size=30)
    places = plan.write(f"file://{tmp_path}", "run")
    folder = f"file://{tmp_path}/runs/run/plan"
    first, second = (f"{folder}/{number:06}.parquet" for number in (0, 1))
    assert places == [(first, 0), (first, 1), (first, 2), (second, 0)]
    stored = [pq.ParquetFile(uri.removeprefix("file://")) for uri in (first, second)]
    assert [file.metadata.num_row_groups for file in stored] == [3, 1]
    assert stored[0].schema_arrow.equals(MEMBER_SCHEMA)
    assert not stored[0].metadata.row_group(0).column(0).is_stats_set


def test_a_missing_plan_is_fatal(tmp_path):
    with pytest.raises(FatalError, match=r"plan\.parquet"):
        read_unit_members(f"file://{tmp_path}/plan.parquet", 0)


def test_a_unit_size_of_nothing_is_refused():
    with pytest.raises(UsageError, match=r"\b0\b"):
        FakeCatalog().plan(listing([member("a")]), unit_size=0)


class TestPruning:
    """What vanished is taken out when the run is told to."""

    def test_a_unit_that_lost_a_member_is_redone_without_it(self, cataloged):
        first, _ = cataloged.parts
        plan = cataloged.plan(rows_now().slice(1), prune=True)
        assert [(unit.unit_id, unit.reason, unit.members) for unit in plan.units] == [(first, "changed", 3)]
        assert (plan.removed, plan.counts.vanished) == ([], 1)
        cataloged.apply(plan)
        assert sorted(m["galaxy_id"] for m in cataloged.members) == list("bcdefgh")
        assert cataloged.plan(rows_now().slice(1), prune=True).units == []

    def test_a_unit_of_which_nothing_is_left_is_removed_and_not_redone(self, cataloged):
        first, _ = cataloged.parts
        plan = cataloged.plan(rows_now().slice(4), prune=True)
        assert (plan.units, plan.removed, plan.counts.vanished) == ([], [first], 4)
        assert cataloged.plan(rows_now().slice(4)).removed == []

    def test_a_galaxy_may_come_back_under_another_uri(self, cataloged):
        moved = [member(f"new/{name}", galaxy_id=name, ra=1.0, dec=2.0) for name in "abcdefgh"]
        with pytest.raises(UsageError, match=r"s3://survey/new/a\.jpg.*s3://survey/a\.jpg"):
            cataloged.plan(listing(moved))
        plan = cataloged.plan(listing(moved), prune=True)
        assert (plan.removed, plan.counts.new, plan.rejects) == (sorted(cataloged.parts), 8, {})


class TestRetries:
    """A cutout that the storage did not give is tried again, so many times."""

    def test_it_is_tried_again_and_counted_until_the_limit(self):
        catalog = FakeCatalog()
        table = listing([member("a", source_version=GONE_VERSION), member("b")])
        catalog.apply(catalog.plan(table))
        for attempts in (1, 2):
            plan = catalog.plan(table, max_attempts=3)
            assert [(unit.reason, unit.members) for unit in plan.units] == [("retried", 2)]
            assert (plan.counts.retried, plan.counts.changed, plan.counts.unchanged) == (1, 0, 1)
            assert str(plan.counts) != str(replace(plan.counts, retried=0))
            assert [m["attempts"] for m in planned(plan)[plan.units[0].unit_id]] == [attempts, None]
            catalog.apply(plan)
        assert catalog.plan(table, max_attempts=3).units == []
        assert catalog.plan(table, max_attempts=4).counts.retried == 1

    def test_another_version_starts_the_count_anew(self):
        catalog = FakeCatalog()
        catalog.apply(catalog.plan(listing([member("a", source_version=GONE_VERSION)])))
        plan = catalog.plan(listing([member("a", source_version="2")]), max_attempts=1)
        assert [unit.reason for unit in plan.units] == ["changed"]
        assert [m["attempts"] for m in planned(plan)[plan.units[0].unit_id]] == [0]

    def test_a_fault_of_the_cutout_itself_is_not_tried_again(self):
        catalog = FakeCatalog()
        table = listing([member("a", source_version=BAD_VERSION)])
        catalog.apply(catalog.plan(table))
        assert catalog.plan(table).units == []
