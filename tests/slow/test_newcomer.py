"""The newcomer's path as the README tells it: the demo, its pages, own images, a frame, a table to take away.

`make test-newcomer` runs it, without real data except for the frame, whose tests are skipped where it is not.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browsers import BROWSER, shown
from fakes import write_images

import gax_batch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SPIRAL = "t04_spiral_a08_spiral"
START_SECONDS = 120


def gax(*words: str, folder: Path) -> str:
    done = subprocess.run(command(*words), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from gax_batch.cli import main; main()", *words]


@contextmanager
def explored(catalog: Path) -> Iterator[str]:
    """The address that `gax explore` prints, while it runs."""
    process = subprocess.Popen(
        command("explore", "--catalog", str(catalog), "--port", "0"),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        found = re.search(r"http://[\d.:]+/", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        assert process.wait(START_SECONDS) in (0, -15)
        process.stdout.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    printed = gax("demo", "--output", "demo", "--galaxies", "120", folder=folder)
    assert "120 galaxies" in printed
    return folder / "demo"


def test_the_demo_has_a_page(demo, tmp_path):
    gax("report", "--catalog", str(demo / "catalog"), "--output", "report.html", folder=tmp_path)
    assert "A catalog of 120 galaxies" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (make browser, as root)")
def test_the_ten_most_uncertain_spirals_become_a_votable(demo, browser, tmp_path):
    with explored(demo / "catalog") as address:
        tab, complaints = shown(browser, address, address, accept_downloads=True)
        tab.get_by_label("Answer").select_option(SPIRAL)
        tab.get_by_label("Fraction from").fill("0.3")
        tab.get_by_label("Order").select_option("most uncertain first")
        tab.get_by_role("button", name="Show").click()
        tab.get_by_label("the first", exact=True).check()
        tab.get_by_role("combobox", name="Format", exact=True).select_option("votable")
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Download").click()
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
    with explored(tmp_path / "my" / "catalog") as address:
        assert address.startswith("http://127.0.0.1:")
    assert time.monotonic() - start < START_SECONDS


def test_the_tutorial_runs_from_a_frame_to_a_plot(shared_data, tmp_path, monkeypatch):
    shutil.copytree(shared_data / "frames", tmp_path / "frames")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    blocks = re.findall(r"```(python|bash)\n(.*?)```", text, re.DOTALL)
    assert [kind for kind, _ in blocks].count("python") == 4
    for kind, block in blocks:
        if kind == "bash":
            gax(*block.split()[1:], folder=tmp_path)
        else:
            exec(block, names)  # noqa: S102
    assert len(names["table"]) == 3
    assert 0 <= names["low"] <= names["fractions"].mean() <= names["high"] <= 1
    assert (tmp_path / "spirals.png").read_bytes().startswith(b"\x89PNG")
