"""What is wrong with a survey's settings before its job is created."""

from pathlib import Path

import pytest
from galaxy_images import write_images

from gax_batch.runner.preflight import survey_problems
from gax_batch.runner.settings import load_settings


@pytest.fixture
def survey(tmp_path: Path) -> dict[str, str]:
    write_images(tmp_path / "images", 1)
    return {"input": str(tmp_path / "images"), "catalog": str(tmp_path / "catalog")}


def test_a_survey_that_can_run_has_no_problems_and_nothing_is_left_behind(survey, tmp_path):
    assert list(survey_problems(load_settings(None, survey))) == []
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("key", ["input", "bundle"])
def test_what_is_not_there_is_named_by_its_setting_with_the_fix(survey, key):
    settings = load_settings(None, survey | {key: f"{survey['catalog']}/nowhere"})
    (problem,) = survey_problems(settings)
    assert problem.path == f"survey.{key}"
    assert problem.fix


def test_a_place_that_cannot_be_written_is_found(survey, tmp_path):
    (tmp_path / "file").write_text("x")
    settings = load_settings(None, survey | {"catalog": str(tmp_path / "file" / "catalog")})
    assert [problem.path for problem in survey_problems(settings)] == ["survey.catalog"]
