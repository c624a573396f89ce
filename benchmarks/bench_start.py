"""`gax classify` and `gax run` of one image as whole processes, and the steps of a classification's start."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.galaxies import jpegs
from benchmarks.suite import Lab, Row, Target, in_turns

PYTHON = [sys.executable, "-c"]
GAX = [*PYTHON, "from gax_batch.cli import main; main()"]
ENGINE = """
from gax_batch.models.engine import Engine
from gax_batch.models.bundle import load_bundle
engine = Engine(load_bundle())
"""
ZEROS = "import numpy\nengine.summarize(numpy.zeros((1, 64, 64, 3), numpy.uint8))"
# Each step includes the one before it.
STEPS = {
    "Python alone": "",
    "and the command's imports": "import gax_batch.viewer.classify, gax_batch.runner.settings",
    "and TensorFlow's import": "import gax_batch.viewer.classify, gax_batch.models.engine",
    "and the engine with its 32 draws": ENGINE,
    "and its first galaxy": ENGINE + ZEROS,
}


def process(arguments: list[str]) -> None:
    """Run a command to its end. Show its output if it fails."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Cataloging:
    """`gax run` of a folder, each time to a new catalog."""

    def __init__(self, images: Path, folder: Path) -> None:
        self._images, self._folder, self._runs = images, folder, 0

    def __call__(self) -> None:
        self._runs += 1
        catalog = self._folder / f"catalog-{self._runs}"
        process([*GAX, "run", "--input", str(self._images), "--catalog", str(catalog)])
        assert list(catalog.rglob("*.parquet")), "no part was written"


def run(lab: Lab) -> Iterator[Row]:
    images = lab.folder / "images"
    images.mkdir()
    image = images / "galaxy.jpg"
    image.write_bytes(jpegs(1)[0])
    works: dict[str, Callable[[], object]] = {
        "classify": lambda: process([*GAX, "classify", str(image)]),
        "run": Cataloging(images, lab.folder),
    }
    works |= {name: lambda code=code: process([*PYTHON, code]) for name, code in STEPS.items()}
    seconds = in_turns(works, turns=lab.few_turns)
    yield Row("gax classify of one image", "s", seconds["classify"], target=Target(8, at_most=True))
    yield Row("gax run of one image", "s", seconds["run"], target=Target(25, at_most=True))
    for name in STEPS:
        yield Row(f"a process: {name}", "s", seconds[name])
