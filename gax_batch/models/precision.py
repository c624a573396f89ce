"""Measure which precision of the convolutions is faster on this machine.

CPU flags do not predict it reliably. bfloat16 is faster with AMX and with AVX512_BF16, and half as fast as
float32 on other CPUs. The measurement takes a second, and six more if TensorFlow must be loaded. The result
is stored in the cache folder of the user.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gax_batch.errors import FatalError
from gax_batch.system.cpus import cpu_name, logical_cpus

Rates = dict[str, float]
"""Passes through the convolutions per second, by precision."""

BOTH: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
# bfloat16 is chosen if it is faster by more than this factor: it rounds, and a small difference may be noise.
_MIN_SPEEDUP = 1.1
_TURNS = 5
_ROWS = 16
_SECONDS = 300


def faster(rates: Rates) -> Literal["float32", "bfloat16"]:
    """Return bfloat16 if it is more than 10 % faster than float32, else float32."""
    return "bfloat16" if rates["bfloat16"] > _MIN_SPEEDUP * rates["float32"] else "float32"


def measure_rates(threads: int = 0) -> Rates:
    """Measure the rates in this process, on a GPU if there is one. Loads TensorFlow.

    The precisions alternate, and the fastest turn of each counts, so that other work on the machine affects
    both equally.

    Args:
        threads: Number of simultaneous passes; 0 for one per logical CPU.

    Returns:
        The rate of each precision.
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


def rates_of_machine(measure: Callable[[], Rates] | None = None) -> Rates:
    """Measure the rates, or return the stored result of an earlier measurement.

    Args:
        measure: How to measure; None for a separate process, so that this one does not load TensorFlow.

    Raises:
        FatalError: The separate process failed.
    """
    key = f"{cpu_name()}, {logical_cpus()} CPUs, TensorFlow {version('tensorflow')}"
    cache = _cache_file()
    known: dict[str, Rates] = {}
    # If the cache is damaged or cannot be written, the rates are only measured again.
    with suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(cache.read_text()))
    if known.get(key, {}).keys() != set(BOTH):
        known[key] = (measure or _measure_in_process)()
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            temporary = cache.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(known, indent=2))
            temporary.replace(cache)
    return known[key]


def _measure_in_process() -> Rates:
    command = [sys.executable, "-m", "gax_batch.models.precision"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS)  # noqa: S603
        found: Rates = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise FatalError(f"the precision cannot be measured: {error}; set --precision") from error
    return found


def _cache_file() -> Path:
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a container's user may not have a home
        root = Path(tempfile.gettempdir())
    return root / "gax-batch" / "precision.json"


def _work(precision: str, threads: int) -> Any:
    """Return a function that runs the convolutions on a micro-batch, once in each thread."""
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
