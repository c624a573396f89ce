"""A catalog's snapshots over time: log, show, restore."""

import re

import pytest
from catalogs import META, galaxies, local, rejects, visible_rejects
from typer.testing import CliRunner

from gax_batch.catalog.history import contents, contents_lines, log_lines, restore
from gax_batch.catalog.schema import REJECTS
from gax_batch.catalog.snapshots import Catalog, open_existing
from gax_batch.cli import app
from gax_batch.errors import UsageError


@pytest.fixture
def two_nights(catalog, make_part) -> tuple[int, int]:
    """Two snapshots: `a b c` with the reject `x`, then `a c d` with the reject `b`."""
    first = Catalog(catalog).commit(
        [make_part("u", ["a", "b"], ["x"]), make_part("v", ["c"])], run_id="night-1", metadata=META
    )
    second = Catalog(catalog).commit(
        [make_part("u", ["a"], ["b"], version="2"), make_part("w", ["d"])], run_id="night-2", metadata=META
    )
    return first, second


def numbers(lines: list[str]) -> list[list[str]]:
    """The whole numbers of each line."""
    return [re.findall(r"\d+", line) for line in lines]


def test_an_old_snapshot_is_read_with_the_rejects_of_its_time(catalog, two_nights):
    old = Catalog(catalog, two_nights[0])
    assert sorted(old.galaxies(["galaxy_id"])["galaxy_id"].to_pylist()) == ["a", "b", "c"]
    assert old.rejects()["galaxy_id"].to_pylist() == ["x"]
    assert old.version == two_nights[0]
    assert galaxies(catalog) == ["a", "c", "d"]
    assert rejects(catalog) == ["b"]


def test_rejects_of_an_old_snapshot_are_found_although_other_runs_came_between(catalog, make_part):
    ours, theirs = Catalog(catalog), Catalog(catalog)
    theirs.commit([make_part("u", ["a"], ["x"])], run_id="theirs", metadata=META)
    version = ours.commit([make_part("v", ["b"], ["y"])], run_id="ours", metadata=META)
    later = [make_part("u", ["a", "x"], version="2"), make_part("v", ["b", "y"], version="2")]
    Catalog(catalog).commit(later, run_id="later", metadata=META)
    assert rejects(catalog) == []
    assert sorted(Catalog(catalog, version).rejects()["galaxy_id"].to_pylist()) == ["x", "y"]


@pytest.mark.parametrize("version", [7, 99])
def test_a_snapshot_that_is_not_there_is_one_clear_line(catalog, two_nights, version):
    with pytest.raises(UsageError, match=rf" {version}\b.*gax catalog log") as caught:
        Catalog(catalog, version)
    assert "\n" not in str(caught.value)


def test_the_log_says_what_each_run_did(catalog, two_nights):
    newest, older, created = Catalog(catalog).history()
    assert (newest.version, older.version, created.version) == (*reversed(two_nights), 0)
    assert {k: newest.facts[k] for k in ("run_id", "galaxies", "galaxies_added", "galaxies_removed")} == {
        "run_id": "night-2",
        "galaxies": 3,
        "galaxies_added": 2,
        "galaxies_removed": 2,
    }
    assert newest.time >= older.time >= created.time
    lines = log_lines([newest, older, created])
    assert lines[1].endswith("night-2")
    assert lines[3].split()[0] == "0"
    assert "night" not in lines[3]


def test_an_old_snapshot_has_the_history_that_it_had(catalog):
    whole = Catalog(catalog).history()
    for entry in whole:
        assert Catalog(catalog, entry.version).history() == [e for e in whole if e.version <= entry.version]


def test_contents_count_what_a_snapshot_holds(catalog, two_nights):
    found = contents(Catalog(catalog, two_nights[0]))
    assert (found.units, found.galaxies, found.with_position) == (2, 3, 1)
    assert (found.bundles, found.classes) == ({"bundle": 3}, {"Er": 3})
    assert (found.settings, found.rejects) == ({"settings": 2}, {"truncated": 1})
    assert ["3", "2", "1"] in numbers(contents_lines(found))


class TestRestore:
    def test_an_earlier_snapshot_becomes_the_newest_and_nothing_is_lost(self, catalog, two_nights):
        before = Catalog(catalog, two_nights[0]).galaxies().sort_by("galaxy_id")
        version = restore(catalog, two_nights[0])
        assert version == two_nights[1] + 1
        assert Catalog(catalog).galaxies().sort_by("galaxy_id") == before
        assert rejects(catalog) == visible_rejects(catalog) == ["x"]
        assert restore(catalog, two_nights[1]) == version + 1
        assert (galaxies(catalog), visible_rejects(catalog)) == (["a", "c", "d"], ["b"])
        line = log_lines(Catalog(catalog).history())[1]
        assert str(two_nights[1]) in line.partition(Catalog(catalog).history()[0].facts["run_id"])[2]

    def test_the_newest_snapshot_is_restored_already(self, catalog, two_nights):
        assert restore(catalog, two_nights[1]) == two_nights[1]

    def test_a_snapshot_with_a_part_that_is_gone_is_refused(self, catalog, two_nights):
        old = {name.key for name in Catalog(catalog, two_nights[0]).parts()}
        new = {name.key for name in Catalog(catalog).parts()}
        (key,) = old - new
        (local(catalog) / "galaxies" / key).unlink()
        with pytest.raises(UsageError, match=rf" {two_nights[0]}\b.* 1\b"):
            restore(catalog, two_nights[0])
        assert Catalog(catalog).version == two_nights[1]


class TestCommands:
    def test_log_show_and_restore_print_what_they_did(self, catalog, two_nights):
        def gax(*words: str) -> str:
            done = CliRunner().invoke(app, ["catalog", *words, "--catalog", catalog])
            assert done.exit_code == 0, done.output
            return done.output

        assert "night-1" in gax("log")
        assert "night-1" not in gax("log", "--limit", "1")
        assert ["3", "2", "1"] in numbers(gax("show", "1").splitlines())
        assert ["3", "3"] in [found[:2] for found in numbers(gax("show").splitlines())]
        old, new = gax("rejects", "1").splitlines(), gax("rejects").splitlines()
        assert old[0] == new[0] == ",".join(f'"{name}"' for name in REJECTS.names)
        assert [line.split(",")[0] for line in (*old[1:], *new[1:])] == ['"x"', '"b"']
        assert {"1", str(two_nights[1] + 1)} <= set(gax("restore", "1").split())
        assert galaxies(catalog) == ["a", "b", "c"]

    def test_a_place_without_a_catalog_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match=r"nowhere.*--catalog"):
            open_existing(str(tmp_path / "nowhere"))
