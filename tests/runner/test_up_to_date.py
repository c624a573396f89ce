"""A run that is only planned: whether it would have anything to do."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from galaxy_images import write_images

from gax_batch.cluster import pipeline, unit
from gax_batch.errors import UsageError
from gax_batch.runner.run import run_survey
from gax_batch.runner.settings import RunSettings, load_settings
from gax_batch.runner.up_to_date import is_up_to_date


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten galaxies, and runs that process their units in this process, without Ray."""

    def one_by_one(tasks: Any, factory: Any, options: Any, *_: Any) -> Iterator[unit.UnitResult]:
        for task in tasks:
            yield unit.write(unit.infer(unit.read(task, options), FakeEngine(), options), options)

    monkeypatch.setattr(pipeline, "ray_session", lambda _: nullcontext(""))
    monkeypatch.setattr(pipeline, "execute", one_by_one)
    write_images(tmp_path / "images", 10)
    return tmp_path


def settings_of(survey: Path, **flags: object) -> RunSettings:
    places = {"input": str(survey / "images"), "catalog": str(survey / "catalog")}
    return load_settings(None, places | flags)


def test_it_says_what_the_next_run_would_find_and_writes_nothing(survey, messages):
    settings = settings_of(survey)
    assert not is_up_to_date(settings)
    assert not (survey / "catalog").exists()
    assert run_survey(settings).exit_code == 0
    before = sorted(survey.rglob("*"))
    assert is_up_to_date(settings)
    assert settings.catalog in messages[-1]
    # It is what a run says.
    line = messages[-1]
    assert run_survey(settings).run_id is None
    assert messages[-1] == line
    assert sorted(survey.rglob("*")) == before
    write_images(survey / "images", 1, first=10)
    assert not is_up_to_date(settings)


def test_what_is_gone_is_work_for_a_run_that_prunes(survey):
    assert run_survey(settings_of(survey)).exit_code == 0
    (survey / "images" / "000003.jpg").unlink()
    assert is_up_to_date(settings_of(survey))
    assert not is_up_to_date(settings_of(survey, prune=True))


def test_a_catalog_that_was_made_on_gpus_is_up_to_date_seen_from_a_pod_without_one(survey):
    assert run_survey(settings_of(survey, precision="bfloat16")).exit_code == 0
    assert is_up_to_date(settings_of(survey, workers=4, engine_cpus=2, engine_gpus=1))
    assert is_up_to_date(settings_of(survey))


def test_a_mistake_is_that_of_the_run(survey):
    with pytest.raises(UsageError, match="none"):
        is_up_to_date(settings_of(survey).model_copy(update={"input": str(survey / "none")}))
