"""The newcomer's path as in the documentation: the demo, its pages, own images, a frame, a table to take.

`make test-newcomer` runs it, on simulated galaxies; the frame is a real one where that is on this machine.
"""

import re
import shutil
import time
from pathlib import Path

import pytest
from browsers import BROWSER, shown
from doc_pages import TUTORIAL
from galaxy_images import write_images
from gax_process import START_SECONDS, explored, gax
from sky_fields import write_field

import gax_batch
from benchmarks.suite import SHARED

pytestmark = pytest.mark.slow

SPIRAL = "t04_spiral_a08_spiral"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    printed = gax("demo", "--output", "demo", "--galaxies", "120", folder=folder)
    assert "120" in printed.split()
    return folder / "demo"


def test_the_demo_has_a_page(demo, tmp_path):
    gax("report", "--catalog", str(demo / "catalog"), "--output", "report.html", folder=tmp_path)
    assert ">120<" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (make browser, as root)")
def test_the_ten_most_uncertain_spirals_become_a_votable(demo, browser, tmp_path):
    with explored("catalog", demo) as address:
        tab, complaints = shown(browser, address, address, accept_downloads=True)
        tab.locator("#filters [name=answer]").select_option(SPIRAL)
        tab.locator("#filters [name=prob_min]").fill("0.3")
        tab.locator("#filters [name=order]").select_option("most_uncertain")
        tab.locator("#filters button[type=submit]").click()
        tab.locator("[name=take][value=first]").check()
        tab.locator("#export [name=format]").select_option("votable")
        with tab.expect_download() as download:
            tab.locator("#export button[type=submit]").click()
        download.value.save_as(tmp_path / "spirals.vot")
        assert complaints == []
        tab.context.close()
    from astropy.table import Table

    rows = gax_batch.open_catalog(str(demo / "catalog")).to_pandas(where=f"{SPIRAL}_prob >= 0.3")
    width = rows[f"{SPIRAL}_hi"] - rows[f"{SPIRAL}_lo"]
    expected = rows.assign(width=width).sort_values("width", ascending=False, kind="stable")[:10]
    table = Table.read(tmp_path / "spirals.vot", format="votable")
    assert sorted(table["galaxy_id"]) == sorted(expected["galaxy_id"])
    assert len(table) == 10


def test_a_folder_of_own_images_becomes_a_catalog_with_pages(tmp_path):
    write_images(tmp_path / "my" / "cutouts", 12)
    gax("run", "--input", "my/cutouts", "--catalog", "my/catalog", "--draws", "4", folder=tmp_path)
    assert "12" in gax("catalog", "log", "--catalog", "my/catalog", folder=tmp_path)
    gax("publish", "--catalog", "my/catalog", "--format", "votable", "--output", "g.vot", folder=tmp_path)
    gax("report", "--catalog", "my/catalog", folder=tmp_path)
    start = time.monotonic()
    with explored("my/catalog", tmp_path) as address:
        assert address.startswith("http://127.0.0.1:")
    assert time.monotonic() - start < START_SECONDS


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """The tutorial's SDSS frame; three spots where its galaxies are if it is not on this machine."""
    folder, real = tmp_path / "frames", SHARED / "frames"
    if real.is_dir():
        shutil.copytree(real, folder)
    else:
        folder.mkdir()
        spots = dict.fromkeys([(313.1082, -5.7722), (313.1230, -5.7469), (313.1476, -5.7108)], 1.0)
        write_field(folder, "ngc6976", spots, ra=313.128, dec=-5.7415, side=900)
    return folder


def test_the_tutorial_runs_from_a_frame_to_a_plot(frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```(python|bash)\n(.*?)```", TUTORIAL, re.DOTALL)
    assert [kind for kind, _ in blocks].count("python") == 4
    for kind, block in blocks:
        if kind == "bash":
            gax(*block.split()[1:], folder=tmp_path)
        else:
            exec(block, names)  # noqa: S102
    assert len(names["table"]) == 3
    assert 0 <= names["low"] <= names["fractions"].mean() <= names["high"] <= 1
    assert (tmp_path / "spirals.png").read_bytes().startswith(b"\x89PNG")
