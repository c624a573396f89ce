"""A catalog to plan against."""

import pytest
from listings import FakeCatalog, cataloged_survey


@pytest.fixture
def cataloged() -> FakeCatalog:
    """A catalog of the galaxies a to h."""
    return cataloged_survey()
