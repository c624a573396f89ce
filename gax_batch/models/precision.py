"""Which precision of the convolutions is faster on this machine: measured, since no CPU flag tells.

bfloat16 is faster with AMX and with AVX512_BF16, and half as fast as float32 on other CPUs. The measurement
takes a second, and six more where TensorFlow is not loaded; its result is kept in the user's cache folder.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gax_batch.errors import FatalError
from gax_batch.system.cpus import cpu_name, logical_cpus

Rates = dict[str, float]
"""Passes through the convolutions a second, by precision."""

BOTH: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
# bfloat16 is chosen if it is faster by more than this factor: it rounds, and what is close may be noise.
_WORTH = 1.1
_TURNS = 5
_ROWS = 16
_SECONDS = 300


def faster(rates: Rates) -> Literal["float32", "bfloat16"]:
    """Return bfloat16 if it is faster than float32 by more than a tenth, else float32."""
    return "bfloat16" if rates["bfloat16"] > _WORTH * rates["float32"] else "float32"


def measure_rates(threads: int = 0) -> Rates:
    """Measure in this process, which loads TensorFlow; on a GPU if there is one.

    Both precisions take turns, and the fastest turn of each counts, so that other work on the machine
    disturbs neither more than the other.

    Args:
        threads: Passes at once; 0 for one per logical CPU.
    """
    threads = threads or logical_cpus()
    works = {name: _work(name, threads) for name in BOTH}
    fastest = dict.fromkeys(BOTH, float("inf"))
    for _ in range(_TURNS):
        for name, work in works.items():
            start = time.perf_counter()
            work().numpy()
            fastest[name] = min(fastest[name], time.perf_counter() - start)
    return {name: _ROWS * threads / seconds for name, seconds in fastest.items()}


def rates_of_machine() -> Rates:
    """Measure in a process of its own, or return what an earlier measurement has found.

    Raises:
        FatalError: The process failed.
    """
    key = f"{cpu_name()}, {logical_cpus()} CPUs, TensorFlow {version('tensorflow')}"
    cache = _cache_file()
    known: dict[str, Rates] = {}
    # A cache that is broken, or that cannot be written, only costs the time of another measurement.
    with suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(cache.read_text()))
    if known.get(key, {}).keys() != set(BOTH):
        known[key] = _measure_apart()
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            temporary = cache.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(known, indent=2))
            temporary.replace(cache)
    return known[key]


def _measure_apart() -> Rates:
    command = [sys.executable, "-m", "gax_batch.models.precision"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS)  # noqa: S603
        found: Rates = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise FatalError(f"the precision cannot be measured: {error}; set --precision") from error
    return found


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "gax-batch" / "precision.json"


def _work(precision: str, threads: int) -> Any:
    """Return a function that takes a micro-batch through the convolutions, once in each thread."""
    from gax_batch.models import layers
    from gax_batch.models.runtime import configure, tf

    gpu = configure(threads)
    rng = np.random.default_rng(0)
    channels = (3, *layers.FILTERS)
    kernels = [tf.constant(rng.normal(0, 0.05, (3, 3, *pair)), precision) for pair in pairwise(channels)]
    arrays = {
        f"block_{index}/{name}": tf.ones(filters)
        for index, filters in enumerate(layers.FILTERS)
        for name in ("bias", "scale", "shift")
    }
    images = tf.constant(rng.random((_ROWS, 64, 64, 3)), precision)

    @tf.function(jit_compile=gpu)  # type: ignore[untyped-decorator]
    def run() -> Any:
        return tf.map_fn(
            lambda _: layers.trunk(images, kernels, arrays, "SAME"),
            tf.range(threads),
            parallel_iterations=threads,
            fn_output_signature=tf.float32,
        )

    run()
    return run


if __name__ == "__main__":
    print(json.dumps(measure_rates()))
