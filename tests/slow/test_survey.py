"""The real survey at full size with the shipped bundle, through the command line, as an operator runs it.

Few draws keep the hour: what is tested does not depend on their number.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gax_batch import gz2
from gax_batch.catalog.snapshots import Catalog

pytestmark = pytest.mark.slow

GALAXIES = 4_963
DRAWS = "4"
IDENTITY = ["unit_id", "run_id"]
GAX = [sys.executable, "-c", "from gax_batch.cli import main; main()"]


def gax_run(images: Path, catalog: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [*GAX, "run", "--input", str(images), "--catalog", str(catalog), "--draws", DRAWS, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def rows(catalog: Path) -> pa.Table:
    return Catalog(str(catalog)).galaxies().sort_by("galaxy_id").drop_columns(IDENTITY)


@pytest.fixture(scope="module")
def images(shared_data: Path) -> Path:
    return shared_data / "kaggle" / "images"


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    catalog = tmp_path_factory.mktemp("survey") / "catalog"
    return catalog, gax_run(images, catalog).stdout


def test_every_galaxy_is_a_row(whole):
    catalog, printed = whole
    table = rows(catalog)
    assert len(table) == len(set(table["galaxy_id"].to_pylist())) == GALAXIES
    assert len(Catalog(str(catalog)).rejects()) == 0
    assert re.search(r"[\d,.]+ cutouts/s", printed)
    assert re.search(r"[\d,]+ MiB", printed)


def test_memory_stays_under_4_gib_beside_the_object_store(whole):
    (record,) = (whole[0] / "runs").rglob("run.json")
    assert json.loads(record.read_text())["peak_memory_mib"] < 4096


def test_the_catalogs_numbers_are_probabilities_consistent_with_the_tree(whole):
    table = rows(whole[0])
    columns = {
        q: np.stack([table[f"{a}_{q}"].to_numpy() for a in gz2.ANSWERS], axis=1) for q in ("prob", "svr")
    }
    for values in columns.values():
        assert values.min() >= 0
        assert values.max() <= 1
        assert gz2.inconsistency(values) <= 1e-5


def test_a_second_run_has_nothing_to_do_in_15_seconds(whole, images):
    before = sorted(whole[0].rglob("*"))
    start = time.monotonic()
    done = gax_run(images, whole[0])
    assert time.monotonic() - start < 15
    assert re.search(r"\b0 units\b", done.stdout)
    assert sorted(whole[0].rglob("*")) == before


@pytest.mark.parametrize(
    "flags", [["--unit-size", "64", "--limit", "500"], ["--unit-size", "500", "--workers", "2"]]
)
def test_rows_are_bit_identical_for_other_units_and_workers(whole, images, tmp_path, flags):
    gax_run(images, tmp_path / "catalog", *flags)
    other = rows(tmp_path / "catalog")
    assert len(other) in (500, GALAXIES)
    same = rows(whole[0]).filter(pc.is_in(rows(whole[0])["galaxy_id"], other["galaxy_id"].combine_chunks()))
    assert same.equals(other)


def test_killed_half_way_it_goes_on_and_gives_the_same_rows(whole, images, tmp_path):
    catalog = tmp_path / "catalog"
    command = [
        *GAX,
        "run",
        "--input",
        str(images),
        "--catalog",
        str(catalog),
        "--draws",
        DRAWS,
        "--unit-size",
        "500",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    parts = catalog / "galaxies" / "parts"
    while len(list(parts.rglob("*.parquet"))) < 5:
        assert process.poll() is None
        time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(5)
    stored = {path.name for path in parts.rglob("*.parquet")}
    done = gax_run(images, catalog, "--unit-size", "500")
    assert re.search(rf"\b{len(stored)} \w+ 10\b", done.stdout)
    assert stored <= {path.name for path in parts.rglob("*.parquet")}
    assert len(list(parts.rglob("*.parquet"))) == 10
    assert rows(catalog).equals(rows(whole[0]))
