"""A survey's nights on an S3 server: after each the catalog is the one that a run from scratch makes.

With the stand-in engine: what is tested is which cutouts are processed, and what becomes visible when.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from galaxy_images import jpeg_bytes
from s3 import ceph
from s3.servers import environment, make_bucket, moto
from slow.night import KILLS

from gax_batch import storage
from gax_batch.catalog.snapshots import Catalog
from gax_batch.models.bundle import load_bundle, save_bundle

pytestmark = pytest.mark.slow

NIGHT = Path(__file__).with_name("night.py")
TRIES = 20
Outcome = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket on Ceph's gateway, or on moto's server where that is not installed."""
    server = moto() if ceph.missing_programs() else ceph.running(tmp_path_factory.mktemp("ceph"))
    with server as endpoint, environment(endpoint):
        yield make_bucket("nights")


class Survey:
    """A bucket's images, its catalog, and what is done to both."""

    def __init__(self, root: str, folder: Path) -> None:
        self.images, self.catalog = f"{root}/{folder.name}/images", f"{root}/{folder.name}/catalog"
        self._root, self._folder, self._scratch = f"{root}/{folder.name}", folder, count()

    def add(self, numbers: range) -> None:
        for number in numbers:
            storage.write_bytes(self.uri(number), jpeg_bytes(number))

    def uri(self, number: int) -> str:
        return f"{self.images}/{number:06d}.jpg"

    def run(self, catalog: str | None = None, kill: str | None = None, **flags: object) -> Outcome:
        ray = bool(flags.pop("ray", True))
        settings = {"input": self.images, "catalog": catalog or self.catalog, "unit_size": 8, "cpus": 2}
        told = {
            "settings": settings | flags,
            "log": str(self._folder / "engine.log"),
            "kill": kill,
            "ray": ray,
            "seconds": 0.3 if kill else 0.0,
        }
        command = [sys.executable, str(NIGHT), json.dumps(told)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    def assert_as_from_scratch(self, **flags: object) -> None:
        scratch = f"{self._root}/scratch-{next(self._scratch)}"
        done = self.run(scratch, ray=False, **flags)
        assert done.returncode == 0, done.stderr
        for table in (galaxies, rejects):
            assert table(self.catalog).equals(table(scratch))


def galaxies(catalog: str) -> pa.Table:
    return Catalog(catalog).galaxies().sort_by("galaxy_id").drop_columns(["unit_id", "run_id"])


def rejects(catalog: str) -> pa.Table:
    table = Catalog(catalog).rejects().sort_by("source_uri")
    return table.drop_columns(["unit_id", "run_id", "attempts"])


@pytest.fixture
def survey(root: str, tmp_path: Path) -> Survey:
    return Survey(root, tmp_path)


@pytest.fixture
def new_bundle(tmp_path: Path) -> str:
    """The shipped bundle under another id, as a retraining leaves one."""
    shipped = load_bundle()
    save_bundle(tmp_path / "retrained", {**shipped.manifest, "note": "retrained"}, shipped.arrays)
    return str(tmp_path / "retrained")


def succeed(done: Outcome) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_five_nights(survey: Survey, new_bundle: str) -> None:
    survey.add(range(40))
    storage.write_bytes(survey.uri(5), jpeg_bytes(5)[:300])
    assert re.search(r"\b40\b.*\b0\b", succeed(survey.run()))
    assert rejects(survey.catalog)["reason"].to_pylist() == ["truncated"]
    survey.assert_as_from_scratch()

    survey.add(range(40, 52))
    storage.write_bytes(survey.uri(5), jpeg_bytes(5))
    storage.write_bytes(survey.uri(9), jpeg_bytes(900))
    storage.delete(survey.uri(20))
    assert re.search(r"\b12\b.*\b2\b.*\b0\b.*\b37\b.*\b1\b", succeed(survey.run()))
    assert "000020" in galaxies(survey.catalog)["galaxy_id"].to_pylist()
    assert len(rejects(survey.catalog)) == 0
    succeed(survey.run(prune=True))
    survey.assert_as_from_scratch()

    said = succeed(survey.run(bundle=new_bundle))
    assert re.search(r"\b0\b.*\b0\b.*\b51\b", said)
    assert len(set(galaxies(survey.catalog)["bundle_id"].to_pylist())) == 1
    survey.assert_as_from_scratch(bundle=new_bundle)

    version = Catalog(survey.catalog).version
    assert re.search(r"\b0 units\b", succeed(survey.run(bundle=new_bundle)))
    assert Catalog(survey.catalog).version == version


@pytest.mark.parametrize("kill", KILLS)
def test_a_night_that_is_killed_is_whole_after_the_next(survey: Survey, kill: str) -> None:
    survey.add(range(16))
    storage.write_bytes(survey.uri(3), jpeg_bytes(3)[:300])
    succeed(survey.run(ray=False))
    before = galaxies(survey.catalog)
    survey.add(range(16, 40))
    storage.write_bytes(survey.uri(3), jpeg_bytes(3))
    storage.write_bytes(survey.uri(30), jpeg_bytes(30)[:300])
    killed = survey.run(kill=kill)
    assert killed.returncode == -9, killed.stderr
    seen = galaxies(survey.catalog)
    decided = kill in ("after the galaxies are committed", "before the record is written")
    # All of the night or nothing of it, for every reader.
    assert len(seen) == 39 if decided else seen.equals(before)
    time.sleep(2)
    succeed(survey.run())
    survey.assert_as_from_scratch()


def test_two_runs_at_once_lose_nothing_and_double_nothing(survey: Survey) -> None:
    survey.add(range(8))
    succeed(survey.run(ray=False))
    outcomes = []
    for attempt in range(TRIES):
        survey.add(range(8 + 4 * attempt, 12 + 4 * attempt))
        if attempt % 2:
            # A unit that both have to do again clashes where new ones do not.
            storage.write_bytes(survey.uri(1), jpeg_bytes(1000 + attempt))
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda draws: survey.run(ray=False, draws=draws), (64, 64 + attempt % 3)))
        outcomes += [done.returncode for done in both]
        assert all(done.returncode in (0, 2) for done in both), [done.stderr for done in both]
        assert 0 in [done.returncode for done in both]
        succeed(survey.run(ray=False))
        ids = galaxies(survey.catalog)["galaxy_id"].to_pylist()
        assert ids == [f"{number:06d}" for number in range(12 + 4 * attempt)]
    assert len(outcomes) == 2 * TRIES
    survey.assert_as_from_scratch()
