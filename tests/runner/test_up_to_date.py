"""A run that is only planned: whether it would have anything to do."""

from types import SimpleNamespace

import pytest
from fakes import write_images

from gax_batch.runner import up_to_date
from gax_batch.runner.settings import load_settings


@pytest.fixture
def settings(tmp_path):
    write_images(tmp_path / "input", 3)
    return load_settings(None, {"input": str(tmp_path / "input"), "catalog": str(tmp_path / "catalog")})


def test_a_new_survey_is_not_up_to_date_and_nothing_is_written(settings, tmp_path):
    said: list[str] = []
    assert not up_to_date.is_up_to_date(settings, said.append)
    assert "3" in said[-1]
    assert not (tmp_path / "catalog").exists()


@pytest.mark.parametrize(
    ("units", "removed", "quiet"), [((), 0, True), (("unit",), 0, False), ((), 5, False)], ids=str
)
def test_units_and_removals_are_work(settings, monkeypatch, units, removed, quiet):
    plan = SimpleNamespace(units=units, removed=removed)
    monkeypatch.setattr(up_to_date, "plan_run", lambda *arguments, **more: plan)
    said: list[str] = []
    assert up_to_date.is_up_to_date(settings, said.append) is quiet
    assert any(settings.catalog in line for line in said) is quiet
