"""Settings: one name for a flag and its key, refusals that name the fix."""

import inspect
from collections.abc import Callable
from typing import get_args

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from gax_batch.cli import app, survey
from gax_batch.errors import UsageError
from gax_batch.imaging.defaults import PresetName
from gax_batch.imaging.rgb import PRESETS
from gax_batch.models.bundle import Bundle
from gax_batch.runner.fingerprint import settings_fingerprint
from gax_batch.runner.setting_types import HIDDEN, PANELS, Settings
from gax_batch.runner.settings import (
    ClassifySettings,
    PackSettings,
    RunSettings,
    check_settings,
    describe_settings,
    load_settings,
)

MINIMAL = {"input": "images", "catalog": "out"}


@pytest.mark.parametrize(
    ("command", "kind", "others"),
    [
        (survey.run, RunSettings, {"config"}),
        (survey.plan, RunSettings, {"config", "calibrate", "hours", "core_price", "gpu_price"}),
        (survey.pack, PackSettings, {"originals", "processes", "replace"}),
        (survey.classify, ClassifySettings, {"json", "plot"}),
    ],
    ids=["run", "plan", "pack", "classify"],
)
def test_every_option_is_a_setting_and_every_setting_an_option(
    command: Callable[..., None], kind: type[Settings], others: set[str]
):
    parameters = set(inspect.signature(command).parameters)
    assert parameters == set(kind.model_fields) | others
    (found,) = (c for c in get_command(app).commands.values() if c.name == command.__name__)  # type: ignore[attr-defined]
    flags = {flag for parameter in found.params for flag in parameter.opts if flag.startswith("--")}
    assert flags == {f"--{name.replace('_', '-')}" for name in parameters - {"images"}}


def test_what_packs_and_classifies_needs_no_catalog():
    assert check_settings(PackSettings, {"input": "images", "output": "packed"}).unit_size == 4096
    assert check_settings(ClassifySettings, {"images": ["a.jpg"]}).draws == 64
    with pytest.raises(UsageError, match="--output"):
        check_settings(PackSettings, {"input": "images"})
    for kind, given in (
        (PackSettings, {"input": "images", "output": "s3://key:secret@bucket/packed"}),
        (ClassifySettings, {"images": ["a.jpg", "https://host/b.jpg?signature=secret"]}),
    ):
        with pytest.raises(UsageError) as caught:
            check_settings(kind, given)
        assert "secret" not in str(caught.value)


def test_help_groups_the_options_of_a_run():
    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "120"}).output
    places = [text.index(f"╭─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)


def test_the_fingerprint_of_the_same_settings_stays():
    bundle = Bundle("bundle", {}, {})
    assert settings_fingerprint(load_settings(None, MINIMAL), bundle) == "7404f2cb5d84d59d.cdf41c08a3ab13d0"
    others = {
        "models": "svr,bayesian",
        "draws": 128,
        "target_error": 0.01,
        "precision": "float32",
        "crop": 0.5,
        "preset": "single",
        "frames": True,
        "default_radius": 4,
        "population_order": 3,
        "population_bins": "ra=0,180,360;ood_score=0,.5,1",
        "keep_draws": True,
        "max_image_bytes": 1000,
        "max_rejects": "10%",
    }
    settings = load_settings(None, MINIMAL | others)
    assert settings_fingerprint(settings, bundle) == "f396a7e883d33591.0b669b1ea1f3a87c"


def test_a_setting_of_the_file_may_be_null(tmp_path):
    file = tmp_path / "survey.yaml"
    file.write_text("input: a\ncatalog: b\npopulation_order: null\n")
    assert load_settings(str(file), {}).population_order is None


def test_every_preset_of_colors_is_a_choice():
    assert set(get_args(PresetName)) == set(PRESETS)


def test_a_uri_is_never_repeated_in_a_message():
    fields = RunSettings.model_fields | PackSettings.model_fields | ClassifySettings.model_fields
    uris = {n for n, f in fields.items() if "_without_secrets" in f"{f.annotation} {f.metadata}"}
    assert uris | {"webhook"} == set(HIDDEN)


def test_flags_win_over_the_file(tmp_path):
    file = tmp_path / "survey.yaml"
    file.write_text("input: a\ncatalog: b\ndraws: 8\nunit_size: 100\n")
    settings = load_settings(str(file), {"draws": 16, "input": None})
    assert (settings.input, settings.draws, settings.unit_size) == ("a", 16, 100)


def test_an_unknown_key_is_refused_with_the_nearest_right_one(tmp_path):
    file = tmp_path / "survey.yaml"
    file.write_text("input: a\ncatalog: b\nunit-sise: 100\n")
    with pytest.raises(UsageError, match=r"unit-sise.*unit_size"):
        load_settings(str(file), {})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"draws": 1}, "draws"),
        ({"draws": 24, "target_error": 0.01}, "64"),
        ({"models": "svr", "target_error": 0.01}, "bayesian"),
        ({"target_error": 0}, "target_error"),
        ({"unit_size": 0}, "unit_size"),
        ({"workers": "many"}, "workers"),
        ({"workers": 0}, "workers"),
        ({"models": "bayesian,forest"}, "models"),
        ({"models": ""}, "models"),
        ({"precision": "int8"}, "precision"),
        ({"crop": 1.5}, "crop"),
        ({"limit": 0}, "limit"),
        ({"max_rejects": "many%"}, "max_rejects"),
        ({"max_rejects": "101%"}, "max_rejects"),
        ({"unit_seconds": "0.5"}, "unit_seconds"),
        ({"stall_minutes": 0}, "stall_minutes"),
        ({"input": None}, "--input"),
        ({"catalog": ""}, "--catalog"),
        ({"input": "s3://key:secret@bucket/images"}, "input"),
        ({"input": "s3://secret@bucket/images"}, "input"),
        ({"object_store_mib": 74}, "object_store_mib"),
        ({"population_order": 6}, "population_order"),
        ({"population_bins": "ood_score"}, "COLUMN=EDGE"),
        ({"population_bins": "odd_score=0,1"}, "'ood_score'"),
        ({"population_bins": "gz2_class=0,1"}, "gz2_class"),
        ({"population_bins": "ra=0,360,180"}, "'ra'"),
        ({"population_bins": "ra=0,x"}, "population_bins"),
        ({"population_bins": "ra=0,inf"}, "'ra'"),
    ],
)
def test_bad_values_are_one_clear_line(flags, words):
    with pytest.raises(UsageError) as caught:
        load_settings(None, MINIMAL | flags)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "input: [unclosed\n", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    file = tmp_path / "survey.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"survey\.yaml"):
        load_settings(str(file), {})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml"):
        load_settings(str(tmp_path / "none.yaml"), {})


def test_what_config_show_prints_is_read_back(tmp_path):
    flags = {"draws": 8, "models": "svr,bayesian", "population_bins": "ra=0,180,360;ood_score=0,.5,1"}
    settings = load_settings(None, MINIMAL | flags)
    assert settings.population_bins == {"ood_score": (0, 0.5, 1), "ra": (0, 180, 360)}
    file = tmp_path / "survey.yaml"
    file.write_text(describe_settings(settings))
    assert load_settings(str(file), {}) == settings
    assert yaml.safe_load(describe_settings())["draws"] == 64


def test_azures_container_is_no_secret():
    uri = "abfss://container@account.dfs.core.windows.net/images"
    assert load_settings(None, MINIMAL | {"input": uri}).input == uri


def test_the_order_of_models_says_nothing():
    one = load_settings(None, MINIMAL | {"models": "svr, bayesian"})
    assert one == load_settings(None, MINIMAL | {"models": "bayesian,svr"})


def test_every_setting_is_described():
    for field in RunSettings.model_fields.values():
        assert field.description
        assert field.json_schema_extra["panel"] in PANELS


def test_a_unit_has_time_for_its_own_cutouts_bytes_and_draws():
    limit = load_settings(None, MINIMAL | {"unit_size": 100}).step_limit
    assert (limit.of_unit(100), limit.of_unit(65_536)) == (400, 300 + 65_536)
    assert limit.of_unit(5, 4 * 2**30) == 305 + 1024
    assert load_settings(None, MINIMAL | {"draws": 64, "passes": 64}).step_limit.of_unit(100) == 500
    assert load_settings(None, MINIMAL | {"unit_seconds": "7.5"}).step_limit.of_unit(4096) == 7.5
