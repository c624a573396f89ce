import re

import numpy as np
import pyarrow as pa
import pytest
from astropy import units
from astropy.io.votable.ucd import check_ucd

from gax_batch.catalog.schema import (
    COLUMNS,
    CONDITIONAL_COLUMNS,
    DESCRIPTION,
    GALAXIES,
    REJECT_COLUMNS,
    REJECTS,
    Flag,
    column_table,
    galaxies_table,
    rejects_table,
)
from gax_batch.errors import FatalError
from gax_batch.gz2 import ANSWERS, DEFINITION, QUESTION_NAMES
from gax_batch.imaging.cutout import ImageFlag
from gax_batch.rejects import Reason, Stage

PLAIN = {pa.string(), pa.float32(), pa.float64(), pa.int32()}
LABELS = {"unit_id": "unit", "bundle_id": "bundle", "run_id": "run"}


@pytest.mark.parametrize("column", [*COLUMNS, *CONDITIONAL_COLUMNS, *REJECT_COLUMNS], ids=lambda c: c.name)
def test_units_and_ucds_are_the_virtual_observatorys_and_types_are_plain(column):
    assert check_ucd(column.ucd, check_controlled_vocabulary=True)
    units.Unit(column.unit, format="vounit")
    assert column.type in PLAIN
    assert column.description
    assert re.fullmatch(r"[a-z0-9_]+", column.name)


def test_the_columns_are_those_of_the_design():
    names = GALAXIES.names
    assert names[:3] == ["galaxy_id", "ra", "dec"]
    assert len(names) == len(set(names)) == 3 + 5 * len(ANSWERS) + 2 * len(QUESTION_NAMES) + 9
    assert {f"{a}_{q}" for a in ANSWERS for q in ("prob", "std", "lo", "hi", "svr")} < set(names)
    assert {f"{q}_{m}" for q in QUESTION_NAMES for m in ("entropy", "mutual_info")} < set(names)
    assert names[-9:] == [
        "gz2_class", "gz2_class_margin", "ood_score", "flags", "source_uri", "source_version", "unit_id",
        "bundle_id", "run_id",
    ]  # fmt: skip
    assert REJECTS.names == [
        "galaxy_id", "source_uri", "source_version", "stage", "reason", "detail", "attempts", "unit_id",
        "run_id",
    ]  # fmt: skip


def test_the_fractions_say_what_they_are():
    by_name = {column.name: column.description for column in COLUMNS}
    assert all(DEFINITION.description in by_name[f"{answer}_prob"] for answer in ANSWERS)
    assert all(
        DEFINITION.name in text for text in (DESCRIPTION, by_name["gz2_class"], DEFINITION.description)
    )


def test_fields_carry_unit_ucd_and_description():
    metadata = GALAXIES.field("ra").metadata
    assert metadata[b"unit"] == b"deg"
    assert metadata[b"ucd"] == b"pos.eq.ra;meta.main"
    assert metadata[b"comment"]


def test_the_column_table_has_a_row_per_column():
    rows = column_table()
    assert [row[0] for row in rows] == GALAXIES.names
    assert rows[1][:4] == ("ra", "double", "deg", "pos.eq.ra;meta.main")
    assert "ICRS" in rows[1][4]
    assert [row[0] for row in column_table(REJECT_COLUMNS)] == REJECTS.names


def test_flag_bits_do_not_overlap_and_are_all_documented():
    bits = [*ImageFlag, *Flag]
    assert sum(bits) == 2 ** len(bits) - 1
    (description,) = [c.description for c in COLUMNS if c.name == "flags"]
    assert all(f"{bit.value} {bit.name.lower()}" in description for bit in bits)


def test_stages_and_reasons_are_all_documented():
    by_name = {c.name: c.description for c in REJECT_COLUMNS}
    assert all(stage in by_name["stage"] for stage in Stage)
    assert all(reason in by_name["reason"] for reason in Reason)


def test_rows_keep_their_order_and_nan_becomes_null(cutouts, model_columns):
    values = model_columns(4)
    svr = f"{ANSWERS[0]}_svr"
    values[svr] = np.array([0.1, np.nan, 0.3, np.nan], np.float32)
    table = galaxies_table(cutouts(["a", "b", "c", "d"]), values, **LABELS)
    assert table.schema.equals(GALAXIES, check_metadata=True)
    assert table["galaxy_id"].to_pylist() == ["a", "b", "c", "d"]
    assert table[svr].to_pylist() == [np.float32(0.1), None, np.float32(0.3), None]
    assert set(table["bundle_id"].to_pylist()) == {"bundle"}


def test_flags_are_the_images_and_the_catalogs(cutouts, model_columns):
    table = cutouts(["a", "b", "c", "d"])
    table = table.set_column(1, "ra", pa.array([1.0, np.nan, 3.0, None]))
    table = table.set_column(2, "dec", pa.array([1.0, np.nan, 3.0, None]))
    table = table.set_column(
        5, "flags", pa.array([ImageFlag.GRAYSCALE, 0, 0, ImageFlag.UPSCALED], pa.int32())
    )
    far = {"out_of_distribution": np.array([False, False, True, True])}
    galaxies = galaxies_table(table, model_columns(4) | far, **LABELS)
    assert galaxies["flags"].to_pylist() == [2, 16, 32, 1 + 16 + 32]
    assert galaxies["ra"].to_pylist() == [1.0, None, 3.0, None]


def test_no_galaxies_make_an_empty_table(cutouts, model_columns):
    assert galaxies_table(cutouts([]), model_columns(0), **LABELS).schema == GALAXIES
    assert rejects_table(cutouts([]), unit_id="unit", run_id="run").schema == REJECTS


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("ood_score"), "ood_score"),
        (lambda c: c.update(surprise=np.zeros(2)), "surprise"),
        (lambda c: c.update(ood_score=np.zeros(3, np.float32)), r"ood_score.*\b3\b.*\b2\b"),
        (lambda c: c.update(ood_score=np.array([0, np.inf], np.float32)), "ood_score"),
    ],
)
def test_wrong_model_columns_are_refused(cutouts, model_columns, spoil, message):
    columns = model_columns(2)
    spoil(columns)
    with pytest.raises(FatalError, match=message):
        galaxies_table(cutouts(["a", "b"]), columns, **LABELS)


def test_rejects_say_why(cutouts):
    table = rejects_table(cutouts(["a"], reason="blank"), unit_id="unit", run_id="run")
    assert table.to_pylist() == [
        {
            "galaxy_id": "a",
            "source_uri": "s3://survey/a.jpg",
            "source_version": "v-a",
            "stage": "decode",
            "reason": "blank",
            "detail": "as found",
            "attempts": 1,
            "unit_id": "unit",
            "run_id": "run",
        }
    ]
