"""Run the programs of `export_engine.py` by JAX's XLA: the engine on a GPU without TensorFlow.

`PYTHONPATH=tests python -m benchmarks.run_exported FOLDER` needs only JAX and NumPy. XLA makes deterministic
kernels, as TensorFlow requests for `gax_batch.models.engine`.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite import Sample, in_turns, rates

os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
# The CNN-SVR sums in double precision.
os.environ.setdefault("JAX_ENABLE_X64", "1")
# JAX is not a dependency of gax_batch.
jax: Any = import_module("jax")
jnp: Any = import_module("jax.numpy")
jax_export: Any = import_module("jax.export")
stablehlo: Any = import_module("jaxlib.mlir.dialects.stablehlo")
bfloat16: Any = import_module("ml_dtypes").bfloat16

TURNS = 7
BATCHES = 40
SIDE = 8192
PRODUCTS = 20


def load(folder: Path) -> tuple[Callable[[Any], Any], int]:
    """Return the program as a function of images on the device, and its number of rows."""
    about = json.loads((folder / "program.json").read_text())
    with np.load(folder.parent / "weights.npz") as file:
        arrays = [file[name] for name in about["weights"]]
    weights = [jax.device_put(a.view(bfloat16) if a.dtype == np.uint16 else a) for a in arrays]
    # JAX's own description of a function with these arguments and results, around the exported program.
    arguments = [jax.ShapeDtypeStruct((about["rows"], 64, 64, 3), np.uint8)]
    arguments += [jax.ShapeDtypeStruct(w.shape, w.dtype) for w in weights]
    results = [(tuple(shape), dtype) for shape, dtype in about["results"]]
    twin = jax.jit(lambda *_: [jnp.zeros(shape, dtype) for shape, dtype in results], keep_unused=True)
    program = stablehlo.serialize_portable_artifact_str(
        (folder / "program.mlir").read_text(), stablehlo.get_current_version()
    )
    exported = dataclasses.replace(jax_export.export(twin)(*arguments), mlir_module_serialized=program)
    function = jax.jit(exported.call)
    return lambda images: function(images, *weights), about["rows"]


def shown(sample: Sample) -> str:
    """Return the median and the spread as text."""
    return f"{sample.median:,.0f} ± {sample.spread:.1%}"


def transferred(function: Callable[[Any], Any], batch: Any) -> None:
    """Transfer batches from the host's memory and results back, while the next batch is being computed."""
    waiting = None
    for _ in range(BATCHES):
        results = function(jax.device_put(batch))
        for result in results:
            result.copy_to_host_async()
        if waiting is not None:
            [np.asarray(result) for result in waiting]
        waiting = results
    [np.asarray(result) for result in waiting or []]


def measure(folder: Path) -> None:
    """Print the measurements of one program."""
    function, rows = load(folder)
    with np.load(folder.parent / "galaxies.npz") as file:
        galaxies = {name: file[name] for name in file.files}
    batch = np.resize(galaxies["images"], (rows, 64, 64, 3))
    images = jax.device_put(batch)
    start = time.perf_counter()
    first = np.asarray(function(images)[0])
    print(f"{folder.name}: compiled in {time.perf_counter() - start:.1f} s")
    mean = first[:, : len(galaxies["images"])].mean(axis=0)
    for precision in ("bfloat16", "float32"):
        off = np.abs(mean - galaxies[precision].mean(axis=0))
        print(f"  difference from a CPU in {precision}: {off.mean():.1e} on average, {off.max():.1e} at most")
    print(f"  same bits when repeated: {np.array_equal(first, np.asarray(function(images)[0]))}")
    works = {
        "on the device": lambda: jax.block_until_ready([function(images) for _ in range(BATCHES)][-1]),
        "with transfers": lambda: transferred(function, batch),
    }
    for name, sample in rates(in_turns(works, turns=TURNS), rows * BATCHES).items():
        print(f"  galaxies/s {name}: {shown(sample)}")


def main() -> None:
    """Measure the machine's matrix products, then each program."""
    print(jax.devices()[0].device_kind, "JAX", jax.__version__, os.environ["XLA_FLAGS"])
    left, right = (jax.random.normal(jax.random.key(k), (SIDE, SIDE), jnp.bfloat16) for k in (0, 1))
    multiply = jax.jit(jnp.matmul)
    works = {"": lambda: jax.block_until_ready([multiply(left, right) for _ in range(PRODUCTS)][-1])}
    (seconds,) = in_turns(works, turns=TURNS).values()
    peak = Sample(tuple(PRODUCTS * 2 * SIDE**3 / 1e12 / value for value in seconds.values))
    print(f"bfloat16 matrix products of {SIDE}: {shown(peak)} TFLOP/s")
    for program in sorted(Path(sys.argv[1]).glob("*/program.mlir")):
        measure(program.parent)


if __name__ == "__main__":
    main()
