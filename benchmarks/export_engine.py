"""Write the engine that a GPU would run as StableHLO, for `run_exported.py` on a machine without TensorFlow.

`PYTHONPATH=.:tests python -m benchmarks.export_engine FOLDER` does not need a GPU: the program is the one
that `gax_batch.models.engine` gives XLA on a GPU. It reads the real galaxies next to the checkout.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.galaxies import jpegs
from gax_batch.imaging.cutout import decode_cutout
from gax_batch.models import Precision
from gax_batch.models.bundle import Bundle, load_bundle
from gax_batch.models.engine import GPU_ROWS, Engine

CHOICES = (("bayesian",), ("bayesian", "svr"))
EXPECTED = 64


def plain(tensor: Any) -> npt.NDArray[Any]:
    """Return the tensor as an array that NumPy's files support: bfloat16 as its bits."""
    array = tensor.numpy()
    return np.asarray(array.view(np.uint16) if tensor.dtype == tf.bfloat16 else array)


def export(bundle: Bundle, models: tuple[str, ...], folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Write one program. Return its weights by names that are the same for the same bits."""
    folder.mkdir(parents=True, exist_ok=True)
    with patch("gax_batch.models.engine.configure", lambda threads: True):
        run = Engine(bundle, models=models, precision="bfloat16")._run
    function = run.get_concrete_function()
    program = run.experimental_get_compiler_ir(tf.zeros((GPU_ROWS, 64, 64, 3), tf.uint8))(stage="stablehlo")
    (folder / "program.mlir").write_text(program)
    arrays = [plain(tensor) for tensor in function.captured_inputs]
    names = [hashlib.sha256(array.tobytes() + str(array.shape).encode()).hexdigest() for array in arrays]
    results = [[list(tensor.shape), tensor.dtype.name] for tensor in function.outputs]
    outputs = sorted(function.structured_outputs)
    about = {"rows": GPU_ROWS, "weights": names, "results": results, "outputs": outputs}
    (folder / "program.json").write_text(json.dumps(about))
    return dict(zip(names, arrays, strict=True))


def answers(bundle: Bundle, precision: Precision, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return every draw as computed on this machine's CPU."""
    return Engine(bundle, models=("bayesian",), precision=precision).draws(images)


def main() -> None:
    """Write a program for each choice of models, and the weights and galaxies for all."""
    parser = argparse.ArgumentParser(prog="export_engine", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    bundle, images = load_bundle(), np.stack([decode_cutout(data)[0] for data in jpegs(EXPECTED)])
    weights: dict[str, npt.NDArray[Any]] = {}
    for models in CHOICES:
        weights |= export(bundle, models, folder / "+".join(models))
    np.savez(folder / "weights.npz", **weights)
    precisions: tuple[Precision, ...] = ("bfloat16", "float32")
    draws = {precision: answers(bundle, precision, images) for precision in precisions}
    np.savez(folder / "galaxies.npz", images=images, **draws)


if __name__ == "__main__":
    main()
