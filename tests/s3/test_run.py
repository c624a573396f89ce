"""Whole runs from a bucket into a bucket, on a store that fails one request in seven as well."""

from functools import partial
from pathlib import Path

import pytest
from catalogs import catalog_without_ray
from fake_engine import fake_engine
from galaxy_images import jpeg_bytes, write_images
from listings import new_folder

from gax_batch import storage
from gax_batch.catalog.snapshots import Catalog
from gax_batch.models.bundle import load_bundle
from gax_batch.runner import run as run_module
from gax_batch.runner.run import RunOutcome, run_survey
from gax_batch.runner.settings import load_settings
from gax_batch.sources import open_source

GALAXIES = 60


def run_on(place: str, catalog: str) -> RunOutcome:
    values = {"input": place, "catalog": catalog, "unit_size": 16, "cpus": 2}
    return run_survey(load_settings(None, values))


def test_every_galaxy_is_cataloged_once(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "load_engine", partial(fake_engine, log=str(tmp_path / "log")))
    write_images(tmp_path / "images", GALAXIES)
    for number in range(GALAXIES):
        storage.write_bytes(f"{root}/images/{number:06d}.jpg", jpeg_bytes(number))
    outcome = run_on(f"{root}/images", f"{root}/catalog")
    assert outcome.exit_code == 0
    found = Catalog(f"{root}/catalog")
    table = found.galaxies().sort_by("galaxy_id")
    assert table["galaxy_id"].to_pylist() == [f"{i:06d}" for i in range(GALAXIES)]
    assert len(found.rejects()) == 0
    again = run_on(f"{root}/images", f"{root}/catalog")
    assert (again.exit_code, again.run_id, again.version) == (0, None, outcome.version)
    source = open_source(str(tmp_path / "images"))
    local = catalog_without_ray(source, str(tmp_path / "catalog"), new_folder()).galaxies()
    local = local.sort_by("galaxy_id")
    assert set(table["bundle_id"].to_pylist()) == {load_bundle().bundle_id}
    told_apart = ["unit_id", "run_id", "bundle_id", "source_uri", "source_version"]
    assert table.drop_columns(told_apart).equals(local.drop_columns(told_apart))
