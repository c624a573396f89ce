"""Two snapshots compared."""

from pathlib import Path

import pyarrow as pa
import pytest
from catalogs import META

from gax_batch.catalog.diff import changes_lines, compare
from gax_batch.catalog.parts import Part, write_unit
from gax_batch.catalog.schema import GALAXIES, REJECTS
from gax_batch.catalog.snapshots import Catalog


@pytest.fixture
def moved(catalog, make_part) -> Part:
    """The unit `u` (galaxies `a` and `b`) again, with one probability of `b` moved by 0.5."""
    Catalog(catalog).commit([make_part("u", ["a", "b"])], run_id="x", metadata=META)
    rows = Catalog(catalog).galaxies().sort_by("galaxy_id")
    place = rows.schema.get_field_index("t03_bar_a06_bar_prob")
    rows = rows.set_column(place, rows.schema.field(place), pa.array([0.25, 0.75], pa.float32()))
    place = rows.schema.get_field_index("gz2_class")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(["Er", "SBb"]))
    unit = rows["unit_id"][0].as_py()
    return write_unit(
        catalog, "other", rows.cast(GALAXIES), REJECTS.empty_table(), unit_id=unit, fingerprint="f", planned=2
    )


def test_moves_are_those_of_the_changed_numbers(catalog, moved, make_part, tmp_path):
    same = make_part("v", ["c", "d"])
    before = Catalog(catalog).commit([same], run_id="y", metadata=META)
    after = Catalog(catalog).commit([moved, make_part("w", ["e"])], run_id="z", metadata=META)
    found = compare(Catalog(catalog, before), Catalog(catalog, after), tmp_path, most=5)
    assert (found.before, found.after, found.added, found.removed) == (before, after, 1, 0)
    assert (found.compared, found.moved, found.reclassified) == (2, 1, 1)
    moves = {move.question: move for move in found.questions}
    # One of two answers of one of two galaxies moved by 0.5.
    assert moves["t03_bar"].mean == pytest.approx(0.125)
    assert moves["t03_bar"].largest == pytest.approx(0.5)
    assert all(m.mean == m.largest == 0 for name, m in moves.items() if name != "t03_bar")
    (galaxy,) = found.most
    assert (galaxy.galaxy_id, galaxy.class_before, galaxy.class_after) == ("b", "Er", "SBb")
    assert galaxy.rms == pytest.approx(0.5 / 37**0.5)
    assert any({"b", "0.08220", "Er", "SBb"} <= set(line.split()) for line in changes_lines(found))


def test_the_other_way_round_what_was_added_is_removed(catalog, make_part, tmp_path):
    first = Catalog(catalog).commit([make_part("u", ["a"])], run_id="x", metadata=META)
    second = Catalog(catalog).commit([make_part("v", ["b", "c"])], run_id="y", metadata=META)
    found = compare(Catalog(catalog, second), Catalog(catalog, first), tmp_path)
    assert (found.added, found.removed, found.compared, found.questions) == (0, 2, 0, [])


def test_common_parts_are_not_read(catalog, make_part, tmp_path, monkeypatch):
    first = Catalog(catalog).commit([make_part("u", ["a"])], run_id="x", metadata=META)
    second = Catalog(catalog).commit([make_part("v", ["b"])], run_id="y", metadata=META)
    unread = [name.key for name in Catalog(catalog, first).parts()]
    for key in unread:
        (Path(catalog.removeprefix("file://")) / "galaxies" / key).unlink()
    assert compare(Catalog(catalog, first), Catalog(catalog, second), tmp_path).added == 1
