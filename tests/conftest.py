"""What every test may use."""

import os
from pathlib import Path

import pytest

# Ray's workers import the stand-ins of tests/fakes.py by name.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real galaxies that lie beside the checkout on a developer's machine; skipped where they do not."""
    if not SHARED.is_dir():
        pytest.skip("the real galaxies of ../shared/data are not on this machine")
    return SHARED
