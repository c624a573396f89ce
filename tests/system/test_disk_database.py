"""Tables that spill to disk."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gax_batch.errors import UsageError
from gax_batch.system import disk_database as module
from gax_batch.system.disk_database import QueryError, Scratch

SCHEMA = pa.schema([("name", pa.string()), ("number", pa.int64())])


def numbers(start: int, stop: int) -> pa.Table:
    values = np.arange(start, stop)
    return pa.table([[f"{value:040}" for value in values], values], schema=SCHEMA)


def test_what_is_loaded_comes_back_in_batches(tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        scratch.load("things", SCHEMA, (numbers(start, start + 50_000) for start in (100_000, 0, 50_000)))
        batches = list(scratch.stream("SELECT * FROM things WHERE number >= $low ORDER BY name", low=10))
        assert scratch.one("SELECT count(*) AS rows, max(number) AS most FROM things") == {
            "rows": 150_000,
            "most": 149_999,
        }
        assert scratch.one("SELECT * FROM things WHERE number < 0") is None
    assert len(batches) > 1
    assert pa.concat_tables(batches).equals(numbers(10, 150_000))


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        scratch.load("things", SCHEMA, [])
        scratch.run("CREATE TABLE twice AS SELECT number, name || $end AS name FROM things", end="!")
        assert list(scratch.stream("SELECT name FROM twice")) == []


def test_more_than_fits_goes_to_the_disk_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 64 * 1024 * 1024)
    count = 2_000_000
    with Scratch(tmp_path) as scratch:
        scratch.load("things", SCHEMA, (numbers(i, i + 50_000) for i in reversed(range(0, count, 50_000))))
        assert sum(file.stat().st_size for file in (tmp_path / "spill").iterdir()) > 1_000_000
        start = 0
        for batch in scratch.stream("SELECT number FROM things ORDER BY name"):
            np.testing.assert_array_equal(batch["number"].to_numpy(), np.arange(start, start + len(batch)))
            start += len(batch)
    assert start == count


def test_what_the_database_refuses_is_one_line(tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        with pytest.raises(QueryError, match="things") as caught:
            scratch.one("SELECT nowhere FROM things")
        assert "\n" not in str(caught.value)


def test_one_row_asked_for_leaves_the_others_unread(tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        scratch.load("things", SCHEMA, [numbers(0, 10_000)])
        assert scratch.one("SELECT number FROM things ORDER BY number") == {"number": 0}
        scratch.replace("things", numbers(7, 8))
        assert scratch.one("SELECT count(*) AS rows, max(number) AS most FROM things") == {
            "rows": 1,
            "most": 7,
        }


def test_a_full_disk_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 16 * 1024 * 1024)
    with Scratch(tmp_path) as scratch:
        scratch.run("SET max_temp_directory_size = '1MiB'")
        with pytest.raises(UsageError, match="TMPDIR") as caught:
            scratch.load("things", SCHEMA, (numbers(i, i + 50_000) for i in range(0, 1_000_000, 50_000)))
    assert "\n" not in str(caught.value)


def test_one_row_knows_the_variables_that_were_set_and_leaves_no_work_unfinished(tmp_path):
    with Scratch(tmp_path) as scratch:
        scratch.run("SET VARIABLE wanted = $value", value=7)
        assert scratch.one("SELECT getvariable('wanted') AS found FROM range(3)") == {"found": 7}
        scratch.run("CREATE TABLE after AS SELECT 1 AS x")
        assert scratch.one("SELECT x FROM after WHERE false") is None


def test_too_little_memory_is_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 8 * 1024 * 1024)
    with Scratch(tmp_path) as scratch, pytest.raises(UsageError, match="memory") as caught:
        scratch.run("CREATE TABLE t AS SELECT list(range) AS one FROM range(5000000)")
    assert "TMPDIR" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 32 * 1024 * 1024)
    with Scratch(tmp_path) as scratch:
        scratch.run("SET max_temp_directory_size = '1MiB'")
        with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
            scratch.run("CREATE TABLE t AS SELECT repeat('x', 200) || range AS name FROM range(1000000)")
