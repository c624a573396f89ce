"""Settings: one name for a flag and its key, refusals that name the fix."""

import inspect

import pytest
import yaml

from gax_batch.cli.survey import run
from gax_batch.errors import UsageError
from gax_batch.runner.settings import RunSettings, describe_settings, load_settings

MINIMAL = {"input": "images", "catalog": "out"}


def test_every_flag_of_run_is_a_key_and_every_key_a_flag():
    flags = set(inspect.signature(run).parameters) - {"config"}
    assert flags == set(RunSettings.model_fields)


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
        ({"draws": 24, "target_error": 0.01}, "16"),
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
    assert yaml.safe_load(describe_settings())["draws"] == 32


def test_azures_container_is_no_secret():
    uri = "abfss://container@account.dfs.core.windows.net/images"
    assert load_settings(None, MINIMAL | {"input": uri}).input == uri


def test_the_order_of_models_says_nothing():
    one = load_settings(None, MINIMAL | {"models": "svr, bayesian"})
    assert one == load_settings(None, MINIMAL | {"models": "bayesian,svr"})


def test_every_setting_is_described():
    assert all(field.description for field in RunSettings.model_fields.values())


def test_a_unit_has_time_for_its_own_cutouts_bytes_and_draws():
    limit = load_settings(None, MINIMAL | {"unit_size": 100}).step_limit
    assert (limit.of_unit(100), limit.of_unit(65_536)) == (400, 300 + 65_536)
    assert limit.of_unit(5, 4 * 2**30) == 305 + 1024
    assert load_settings(None, MINIMAL | {"draws": 64}).step_limit.of_unit(100) == 500
    assert load_settings(None, MINIMAL | {"unit_seconds": "7.5"}).step_limit.of_unit(4096) == 7.5
