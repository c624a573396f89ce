"""A catalog to publish."""

from pathlib import Path

import pytest
from published_catalogs import Survey, write_part


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    """Four parts of the same field, as a run commits them."""
    made = Survey(tmp_path)
    made.commit(*(write_part(made.catalog, number) for number in range(4)))
    return made
