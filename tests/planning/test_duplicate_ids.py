"""One galaxy_id belongs to one galaxy: who keeps it, who takes it over."""

import pytest
from listings import FakeCatalog, listing, member, planned, rows_now, shard_row

from gax_batch.errors import UsageError


class TestDuplicateIds:
    def test_the_galaxy_that_is_cataloged_keeps_its_id(self, cataloged):
        earlier = member("a", galaxy_id="c", source_uri="s3://survey/A.jpg")
        plan = cataloged.plan(listing([earlier, *rows_now().to_pylist()]))
        (unit,) = plan.units
        (row,) = planned(plan)[unit.unit_id]
        assert (row["stage"], row["reason"]) == ("plan", "duplicate_id")
        assert "s3://survey/c.jpg" in row["detail"]

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
            for fact in ("8", "s3://elsewhere/a.jpg", "s3://survey/a.jpg"):
                assert fact in str(caught.value)
            assert "\n" not in str(caught.value)

    def test_one_galaxy_of_a_vanished_unit_is_enough_to_refuse(self, cataloged):
        moved = member("g", source_uri="s3://survey/g.png")
        with pytest.raises(UsageError, match=r"\b1\b.*s3://survey/g\.png.*s3://survey/g\.jpg"):
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
        with pytest.raises(UsageError, match=r"s3://survey/s\.parquet#row=3\b.*#row=4\b"):
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
