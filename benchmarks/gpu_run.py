"""Time whole runs on a GPU machine without TensorFlow: the exported program takes the place of the engine.

`PYTHONPATH=.:tests python -m benchmarks.gpu_run FOLDER INPUT ...` needs the programs that `export_engine.py`
wrote into FOLDER, JAX, and the packages of `gax run` without TensorFlow. Each input is a folder of images or
of packed shards. Ray, the readers, the writers and the commit are those of a run.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gax_batch.catalog.snapshots import read_run_record
from gax_batch.models.bundle import load_catalog_bundle
from gax_batch.models.uncertainty import Calibration, Summary, rows_of, summarize, svr_fractions
from gax_batch.runner import record
from gax_batch.runner import run as run_module
from gax_batch.runner.settings import load_settings
from gax_batch.system.messages import redirect_messages

PROGRAM = "bayesian+svr"


class ExportedEngine:
    """The exported program in the place of `gax_batch.models.engine.Engine`."""

    def __init__(self, folder: Path) -> None:
        """Load the program of the default models.

        Args:
            folder: Output of `export_engine.py`.
        """
        from benchmarks.run_exported import load

        self._run, self._rows = load(folder / PROGRAM)
        self._outputs = json.loads((folder / PROGRAM / "program.json").read_text())["outputs"]
        calibration = load_catalog_bundle(None).manifest["calibration"]
        self._calibration = Calibration.of_bundle(calibration, PROGRAM.split("+"))

    def summarize(self, images: npt.NDArray[np.uint8]) -> Summary:
        """Classify cutouts `[N, 64, 64, 3]`, N at least 1."""
        parts = []
        for start in range(0, len(images), self._rows):
            batch = images[start : start + self._rows]
            padding = np.zeros((self._rows - len(batch), *batch.shape[1:]), np.uint8)
            results = self._run(np.concatenate([batch, padding]))
            outputs = dict(zip(self._outputs, map(np.asarray, results), strict=True))
            outputs["svr"], outputs["svr_draws"] = svr_fractions(outputs["svr"])
            parts.append(summarize(self._calibration, rows_of(outputs, slice(0, len(batch)))))
        return Summary.concatenate(parts)


def load_exported(folder: Path, threads: int, **_: object) -> ExportedEngine:
    """Take the place of `gax_batch.runner.run.load_engine`."""
    return ExportedEngine(folder)


def main() -> None:
    """Catalog each input once, and print the rate and the seconds of each stage."""
    parser = argparse.ArgumentParser(prog="gpu_run", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("inputs", nargs="+")
    given = parser.parse_args()
    record.RECORDED_PACKAGES = ()  # TensorFlow is among them
    run_module.load_engine = partial(load_exported, given.folder.resolve())  # type: ignore[assignment]
    for source in given.inputs:
        with tempfile.TemporaryDirectory(prefix="gax-gpu-") as catalog, redirect_messages(print):
            settings = load_settings(None, {"input": source, "catalog": catalog, "precision": "bfloat16"})
            outcome = run_module.run_survey(settings)
            found = read_run_record(catalog, str(outcome.run_id))
        print(f"{source}: {found['galaxies_per_second']:,.0f} galaxies/s in the stage `process`")
        print(f"  seconds by stage {found['seconds']}, of work {found['seconds_of_work']}")


if __name__ == "__main__":
    main()
