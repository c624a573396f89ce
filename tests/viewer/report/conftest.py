"""The page of a small catalog."""

from pathlib import Path

import pytest
from hostile_catalogs import catalog_twice, survey_of_hostile_names

from gax_batch.viewer.report.build import write_report


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return survey_of_hostile_names(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def catalog(survey: Path) -> str:
    return catalog_twice(survey)


@pytest.fixture(scope="module")
def page(catalog: str, survey: Path) -> Path:
    write_report(catalog, None, str(survey / "report.html"))
    return survey / "report.html"
