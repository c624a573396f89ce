"""The pages of a small catalog with hostile names, and a catalog of random numbers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from explorer_server import serving
from hostile_catalogs import catalog_twice, survey_of_hostile_names
from published_catalogs import Survey, write_part

from gax_batch.catalog.snapshots import Catalog


@pytest.fixture(scope="session")
def shown_catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    return catalog_twice(survey_of_hostile_names(tmp_path_factory.mktemp("explore")))


@pytest.fixture(scope="session")
def address(shown_catalog: str) -> Iterator[str]:
    with serving(shown_catalog) as address:
        yield address


@pytest.fixture(scope="session")
def random_catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """600 galaxies of random numbers in three parts; a tenth has no position."""
    survey = Survey(Path(tmp_path_factory.mktemp("random")))
    survey.commit(*(write_part(survey.catalog, number) for number in range(3)))
    return Catalog(survey.catalog)
