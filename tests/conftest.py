"""What every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import write_zips
from browsers import BROWSER
from fake_engine import FakeEngine
from galaxy_images import write_images
from listings import new_folder

from gax_batch.catalog.parts import Part
from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster import unit
from gax_batch.imaging.decoding import Decoder
from gax_batch.planning.plan import make_plan
from gax_batch.sources import open_source
from gax_batch.system.messages import redirect_messages

# Ray's workers import the engine of tests/fake_engine.py by name, and the package of this checkout.
os.environ["PYTHONPATH"] = os.pathsep.join(str(path) for path in Path(__file__).parents[:2])

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real galaxies that lie beside the checkout on a developer's machine; skipped where they do not."""
    if not SHARED.is_dir():
        pytest.skip("the real galaxies of ../shared/data are not on this machine")
    return SHARED


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """What the package logs during the test."""
    lines: list[str] = []
    with redirect_messages(lines.append):
        yield lines


@pytest.fixture
def options(tmp_path: Path) -> unit.UnitOptions:
    """A run that writes below `tmp_path`."""
    return unit.UnitOptions(
        catalog=str(tmp_path / "catalog"),
        settings_fingerprint="0123456789abcdef",
        bundle_id="bundle-1",
        run_id="run-1",
        decoder=Decoder(),
    )


@pytest.fixture
def task(tmp_path: Path) -> unit.UnitTask:
    """A planned unit of four good images and an empty one."""
    write_images(tmp_path / "images", 5)
    (tmp_path / "images" / "000002.jpg").write_bytes(b"")
    catalog = Catalog(str(tmp_path / "catalog"))
    plan = make_plan(
        open_source(str(tmp_path / "images")).list_members(),
        catalog.members(),
        catalog.units(),
        settings_fingerprint="0123456789abcdef",
        unit_size=10,
        folder=new_folder(),
    )
    ((uri, row_group),) = plan.write(catalog.uri, "run-1")
    (planned,) = plan.units
    return unit.UnitTask(uri, row_group, planned.unit_id, planned.fingerprint, planned.members, planned.whole)


@pytest.fixture
def stored_unit(task: unit.UnitTask, options: unit.UnitOptions) -> tuple[Part, unit.UnitOptions]:
    """The unit's part, written but not committed."""
    part = unit.write(unit.infer(unit.read(task, options), FakeEngine(), options), options).part
    assert part is not None
    return part, options


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder of five images, named by their number."""
    write_images(tmp_path / "plain", 5)
    return tmp_path / "plain"


@pytest.fixture
def image_zips(tmp_path: Path, image_folder: Path) -> Path:
    """A folder that holds the images of `image_folder`, three of them in zips."""
    return write_zips(tmp_path / "zips", image_folder)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Small files in nested folders, for what lists and reads them."""
    for name in ("a.jpg", "b b#%20.jpg", "sub/c.png", "sub/deep/d.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()
