import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gax_batch.catalog.snapshots import MEMBERS_SCHEMA
from gax_batch.errors import FatalError, UsageError
from gax_batch.plan import Plan, make_plan, read_unit_members
from gax_batch.sources.base import MEMBER_SCHEMA, check_members

BAD_VERSION = "corrupt"


def member(name: str, **values: object) -> dict[str, object]:
    """A loose image's row of a listing."""
    uri = f"s3://survey/{name}.jpg"
    return {
        "galaxy_id": name,
        "source_uri": uri,
        "source_version": "1",
        "object_uri": uri,
        "size": 10,
    } | values


def shard_row(shard: str, row: int, **values: object) -> dict[str, object]:
    uri = f"s3://survey/{shard}.parquet"
    place = {"source_uri": f"{uri}#row={row}", "object_uri": uri, "row": row, "size": None}
    return member(f"{shard}-{row}") | place | values


def listing(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=MEMBER_SCHEMA)
    return check_members(table) if len(table) else table


@dataclass
class FakeCatalog:
    """What a run would leave in a catalog, in plain Python."""

    settings: str = "s"
    parts: dict[str, tuple[str, str, list[dict[str, object]]]] = field(default_factory=dict)

    def plan(self, table: pa.Table, unit_size: int = 4, **options: object) -> Plan:
        rows = [
            {
                "source_uri": m["source_uri"],
                "source_version": m["source_version"],
                "galaxy_id": m["galaxy_id"],
                "ra": None if m["reason"] else m["ra"],
                "dec": None if m["reason"] else m["dec"],
                "unit_id": unit,
                "rejected": m["reason"] is not None,
                "plan_reason": m["reason"] if m["stage"] == "plan" else None,
            }
            for unit, (_, _, members) in self.parts.items()
            for m in members
        ]
        known = pa.Table.from_pylist(rows, schema=MEMBERS_SCHEMA)
        units = {unit: (settings, print_) for unit, (settings, print_, _) in self.parts.items()}
        return make_plan(
            table, known, units, **({"settings_fingerprint": self.settings, "unit_size": unit_size} | options)
        )

    def apply(self, plan: Plan) -> None:
        for unit, members in planned(plan).items():
            (print_,) = [u.fingerprint for u in plan.units if u.unit_id == unit]
            rows = [dict(m) for m in members]
            for row in rows:
                if row["reason"] is None and row["source_version"] == BAD_VERSION:
                    row |= {"stage": "decode", "reason": "corrupt"}
            self.parts[unit] = (self.settings, print_, rows)

    @property
    def members(self) -> list[dict[str, object]]:
        return [m for _, _, members in self.parts.values() for m in members]


def planned(plan: Plan) -> dict[str, list[dict[str, object]]]:
    """Members by unit as workers read them."""
    uri = "memory://plans/plan.parquet"
    plan.write(uri)
    assert len({u.unit_id for u in plan.units}) == len(plan.units)
    return {u.unit_id: read_unit_members(uri, i).to_pylist() for i, u in enumerate(plan.units)}


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


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(listings, sizes, st.sampled_from("st"), st.booleans()), min_size=1, max_size=4))
def test_whatever_happens_to_a_survey_each_cutout_is_cataloged_once(nights):
    catalog = FakeCatalog()
    for rows, unit_size, settings_fingerprint, full in nights:
        catalog.settings = settings_fingerprint
        table = listing(rows)
        before = {m["source_uri"] for m in catalog.members}
        plan = catalog.plan(table, unit_size, full=full)
        check_partition(plan, planned(plan), table, before)
        catalog.apply(plan)
        after = Counter(m["source_uri"] for m in catalog.members)
        assert set(after.values()) <= {1}
        assert set(table["source_uri"].to_pylist()) <= set(after)
        cataloged = Counter(m["galaxy_id"] for m in catalog.members if m["reason"] is None)
        assert set(cataloged.values()) <= {1}
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
    plan, shuffled = (
        catalog.plan(table, unit_size),
        catalog.plan(table.take(pa.array(order, pa.int64())), unit_size),
    )
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
    assert str(plan.counts) == "10 new, 0 unchanged"


def test_shards_never_share_a_unit_and_their_rows_stay_in_order():
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


@pytest.fixture
def cataloged() -> FakeCatalog:
    catalog = FakeCatalog()
    catalog.apply(catalog.plan(listing(member(n, ra=1.0, dec=2.0) for n in "abcdefgh")))
    return catalog


def rows_now(**changes: dict[str, object]) -> pa.Table:
    return listing(member(n, ra=1.0, dec=2.0) | changes.get(n, {}) for n in "abcdefgh")


@pytest.mark.parametrize(
    "change",
    [
        {"source_version": "2"},
        {"galaxy_id": "other"},
        {"ra": 1.0000001},
        {"ra": None, "dec": None},
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
        "forced": 0,
        "unchanged": 7,
        "vanished": 0,
    }
    assert [m["source_uri"][-5] for m in planned(plan)[second]] == list("efgh")


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


class TestDuplicateIds:
    def test_the_galaxy_that_is_cataloged_keeps_its_id(self, cataloged):
        earlier = member("a", galaxy_id="c", source_uri="s3://survey/A.jpg")
        plan = cataloged.plan(listing([earlier, *rows_now().to_pylist()]))
        (unit,) = plan.units
        (row,) = planned(plan)[unit.unit_id]
        assert (row["stage"], row["reason"]) == ("plan", "duplicate_id")
        assert row["detail"] == "galaxy_id is already taken by s3://survey/c.jpg"

    def test_a_vanished_galaxy_keeps_its_id_as_long_as_it_stays(self, cataloged):
        moved = member("c", source_uri="s3://elsewhere/c.jpg")
        rest = [m for m in rows_now().to_pylist() if m["galaxy_id"] != "c"]
        plan = cataloged.plan(listing([moved, *rest]))
        (row,) = planned(plan)[plan.units[0].unit_id]
        assert row["reason"] == "duplicate_id"
        # When its unit is redone, it leaves, and the id is free in the same run.
        plan = cataloged.plan(listing([moved, *rest]), full=True)
        rows = {m["source_uri"]: m for members in planned(plan).values() for m in members}
        assert rows["s3://elsewhere/c.jpg"]["reason"] is None

    def test_a_galaxy_whose_owner_left_is_cataloged(self, cataloged):
        twin = member("twin", galaxy_id="c")
        both = listing([*rows_now().to_pylist(), twin])
        cataloged.apply(cataloged.plan(both))
        assert cataloged.plan(both).units == []
        gone = listing([*(m for m in rows_now().to_pylist() if m["galaxy_id"] != "c"), twin])
        cataloged.apply(cataloged.plan(gone, full=True))
        (row,) = [m for m in cataloged.members if m["galaxy_id"] == "c"]
        assert row["source_uri"] == "s3://survey/twin.jpg"

    def test_bad_ids_are_not_counted_as_duplicates(self):
        plan = FakeCatalog().plan(listing([member("a", galaxy_id=None), member("b", galaxy_id=None)]))
        (rows,) = planned(plan).values()
        assert [row["reason"] for row in rows] == ["bad_id", "bad_id"]


def test_blocks_are_bounded_and_make_no_difference(monkeypatch):
    table = listing(member(f"m{i:03}") for i in range(100))
    whole = FakeCatalog().plan(table, unit_size=7)
    read = planned(whole)
    monkeypatch.setattr("gax_batch.plan.BLOCK_MEMBERS", 10)
    parts = FakeCatalog().plan(table, unit_size=7)
    assert facts(parts) == facts(whole)
    assert planned(parts) == read


def test_chunks_of_the_listing_make_no_difference():
    table = listing(member(f"m{i:03}", galaxy_id=f"g{i % 60}") for i in range(100))
    chunked = pa.concat_tables([table.slice(i, 9) for i in range(0, 100, 9)])
    assert facts(FakeCatalog().plan(chunked)) == facts(FakeCatalog().plan(table))


def test_a_stored_plan_has_a_row_group_per_unit_and_few_bytes(tmp_path):
    plan = FakeCatalog().plan(listing(member(f"m{i:03}") for i in range(100)), unit_size=30)
    plan.write(f"file://{tmp_path}/plan.parquet")
    stored = pq.ParquetFile(tmp_path / "plan.parquet")
    assert stored.metadata.num_row_groups == 4
    assert stored.schema_arrow.equals(MEMBER_SCHEMA)
    assert not stored.metadata.row_group(0).column(0).is_stats_set


def test_a_missing_plan_is_fatal(tmp_path):
    with pytest.raises(FatalError, match=r"plan\.parquet cannot be read"):
        read_unit_members(f"file://{tmp_path}/plan.parquet", 0)


def test_a_unit_size_of_nothing_is_refused():
    with pytest.raises(UsageError, match="unit size"):
        FakeCatalog().plan(listing([member("a")]), unit_size=0)
