"""What other settings mean for units that are cataloged: what is redone, retried, or only said."""

from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import run_units
from fake_engine import N_DRAWS
from galaxy_images import galaxy_image, write_images
from listings import new_folder
from message_facts import numbers_in

from gax_batch.analysis.population import population
from gax_batch.catalog import layout
from gax_batch.catalog.draws import read_draws
from gax_batch.catalog.snapshots import Catalog, write_run_record
from gax_batch.cluster import unit
from gax_batch.errors import UsageError
from gax_batch.models.bundle import load_bundle
from gax_batch.planning.plan import Plan
from gax_batch.runner.estimate import forecast
from gax_batch.runner.fingerprint import Provenance, settings_fingerprint
from gax_batch.runner.preparation import plan_run
from gax_batch.runner.settings import RunSettings, load_settings
from gax_batch.system.messages import redirect_messages

BUNDLE = load_bundle()
LARGE = "000003"


class Survey:
    """Images in a folder, and their catalog of units of 5; every night leaves its record, as a run does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.nights = folder, 0
        self.catalog = str(folder / "catalog")
        write_images(folder / "images", 12)
        image = BytesIO()
        galaxy_image(3, side=800).save(image, format="PNG")
        (folder / "images" / f"{LARGE}.jpg").unlink()
        (folder / "images" / f"{LARGE}.png").write_bytes(image.getvalue())

    def settings(self, **flags: object) -> RunSettings:
        values = {"input": str(self.folder / "images"), "catalog": self.catalog, "unit_size": 5}
        limit = {"max_image_pixels": 500_000, "precision": "float32", "draws": N_DRAWS}
        return load_settings(None, values | limit | flags)

    def plan(self, **flags: object) -> tuple[Plan, list[str]]:
        lines: list[str] = []
        settings = self.settings(**flags)
        fingerprint = settings_fingerprint(settings, BUNDLE)
        with redirect_messages(lines.append):
            return plan_run(settings, Catalog(self.catalog), fingerprint, new_folder()), lines

    def night(self, fingerprint: str | None = None, **flags: object) -> Plan:
        self.nights += 1
        plan, _ = self.plan(**flags)
        settings, catalog, run_id = self.settings(**flags), Catalog(self.catalog), f"run-{self.nights}"
        fingerprint = fingerprint or settings_fingerprint(settings, BUNDLE)
        options = unit.UnitOptions(
            catalog.uri,
            fingerprint,
            BUNDLE.bundle_id,
            run_id,
            settings.decoder,
            grouping=settings.grouping,
            keep_draws=settings.keep_draws,
        )
        record = {
            "settings": settings.model_dump(mode="json"),
            "settings_fingerprint": fingerprint,
            "bundle_id": BUNDLE.bundle_id,
        }
        write_run_record(catalog.uri, run_id, record)
        parts = [result.part for result in run_units(plan, options)]
        catalog.commit(parts, run_id=run_id, metadata={"settings_fingerprint": fingerprint})
        return plan

    @property
    def rejects(self) -> list[str]:
        return Catalog(self.catalog).rejects()["galaxy_id"].to_pylist()


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    """Twelve galaxies in three units; one image has more pixels than the limit."""
    made = Survey(tmp_path)
    assert made.night().members == 12
    assert made.rejects == [LARGE]
    return made


OTHERS = [
    {"max_image_bytes": 1 << 30},
    {"max_image_memory_mib": 8192},
    {"max_image_expansion": 400},
    {"max_image_header_bytes": 1 << 23},
    {"max_image_pixels": 400_000},
    {"population_order": 1},
    {"population_bins": "ra=0,180,360"},
    {"keep_draws": True},
    {"default_radius": 3.0},
    {"max_rejects": 0.5},
]


@pytest.mark.parametrize("flags", OTHERS, ids=lambda flags: next(iter(flags)))
def test_settings_that_change_no_number_redo_nothing(survey: Survey, flags: dict[str, object]) -> None:
    plan, _ = survey.plan(**flags)
    assert plan.units == []
    assert plan.counts.unchanged == 12


@pytest.mark.parametrize("flags", [{"draws": 8}, {"crop": 0.5}, {"models": "svr"}, {"precision": "bfloat16"}])
def test_settings_that_change_numbers_redo_everything(survey: Survey, flags: dict[str, object]) -> None:
    plan, _ = survey.plan(**flags)
    assert plan.counts.model_changed == plan.members == 12


def test_the_radius_of_galaxies_on_frames_changes_their_numbers() -> None:
    flags = {"input": "i", "catalog": "c", "frames": True}
    one, two = (load_settings(None, flags | {"default_radius": radius}) for radius in (3.0, 4.0))
    assert settings_fingerprint(one, BUNDLE) != settings_fingerprint(two, BUNDLE)


def test_a_raised_limit_retries_the_rejects_that_it_concerns_once(survey: Survey) -> None:
    plan = survey.night(max_image_pixels=1_000_000)
    assert (len(plan.units), plan.counts.retried, plan.counts.unchanged) == (1, 1, 11)
    assert survey.rejects == []
    assert survey.plan(max_image_pixels=1_000_000)[0].units == []
    # Neither another limit, nor one that is lower again, retries anything.
    assert survey.plan(max_image_pixels=2_000_000)[0].units == []


def test_a_limit_that_is_raised_too_little_is_tried_once_for_each_value(survey: Survey) -> None:
    for pixels in (510_000, 520_000):
        assert survey.night(max_image_pixels=pixels).counts.retried == 1
        assert survey.rejects == [LARGE]
        assert survey.plan(max_image_pixels=pixels)[0].units == []


def test_a_raised_limit_retries_a_reject_of_a_shard_that_is_otherwise_passed_over(tmp_path: Path) -> None:
    made = Survey(tmp_path)
    (tmp_path / "shards").mkdir()
    for name in ("000001.jpg", f"{LARGE}.png"):
        rows = {"galaxy_id": [name[:6]], "image": [(tmp_path / "images" / name).read_bytes()]}
        pq.write_table(pa.table(rows), tmp_path / "shards" / f"{name[:6]}.parquet")
    flags = {"input": str(tmp_path / "shards"), "unit_size": 1}
    made.night(**flags)
    assert made.rejects == [LARGE]
    assert layout.MANY_ORIGINS not in {name.origin for name in Catalog(made.catalog).parts()}
    plan = made.night(**flags, max_image_pixels=1_000_000)
    assert (plan.members, plan.counts.retried, plan.counts.unchanged) == (1, 1, 1)
    assert made.rejects == []
    plan, _ = made.plan(**flags, keep_draws=True, redo_companions=True, max_image_pixels=1_000_000)
    assert plan.members == 2


def test_units_that_lack_sums_or_draws_are_named_and_redone_only_when_asked(survey: Survey) -> None:
    wanted = {"keep_draws": True, "population_bins": "ood_score=0,0.5,1"}
    plan, lines = survey.plan(**wanted)
    assert plan.units == []
    units = Catalog(survey.catalog).units()
    assert any(all(name in line for name in [*units, "3", "--redo-companions"]) for line in lines)
    write_images(survey.folder / "images", 2, first=20)
    survey.night(**wanted)
    with pytest.raises(UsageError, match="--redo-companions"):
        population(survey.catalog, by="ood_score")
    with pytest.raises(UsageError, match="--redo-companions"):
        read_draws(survey.catalog, ["000001"])
    plan = survey.night(**wanted, redo_companions=True)
    assert len(plan.units) == 3
    assert sum({row.bin: row.galaxies for row in population(survey.catalog, by="ood_score")}.values()) == 13
    assert read_draws(survey.catalog, ["000001"]).shape == (1, N_DRAWS, 37)
    assert survey.plan(**wanted, redo_companions=True)[0].units == []


def test_fractions_by_a_grouping_that_some_units_lack_are_refused(survey: Survey) -> None:
    """The sums of one grouping alone would be of some of the galaxies."""
    write_images(survey.folder / "images", 2, first=20)
    survey.night(population_order=3)
    for by in ("healpix2", "healpix3"):
        with pytest.raises(UsageError, match="--redo-companions"):
            population(survey.catalog, by=by)
    assert population(survey.catalog)[0].galaxies == 13


@pytest.mark.parametrize(
    ("flags", "facts"),
    [
        ({"draws": 8}, ["draws", str(N_DRAWS), "8"]),
        ({"crop": 0.5}, ["crop", "0.5"]),
        ({"models": "svr", "preset": "single"}, ["models", "svr", "preset", "single"]),
    ],
    ids=str,
)
def test_what_redoes_the_catalog_is_named_first(
    survey: Survey, flags: dict[str, object], facts: list[str], messages: list[str]
) -> None:
    assert forecast(survey.settings(**flags), calibrate=False) in (0, 2)
    assert all(fact in messages[0] for fact in [*facts, "12"])
    images = str(survey.folder / "images")
    assert images not in messages[0]
    messages.clear()
    assert forecast(survey.settings(), calibrate=False) == 0
    assert images in messages[0]  # which is what is named first where nothing is redone


def test_other_numbers_of_a_release_are_named(
    survey: Survey, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    monkeypatch.setattr("gax_batch.runner.fingerprint.RESULTS_VERSION", 8)
    forecast(survey.settings(), calibrate=False)
    assert numbers_in(messages[0], survey.folder) == ["12"]
    assert str(survey.folder / "images") not in messages[0]


@pytest.fixture
def old_survey(tmp_path: Path) -> Survey:
    """The survey as an earlier release cataloged it, whose fingerprints had one half."""
    made = Survey(tmp_path)
    made.night("0123456789abcdef")
    return made


def test_a_catalog_of_an_earlier_release_is_redone_and_the_reason_said(old_survey: Survey) -> None:
    assert old_survey.plan()[0].counts.model_changed == 12
    settings = old_survey.settings()
    (line,) = Provenance(Catalog(old_survey.catalog)).changes(
        settings_fingerprint(settings, BUNDLE), settings, BUNDLE
    )
    assert "release" in line
    assert "12 cutouts" in line


def test_a_catalog_whose_record_is_missing_is_redone_and_the_reason_said(old_survey: Survey) -> None:
    (Path(old_survey.catalog) / "runs" / "run-1" / "run.json").unlink()
    assert old_survey.plan()[0].counts.model_changed == 12
    settings = old_survey.settings()
    catalog = Catalog(old_survey.catalog)
    (line,) = Provenance(catalog).changes(settings_fingerprint(settings, BUNDLE), settings, BUNDLE)
    assert "record" in line
    assert "12 cutouts" in line
