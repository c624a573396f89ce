"""What stands before a run: which source the settings name, and what of it is new."""

import os
import re
from pathlib import Path

import pytest
from astropy.io import fits
from fits_images import cube, galaxy, stored
from listings import new_folder
from message_facts import numbers_in
from sky_fields import write_field, write_table

from gax_batch.catalog.layout import parts_folder
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import UsageError
from gax_batch.models.bundle import load_bundle
from gax_batch.planning.plan import Plan, Unit
from gax_batch.runner.estimate import forecast
from gax_batch.runner.fingerprint import settings_fingerprint
from gax_batch.runner.pack import pack_survey
from gax_batch.runner.preparation import plan_run, resources_of, settle_precision
from gax_batch.runner.settings import PackSettings, check_settings, load_settings
from gax_batch.sources import open_source, read_unit
from gax_batch.sources.frame_index import INDEX_NAME
from gax_batch.system.messages import redirect_messages


def plan_of(folder: Path, **flags: object) -> tuple[Plan, list[str]]:
    lines: list[str] = []
    settings = load_settings(
        None, {"input": str(folder / "input"), "catalog": str(folder / "catalog")} | flags
    )
    with redirect_messages(lines.append):
        return plan_run(settings, Catalog(settings.catalog), "s", new_folder()), lines


@pytest.fixture
def band_files(tmp_path: Path) -> Path:
    """Two galaxies of a file per band, and a table of positions."""
    (tmp_path / "input").mkdir()
    for number in (1, 2):
        for band, flux in galaxy().items():
            (tmp_path / "input" / f"{number}-{band}.fits").write_bytes(stored(fits.PrimaryHDU(flux)))
    (tmp_path / "p.csv").write_text("id,ra,dec\n1,10,20\n")
    return tmp_path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    (tmp_path / "input").mkdir()
    write_field(tmp_path / "input", "a", {(150.0, 2.0): 2.0})
    write_table(tmp_path / "p.csv", {"x": (150.0, 2.0), "far": (10.0, 0.0)})
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"band_files": True, "frames": True, "positions": "p.csv"}, "--band-files.*--frames"),
        ({"band_files": True, "preset": "single"}, "--band-files.*--preset"),
        ({"frames": True}, "--frames.*--positions"),
        ({"frames": True, "positions": "p.csv", "preset": "single"}, "--frames.*--preset"),
        ({"frame_index": "somewhere"}, "--frame-index.*--frames"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_together_are_one_line(tmp_path, flags, message):
    (tmp_path / "input").mkdir()
    with pytest.raises(UsageError, match=message) as caught:
        plan_of(tmp_path, **flags)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "catalog").exists()


def test_band_files_are_planned_as_galaxies_with_positions(band_files):
    plan, lines = plan_of(band_files, band_files=True, positions=str(band_files / "p.csv"))
    assert numbers_in(lines[0], band_files) == ["0", "0", "0", "0", "2", "2"]
    assert f"{band_files}/input" in lines[0]
    sample = plan.sample(10)
    assert sample["galaxy_id"].to_pylist() == ["1", "2"]
    assert sample["ra"].to_pylist() == [10.0, None]
    assert plan.units[0].bytes == sum(p.stat().st_size for p in (band_files / "input").iterdir())


def test_a_plan_reports_how_many_positions_matched_and_by_which_column(band_files):
    _, lines = plan_of(band_files, band_files=True, positions=str(band_files / "p.csv"))
    (line,) = [line for line in lines if "p.csv" in line]
    assert numbers_in(line, band_files) == ["0", "1", "1", "2"]
    assert re.search(r"\bid\b", line)


@pytest.mark.parametrize("rows", ["", "8,10,20\n"], ids=["empty", "others"])
def test_positions_of_no_galaxy_of_the_input_are_refused(band_files, rows):
    (band_files / "p.csv").write_text(f"objid,ra,dec\n{rows}")
    flags = {"band_files": True, "positions": str(band_files / "p.csv")}
    with pytest.raises(UsageError, match=r"p\.csv.* 2 .*--positions") as caught:
        plan_of(band_files, **flags)
    assert "\n" not in str(caught.value)
    settings = check_settings(
        PackSettings, flags | {"input": str(band_files / "input"), "output": str(band_files / "packed")}
    )
    with pytest.raises(UsageError, match=r"p\.csv.* 2 .*--positions"):
        pack_survey(settings, processes=1)
    plan, lines = plan_of(band_files, **flags, limit=1)
    assert plan.members == 1
    assert numbers_in(lines[-1], band_files) == ["0", "0", "1", "1"]


def test_band_files_are_packed_as_the_same_galaxy_of_one_file_and_redone_for_each_band(band_files, tmp_path):
    flags = {"input": str(band_files / "input"), "output": str(tmp_path / "packed"), "unit_size": 1}
    settings = check_settings(PackSettings, flags | {"band_files": True})
    done = pack_survey(settings, processes=1)
    assert (done.shards, done.written, done.rejects) == (2, 2, {})
    (tmp_path / "one.fits").write_bytes(stored(cube(galaxy())))

    def cutouts(uri: str) -> set[bytes]:
        members = next(open_source(uri).list_members())
        return set(read_unit(members, settings.decoder)["cutout"].to_pylist())

    expected = cutouts(str(tmp_path / "one.fits"))
    for path in (tmp_path / "packed").glob("*.parquet"):
        assert cutouts(str(path)) == expected
    os.utime(tmp_path / "input" / "2-r.fits", ns=(1, 1))
    again = pack_survey(settings, processes=1, replace=True)
    assert (again.shards, again.written, again.removed) == (2, 1, 1)


def test_a_run_keeps_the_index_of_frames_and_a_plan_writes_nothing(frames, messages):
    flags = {"frames": True, "positions": str(frames / "p.csv")}
    values = {"input": str(frames / "input"), "catalog": str(frames / "catalog")}
    before = sorted(frames.rglob("*"))
    assert forecast(load_settings(None, values | flags), calibrate=False) == 0
    assert ["1", "1"] in [numbers_in(line, frames) for line in messages]
    assert sorted(frames.rglob("*")) == before
    plan, _ = plan_of(frames, **flags)
    assert plan.members == 2
    assert plan.rejects == {"off_frame": 1}
    assert (frames / "catalog" / "frames" / INDEX_NAME).exists()
    assert not (frames / "input" / INDEX_NAME).exists()
    _, (line,) = plan_of(frames, **flags)
    assert numbers_in(line, frames) == ["0", "0", "0", "0", "2", "2"]


def test_the_index_of_frames_is_kept_where_the_user_says(frames):
    folder = frames / "elsewhere"
    plan_of(frames, frames=True, positions=str(frames / "p.csv"), frame_index=str(folder))
    assert (folder / INDEX_NAME).exists()
    assert not (frames / "input" / INDEX_NAME).exists()
    assert not (frames / "catalog").exists()


class Cataloged:
    """A catalog whose units were made with the given precisions, and otherwise by the same settings."""

    uri = "/nowhere"

    def __init__(self, *precisions: str, draws: int = 64) -> None:
        made = [load_settings(None, GIVEN | {"precision": p, "draws": draws}) for p in precisions]
        self._fingerprints = [settings_fingerprint(settings, load_bundle()) for settings in made]

    def units(self) -> dict[str, tuple[str, str]]:
        return {str(number): (settings, "f") for number, settings in enumerate(self._fingerprints)}


GIVEN: dict[str, object] = {"input": "survey", "catalog": "catalog"}


@pytest.mark.parametrize(
    ("cataloged", "flags", "expected"),
    [
        (Cataloged(), {}, "float32"),
        (Cataloged(), {"ray_address": "head:6379", "engine_cpus": 2, "engine_gpus": 1}, "bfloat16"),
        (Cataloged(), {"precision": "bfloat16"}, "bfloat16"),
        (Cataloged("bfloat16"), {}, "bfloat16"),
        (Cataloged("bfloat16"), {"precision": "float32"}, "float32"),
        (Cataloged("float32"), {"ray_address": "head:6379"}, "float32"),
        (Cataloged("float32", "bfloat16", "bfloat16"), {}, "bfloat16"),
        (Cataloged("bfloat16", draws=32), {}, "float32"),
    ],
)
def test_auto_is_settled_by_the_catalog_then_by_the_machines(
    monkeypatch: pytest.MonkeyPatch, cataloged: Cataloged, flags: dict[str, object], expected: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    rates = {"float32": 10.0, "bfloat16": 10.9}
    monkeypatch.setattr("gax_batch.runner.preparation.rates_of_machine", lambda: rates)
    settings = load_settings(None, GIVEN | flags)
    settled = settle_precision(settings, load_bundle(), cataloged)  # type: ignore[arg-type]
    assert settled == settings.model_copy(update={"precision": expected})


def test_auto_goes_on_with_what_an_interrupted_run_has_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    rates = {"float32": 10.0, "bfloat16": 10.9}
    monkeypatch.setattr("gax_batch.runner.preparation.rates_of_machine", lambda: rates)
    settings = load_settings(None, GIVEN | {"catalog": str(tmp_path)})
    other = settings.model_copy(update={"precision": "bfloat16"})
    catalog = Catalog(settings.catalog)
    part = Path(parts_folder(str(tmp_path), settings_fingerprint(other, load_bundle())), "part.parquet")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"stored, not committed")
    assert settle_precision(settings, load_bundle(), catalog) == other


def test_memory_is_of_the_largest_unit_and_not_of_the_setting():
    settings = load_settings(
        None, {"input": "in", "catalog": "out", "unit_size": 1024, "cpus": 2, "ray_address": "local"}
    )

    def need_of(*members: int) -> tuple[int, int]:
        units = [Unit(str(i), "print", "changed", count, None, False) for i, count in enumerate(members)]
        resources, need = resources_of(settings, units)
        assert resources.object_store_bytes == need.object_store
        return need.readers, need.object_store

    readers, store = need_of(100, 65_536)
    assert readers > 2 * 65_536 * 64 * 64 * 3
    assert store > 65_536 * 64 * 64 * 3
    assert need_of(100) < need_of(1024) < (readers, store)
