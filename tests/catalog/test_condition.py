"""Expressions over columns: what they select, and what they cannot do."""

from pathlib import Path

import pyarrow as pa
import pytest

from gax_batch.catalog.condition import Condition
from gax_batch.catalog.schema import GALAXIES
from gax_batch.errors import UsageError
from gax_batch.system.disk_database import QueryError, Scratch

SCHEMA = pa.schema([("ra", pa.float64()), ("flags", pa.int32()), ("gz2_class", pa.string())])
ROWS = pa.table(
    {
        "ra": [10.0, None, 30.0, 40.0],
        "flags": pa.array([0, 16, 32, 34], pa.int32()),
        "gz2_class": ["Er", "Sb", None, "Ei(o)"],
    },
    schema=SCHEMA,
)


@pytest.fixture
def scratch(tmp_path: Path):
    with Scratch(tmp_path) as database:
        yield database


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("ra > 10", [2, 3]),
        ("ra IS NULL", [1]),
        ("ra > 20 OR flags = 0", [0, 2, 3]),
        ("(flags & 32) <> 0", [2, 3]),
        ("gz2_class LIKE 'E%'", [0, 3]),
        ("gz2_class IN ('Er', 'Sb') AND NOT ra IS NULL", [0]),
        ("ra BETWEEN 5 AND 30", [0, 2]),
        ("sqrt(ra - 20) > 4 -- NaN, where negative, is the largest number to DuckDB", [0, 3]),
        ("CASE WHEN flags > 20 THEN ra > 35 ELSE ra > 5 END", [0, 3]),
        ("coalesce(ra, 0) < 1", [1]),
        ("regexp_matches(gz2_class, '^S')", [1]),
        ("true", [0, 1, 2, 3]),
        ("false", []),
    ],
)
def test_the_rows_for_which_it_is_true_come_in_their_order(text, rows, scratch):
    condition = Condition(text, SCHEMA, scratch)
    assert condition.filter(ROWS).equals(ROWS.take(pa.array(rows, pa.int64())))


def test_it_names_the_columns_that_it_needs(scratch):
    assert Condition("ra > 1 AND abs(flags) > 2 AND ra < 5", SCHEMA, scratch).columns == ("ra", "flags")


def test_of_many_rows_each_is_judged_once_and_in_order(scratch):
    numbers = pa.array(range(300_000), pa.int32())
    rows = pa.table(
        {"ra": pa.nulls(len(numbers), pa.float64()), "flags": numbers, "gz2_class": pa.nulls(300_000)}
    )
    found = Condition("flags % 3 = 0", SCHEMA, scratch).filter(rows)
    assert found["flags"].to_pylist() == list(range(0, 300_000, 3))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ra >",
        "ra > 1; DROP TABLE rows",
        "true) UNION SELECT 1 --",
        "ra IN (SELECT ra FROM rows)",
        "EXISTS (FROM read_csv('/etc/passwd'))",
        "(SELECT content FROM read_text('/etc/passwd')) = 'x'",
        "abs((SELECT count(*) FROM duckdb_settings())) > 1",
        "abs(abs(abs(length((SELECT 'x'))))) > 1",
        "CASE WHEN ra > 1 THEN getenv('HOME') = 'x' ELSE true END",
        "ra BETWEEN 1 AND length(current_setting('temp_directory'))",
        "getvariable('x') = 1",
        "read_text('/etc/passwd') = 'x'",
        "system.main.getenv('HOME') = 'x'",
        "now() > '2026-01-01'::timestamp",
        "random() > 0.5",
        "nextval('x') > 0",
        "count(*) > 1",
        "sum(ra) OVER () > 1",
        "ra > $1",
        "ra > ?",
        "true LIMIT 1",
        "true ORDER BY ra",
        "true GROUP BY ra",
        "true QUALIFY true",
        "COLUMNS('.*') > 1",
        "rows.ra > 1",
        "row > 1",
        "repeat('a', 1000000000) = 'b'",
        "list_contains([x FOR x IN [1]], 1)",
        "gz2_class > 3",
        "ra = 'abc'",
        "CAST(ra AS no_type) > 1",
        "nowhere > 1",
        "(" * 3000 + "true" + ")" * 3000,
        "ra > 1 OR " * 2000 + "true",
    ],
)
def test_anything_else_is_one_line(text, scratch):
    with pytest.raises(UsageError) as caught:
        Condition(text, SCHEMA, scratch).filter(ROWS)
    assert "\n" not in str(caught.value)


def test_the_database_that_evaluates_is_locked(scratch):
    Condition("ra > 1", SCHEMA, scratch)
    for sql in (
        "SELECT * FROM read_text('/etc/hostname')",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ):
        with pytest.raises(QueryError, match=r"disabled|locked"):
            scratch.run(sql)


@pytest.mark.parametrize(
    ("name", "meant"), [("decc", "dec"), ("smoth", "t01_smooth_or_features_a01_smooth_prob"), ("RA", "ra")]
)
def test_a_wrong_name_gets_the_nearest_right_one(name, meant, scratch):
    with pytest.raises(UsageError, match=rf"{name}\b.*\b{meant}\b"):
        Condition(f"{name} > 1", GALAXIES, scratch)
