"""Runs that commit to one catalog at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from catalogs import META, galaxies, rejects, visible_rejects

from gax_batch.catalog import delta
from gax_batch.catalog.commits import MAX_RACES
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import FatalError, UsageError


class TestConcurrentRuns:
    """Two runs planned from the same snapshot; the second to commit is the one that is tested."""

    def test_different_new_units_are_both_committed(self, catalog, make_part):
        ours, theirs = Catalog(catalog), Catalog(catalog)
        theirs.commit([make_part("u", ["a"], ["x"])], run_id="theirs", metadata=META)
        ours.commit([make_part("v", ["b"], ["y"])], run_id="ours", metadata=META)
        assert galaxies(catalog) == ["a", "b"]
        assert visible_rejects(catalog) == ["x", "y"]

    def test_the_second_to_replace_a_unit_is_refused(self, catalog, make_part):
        Catalog(catalog).commit([make_part("u", ["a"]), make_part("v", ["b"])], run_id="first", metadata=META)
        ours, theirs = Catalog(catalog), Catalog(catalog)
        theirs.commit([make_part("u", ["a"], version="2", run_id="theirs")], run_id="theirs", metadata=META)
        parts = [make_part("u", [], ["a"], version="3"), make_part("w", ["c"])]
        with pytest.raises(UsageError, match=rf"\b1\b.*{catalog}/galaxies") as caught:
            ours.commit(parts, run_id="ours", metadata=META)
        assert "\n" not in str(caught.value)
        assert galaxies(catalog) == ["a", "b"]
        assert visible_rejects(catalog) == []
        assert set(Catalog(catalog).galaxies()["run_id"].to_pylist()) == {"theirs", "run-1"}

    def test_a_unit_that_another_run_finished_in_the_same_way_is_left_as_it_is(self, catalog, make_part):
        ours, theirs = Catalog(catalog), Catalog(catalog)
        theirs.commit([make_part("u", ["a"], ["x"], run_id="theirs")], run_id="theirs", metadata=META)
        ours.commit(
            [make_part("u", ["a"], ["x"], run_id="ours"), make_part("v", ["b"], run_id="ours")],
            run_id="ours",
            metadata=META,
        )
        rows = Catalog(catalog).galaxies(["galaxy_id", "run_id"]).to_pylist()
        assert {row["galaxy_id"]: row["run_id"] for row in rows} == {"a": "theirs", "b": "ours"}
        assert len(rows) == 2
        assert visible_rejects(catalog) == ["x"]

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            pytest.param((["a"], []), (["a", "b"], []), id="the same galaxy"),
            pytest.param(([], ["a"]), (["a", "b"], []), id="a reject of theirs is a galaxy of ours"),
            pytest.param(([], ["a"]), ([], ["a", "b"]), id="the same reject"),
        ],
    )
    def test_the_same_galaxies_in_other_units_are_refused(self, catalog, make_part, theirs, ours):
        second, first = Catalog(catalog), Catalog(catalog)
        first.commit([make_part("u", *theirs)], run_id="theirs", metadata=META)
        with pytest.raises(UsageError, match=f"{catalog}/galaxies"):
            second.commit([make_part("v", *ours)], run_id="ours", metadata=META)
        assert (galaxies(catalog), visible_rejects(catalog)) == theirs

    def test_many_runs_at_once_lose_nothing_and_double_nothing(self, catalog, make_part):
        def run(number: int) -> str:
            opened = Catalog(catalog)
            start.wait()
            mine = make_part(f"u{number}", [f"g{number}"], [f"x{number}"])
            shared = make_part("shared", [], ["s"], run_id=f"run-{number}", version=str(number))
            opened.commit([mine], run_id=f"mine-{number}", metadata=META)
            try:
                opened.commit([shared], run_id=f"shared-{number}", metadata=META)
            except UsageError:
                return "refused"
            return "committed"

        start = threading.Barrier(3)
        with ThreadPoolExecutor(3) as pool:
            outcomes = list(pool.map(run, range(3)))
        assert sorted(outcomes) == ["committed", "refused", "refused"]
        assert galaxies(catalog) == [f"g{i}" for i in range(3)]
        assert rejects(catalog) == visible_rejects(catalog) == ["s", *(f"x{i}" for i in range(3))]

    def test_a_second_commit_still_sees_what_others_did_since_the_plan(self, catalog, make_part):
        ours, theirs = Catalog(catalog), Catalog(catalog)
        theirs.commit([make_part("u", ["a"])], run_id="theirs", metadata=META)
        ours.commit([make_part("v", ["b"])], run_id="ours", metadata=META)
        with pytest.raises(UsageError, match=f"{catalog}/galaxies"):
            ours.commit([make_part("w", ["a"])], run_id="ours", metadata=META)
        assert galaxies(catalog) == ["a", "b"]

    def test_a_lost_race_is_run_again(self, catalog, make_part, monkeypatch):
        opened = Catalog(catalog)
        part, rivals = make_part("u", ["a"]), [make_part(f"r{i}", [f"r{i}"]) for i in range(3)]
        original = delta.Table.commit

        def commit(self, add, remove, **rest):
            if rivals:
                monkeypatch.setattr(delta.Table, "commit", original)
                Catalog(catalog).commit([rivals.pop()], run_id=f"rival-{len(rivals)}", metadata=META)
                monkeypatch.setattr(delta.Table, "commit", commit)
            original(self, add, remove, **rest)

        monkeypatch.setattr(delta.Table, "commit", commit)
        opened.commit([part], run_id="ours", metadata=META)
        assert galaxies(catalog) == ["a", "r0", "r1", "r2"]

    def test_endless_lost_races_end_with_an_error(self, catalog, make_part, monkeypatch):
        def lose(*_, **__):
            raise delta.LostRaceError

        monkeypatch.setattr(delta.Table, "commit", lose)
        with pytest.raises(FatalError, match=rf"\b{MAX_RACES}\b.*{catalog}/galaxies"):
            Catalog(catalog).commit([make_part("u", ["a"])], run_id="ours", metadata=META)
