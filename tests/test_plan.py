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
            with pytest.raises(UsageError, match="now listed under other URIs"):
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
        assert {m["detail"].removeprefix("galaxy_id is already taken by ") for m in lost} <= owners
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
            with pytest.raises(UsageError, match="now listed under other URIs"):
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

    @pytest.mark.parametrize("full", [False, True])
    def test_a_replaced_file_takes_the_id_and_the_vanished_one_leaves(self, cataloged, full):
        first, second = cataloged.parts
        png = member("c", source_uri="s3://survey/c.png")
        now = listing([png, *(m for m in rows_now().to_pylist() if m["galaxy_id"] != "c")])
        plan = cataloged.plan(now, full=full)
        reasons = {u.unit_id: u.reason for u in plan.units}
        assert reasons.pop(first) == "changed"
        assert reasons.pop(second, None) == ("forced" if full else None)
        assert list(reasons.values()) == ["new"]
        assert (plan.counts.new, plan.counts.changed, plan.counts.vanished) == (1, 0, 1)
        cataloged.apply(plan)
        uris = {m["galaxy_id"]: m["source_uri"] for m in cataloged.members if m["reason"] is None}
        assert uris == {n: f"s3://survey/{n}.{'png' if n == 'c' else 'jpg'}" for n in "abcdefgh"}
        assert len(cataloged.members) == 8
        assert cataloged.plan(now).units == []

    def test_of_two_replacements_the_first_takes_the_id(self, cataloged):
        twins = [member("c", source_uri=f"s3://survey/{name}.png") for name in "xy"]
        now = listing([*twins, *(m for m in rows_now().to_pylist() if m["galaxy_id"] != "c")])
        cataloged.apply(cataloged.plan(now))
        reasons = {m["source_uri"]: m["reason"] for m in cataloged.members if m["galaxy_id"] == "c"}
        assert reasons == {"s3://survey/x.png": None, "s3://survey/y.png": "duplicate_id"}

    def test_a_moved_input_is_refused_on_one_line(self, cataloged):
        moved = listing(member(n, source_uri=f"s3://elsewhere/{n}.jpg") for n in "abcdefgh")
        for full in (False, True):
            with pytest.raises(UsageError) as caught:
                cataloged.plan(moved, full=full)
            assert str(caught.value) == (
                "8 galaxies of the catalog are now listed under other URIs (for example "
                "s3://elsewhere/a.jpg, was s3://survey/a.jpg): was the input moved? "
                "list both, or use a new catalog"
            )

    def test_one_galaxy_of_a_vanished_unit_is_enough_to_refuse(self, cataloged):
        moved = member("g", source_uri="s3://survey/g.png")
        with pytest.raises(UsageError, match="1 galaxies of the catalog"):
            cataloged.plan(listing([*rows_now().to_pylist()[:4], moved]))

    def test_listing_the_old_and_the_new_place_keeps_the_old(self, cataloged):
        copies = [member(n, source_uri=f"s3://elsewhere/{n}.jpg") for n in "abcdefgh"]
        both = listing([*copies, *rows_now().to_pylist()])
        plan = cataloged.plan(both)
        assert (plan.counts.new, plan.counts.unchanged) == (8, 8)
        assert {u.reason for u in plan.units} == {"new"}
        cataloged.apply(plan)
        # What has been told to be a duplicate stays one as long as the other cannot leave.
        assert cataloged.plan(listing(copies)).units == []

    def test_a_shard_that_lost_a_row_before_its_last_is_refused_or_redone(self):
        catalog = FakeCatalog()
        catalog.apply(catalog.plan(listing(shard_row("s", row) for row in range(5))))
        shifted = [shard_row("s", row, galaxy_id=f"s-{row + (row > 1)}") for row in range(4)]
        with pytest.raises(UsageError, match=r"example s3://survey/s.parquet#row=3, was .*#row=4\)"):
            catalog.plan(listing(shifted))
        catalog = FakeCatalog()
        catalog.apply(catalog.plan(listing(shard_row("s", row) for row in range(5)), unit_size=5))
        catalog.apply(catalog.plan(listing(shifted)))
        assert [m["galaxy_id"] for m in catalog.members] == ["s-0", "s-1", "s-3", "s-4"]
        assert {m["reason"] for m in catalog.members} == {None}

    def test_a_galaxy_whose_owner_left_is_cataloged(self, cataloged):
        twin = member("twin", galaxy_id="c")
        both = listing([*rows_now().to_pylist(), twin])
        cataloged.apply(cataloged.plan(both))
        assert cataloged.plan(both).units == []
        gone = listing([*(m for m in rows_now().to_pylist() if m["galaxy_id"] != "c"), twin])
        cataloged.apply(cataloged.plan(gone))
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
