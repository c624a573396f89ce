"""The readers on damaged files, drawn by hypothesis and, for some seconds, guided by coverage."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from fuzz.corpus import SEEDS
from fuzz.targets import check
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
GUIDED_SECONDS = 6

Edits = list[tuple[str, float, bytes]]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "repeat", "insert"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


@cache
def seeds(reader: str) -> list[bytes]:
    return list(SEEDS[reader]())


def edited(data: bytes, edits: Edits) -> bytes:
    for kind, where, new in edits:
        place = int(where * len(data))
        if kind == "set":
            data = data[:place] + new + data[place + len(new) :]
        elif kind == "cut":
            data = data[:place] + data[place + 64 * len(new) :]
        elif kind == "repeat":
            data = data[:place] + data[place : place + 64] * len(new) + data[place:]
        else:
            data = data[:place] + new + data[place:]
    return data


@pytest.mark.parametrize("reader", SEEDS)
def test_the_files_themselves_are_read(reader: str):
    for data in seeds(reader):
        check(reader, data)


@pytest.mark.parametrize("reader", SEEDS)
@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(number=st.integers(0, 99), edits=EDITS)
def test_damaged_files_are_rejected_or_refused(reader: str, number: int, edits: Edits):
    check(reader, edited(seeds(reader)[number % len(seeds(reader))], edits))


def test_any_bit_of_a_footer_may_be_wrong():
    """Some made pyarrow end the process, others raise of names that are not UTF-8."""
    for data in seeds("parquet")[:2]:
        for place in range(len(data) - 1400, len(data), 23):
            damaged = bytearray(data)
            damaged[place] ^= 1 << (place % 8)
            check("parquet", bytes(damaged))


def test_guided_by_coverage_nothing_is_found_in_some_seconds(tmp_path: Path):
    pytest.importorskip("atheris", reason="there is no Atheris for this Python or system")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", *SEEDS, "--seconds", str(GUIDED_SECONDS), "--seed", "1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=40 * GUIDED_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    (line,) = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    assert int(line.split()[-1]) > sum(len(seeds(reader)) for reader in SEEDS)
    assert not list((tmp_path / "build" / "fuzz").glob("*crash*"))
