import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gax_batch.catalog import layout
from gax_batch.catalog.parts import Part, find_finished, read_columns, write_unit
from gax_batch.catalog.schema import GALAXIES, REJECTS, galaxies_table, rejects_table
from gax_batch.errors import FatalError
from gax_batch.rejects import PASSING, Reason

LABELS = {"unit_id": "aa", "bundle_id": "bundle", "run_id": "run"}


def file_of(catalog: str, table: str, key: str) -> Path:
    return Path(layout.table(catalog, table).removeprefix("file://")) / key


def test_a_part_has_the_rows_as_plain_parquet(catalog, make_part):
    part = make_part("u", ["a", "b", "c"], ["x"])
    parquet = pq.ParquetFile(file_of(catalog, "galaxies", part.key))
    schema = parquet.schema_arrow
    assert [(f.name, f.type) for f in schema] == [(f.name, f.type) for f in GALAXIES]
    assert b"ARROW:schema" not in parquet.metadata.metadata
    column = parquet.metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert (column.statistics.min, column.statistics.max) == ("a", "c")
    assert parquet.metadata.num_row_groups == 1
    rejects = pq.read_table(file_of(catalog, "rejects", part.key))
    assert rejects["reason"].to_pylist() == ["truncated"]


def test_the_same_rows_give_the_same_bytes_however_they_are_chunked(
    catalog, make_part, cutouts, model_columns
):
    part = make_part("u", ["a", "b", "c"], ["x"])
    file = file_of(catalog, "galaxies", part.key)
    first = file.read_bytes()
    assert make_part("u", ["a", "b", "c"], ["x"]) == part
    assert file.read_bytes() == first

    table = galaxies_table(cutouts(["a", "b", "c"]), model_columns(3), **LABELS)
    none = rejects_table(cutouts([]), unit_id="aa", run_id="run")
    whole = {"unit_id": "aa", "fingerprint": "bb", "planned": 3}
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    keys = {write_unit(catalog, "s", t, none, **whole).key for t in (table, chunked)}
    assert len(keys) == 1


def test_other_rows_never_get_the_same_key(catalog, make_part):
    parts = [
        make_part("u", ["a", "b"], run_id="run-1"),
        make_part("u", ["a", "b"], run_id="run-2"),
        make_part("u", ["a"], ["b"], run_id="run-1"),
        make_part("u", [], ["a", "b"], run_id="run-1"),
        make_part("u", [], ["a", "b"], run_id="run-2"),
        make_part("u", [], ["a", "b"], run_id="run-2", reason="blank"),
    ]
    assert len({part.key for part in parts}) == len(parts)


def test_statistics_are_deltas(make_part):
    stats = json.loads(make_part("u", ["b", "a", "c"]).stats)
    assert stats == {
        "numRecords": 3,
        "minValues": {"galaxy_id": "a", "ra": 1.0, "dec": -2.0},
        "maxValues": {"galaxy_id": "c", "ra": 2.0, "dec": -1.0},
        "nullCount": {"galaxy_id": 0, "ra": 1, "dec": 1},
    }
    assert json.loads(make_part("v", [], ["x"]).stats)["minValues"] == {}


def test_a_part_survives_json(make_part):
    part = make_part("u", ["a"], ["x", "y"])
    assert Part(**json.loads(json.dumps(asdict(part)))) == part
    assert part.rejects_by_reason == {"truncated": 2}
    assert (part.rows, part.rejects, part.planned) == (1, 2, 3)


def test_a_unit_without_rows_still_gets_its_part(catalog, make_part):
    part = make_part("u", [], ["x"])
    assert file_of(catalog, "galaxies", part.key).exists()
    part = make_part("v", ["a"])
    assert part.reject_size is None
    assert not file_of(catalog, "rejects", part.key).exists()


@pytest.mark.parametrize(
    ("good", "bad", "planned", "message"),
    [
        (["a", "b"], [], 3, r"aa\b.*\b3\b.*\b2\b.*\b0\b"),
        (["a", "b"], ["c"], 2, r"aa\b.*\b2\b.*\b2\b.*\b1\b"),
        (["a", "a"], [], 2, r"aa\b.*galaxy_id"),
        (["a", "b"], ["b"], 3, r"aa\b"),
    ],
)
def test_lost_and_doubled_cutouts_are_never_written(
    tmp_path, catalog, cutouts, model_columns, good, bad, planned, message
):
    galaxies = galaxies_table(cutouts(good), model_columns(len(good)), **LABELS)
    rejects = rejects_table(cutouts(bad, reason="blank"), unit_id="aa", run_id="run")
    with pytest.raises(FatalError, match=message):
        write_unit(catalog, "s", galaxies, rejects, unit_id="aa", fingerprint="bb", planned=planned)
    assert not list(tmp_path.rglob("*.parquet"))


def test_finished_parts_are_found_by_unit_and_fingerprint(catalog, make_part):
    one, two = make_part("one", ["a"], ["x"]), make_part("two", ["b"])
    make_part("two", ["b"], settings="other")
    asked = [(one.unit_id, one.fingerprint), (two.unit_id, "0" * 16), ("f" * 16, "f" * 16)]
    assert find_finished(catalog, "settings", asked) == {one.unit_id: one}
    assert find_finished(catalog, "settings", [(two.unit_id, two.fingerprint)]) == {two.unit_id: two}
    assert find_finished(catalog, "nothing", asked) == {}


def test_of_two_finished_parts_of_a_unit_always_the_same_is_taken(catalog, make_part):
    parts = [make_part("u", ["a"], run_id=f"run-{i}") for i in range(5)]
    (found,) = find_finished(catalog, "settings", [(parts[0].unit_id, parts[0].fingerprint)]).values()
    assert found == min(parts, key=lambda part: part.key)


@pytest.mark.parametrize("reason", Reason)
def test_a_part_tells_what_of_it_is_unread(catalog, make_part, reason):
    part = make_part("u", ["a"], ["x"], reason=reason.value)
    found = find_finished(catalog, "settings", [(part.unit_id, part.fingerprint)])
    assert found == {part.unit_id: part}
    assert part.unread == (reason in PASSING)


def test_a_part_with_a_passing_fault_does_not_hide_one_without(catalog, make_part):
    for run in range(5):
        make_part("u", [], ["a"], reason="unreadable", run_id=f"run-{run}")
    good = make_part("u", ["a"])
    assert find_finished(catalog, "settings", [(good.unit_id, good.fingerprint)]) == {good.unit_id: good}


@pytest.mark.parametrize(
    "spoil", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:-9] + b"garbage!!"]
)
def test_a_torn_part_is_not_finished(catalog, make_part, spoil):
    part = make_part("u", ["a", "b"])
    file = file_of(catalog, "galaxies", part.key)
    file.write_bytes(spoil(file.read_bytes()))
    assert find_finished(catalog, "settings", [(part.unit_id, part.fingerprint)]) == {}


def test_a_part_under_another_units_name_is_not_finished(catalog, make_part):
    part = make_part("u", ["a", "b"])
    file = file_of(catalog, "galaxies", part.key)
    file.rename(file.with_name(file.name.replace(part.unit_id, "0" * 16)))
    assert find_finished(catalog, "settings", [("0" * 16, part.fingerprint)]) == {}


def test_reading_a_missing_part_says_that_the_catalog_is_damaged(catalog):
    with pytest.raises(FatalError, match=r"rejects/parts/s/a-b-c.parquet"):
        read_columns(layout.table(catalog, "rejects"), ["parts/s/a-b-c.parquet"], REJECTS)
