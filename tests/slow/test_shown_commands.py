"""Run every `gax` command of the READMEs and the guides in one folder, in the order of the pages.

The survey is as they assume it, with the shipped bundle and a server for the buckets.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doc_pages import README, RUN_IN_ORDER, SPANISH, page, shown_commands
from galaxy_images import galaxy_image, jpeg_bytes, write_images
from gax_process import explored, gax
from s3 import ceph
from s3.servers import environment, make_bucket, moto
from sky_fields import write_field, write_table
from waiting import http_status

from gax_batch import storage
from gax_batch.analysis.labels import CLEAR_CLASSES

pytestmark = pytest.mark.slow

GALAXIES = 12
SPOTS = {"a": (150.0, 2.0), "b": (150.008, 2.006)}


def fill(folder: Path, bucket: str) -> None:
    """The images, frames and tables that the commands name, in the folder and in the bucket."""
    write_images(folder / "my" / "cutouts", GALAXIES)
    for name in ("one.jpg", "another.png"):
        galaxy_image(len(name)).save(folder / name)
    numbers = range(100, 100 + GALAXIES)
    for number in numbers:
        storage.write_bytes(f"{bucket}/cutouts/{number:06d}.jpg", jpeg_bytes(number))
    write_table(folder / "positions.csv", {f"{n:06d}": (n, -5.0) for n in numbers}, radius=None)
    write_table(folder / "galaxies.csv", SPOTS)
    (folder / "fields").mkdir()
    write_field(folder / "fields", "field7", dict.fromkeys(SPOTS.values(), 1.0))
    for path in (folder / "fields").iterdir():
        storage.write_bytes(f"{bucket}/frames/{path.name}", path.read_bytes())
    known = [f"{number:06d},{CLEAR_CLASSES[number % 5]}" for number in range(GALAXIES)]
    (folder / "labels.csv").write_text("\n".join(["galaxy_id,class5", *known, ""]))


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as the pages assume it, beside a server with the bucket `survey`."""
    folder = tmp_path_factory.mktemp("shown")
    server = moto() if ceph.missing_programs() else ceph.running(tmp_path_factory.mktemp("ceph"))
    with server as endpoint, environment(endpoint):
        fill(folder, make_bucket("survey"))
        yield folder


def a_night(folder: Path) -> None:
    """Two more cutouts, and a run that takes them in."""
    count = len(list((folder / "my" / "cutouts").iterdir()))
    write_images(folder / "my" / "cutouts", 2, first=count)
    gax("run", "--input", "my/cutouts", "--catalog", "my/catalog", folder=folder)


def nights(folder: Path) -> None:
    """Enough of them for the snapshots that the commands name."""
    for _ in range(2):
        a_night(folder)


def a_demo(folder: Path) -> None:
    """What `make demo` makes, smaller."""
    gax("demo", "--output", "demo", "--galaxies", "60", folder=folder)


BEFORE: dict[tuple[str, ...], Callable[[Path], None]] = {
    ("catalog", "log", "--catalog", "my/catalog"): nights,
    ("explore", "--catalog", "demo/catalog"): a_demo,
}


def test_every_command_that_is_shown_does_what_it_says(survey: Path) -> None:
    commands = shown_commands(README, *map(page, RUN_IN_ORDER), SPANISH)
    assert len(commands) > 20
    for words, output in commands:
        BEFORE.get(tuple(words), lambda _: None)(survey)
        if words[0] == "explore":
            with explored(words[words.index("--catalog") + 1], survey) as address:
                assert http_status(address) == 200
            continue
        printed = gax(*words, folder=survey)
        if output is not None:
            (survey / output).write_text(printed, encoding="utf-8")
    written = [
        "report.html",
        "trees.png",
        "rings.fits",
        "spirals.csv",
        "votes/manifest.csv",
        "galaxies.vot",
        "survey.yaml",
    ]
    assert [name for name in written if not (survey / name).stat().st_size] == []
