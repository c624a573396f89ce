"""The default draws beside Flipout layers called 32 times, the whole engine, and plain matrix products."""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.flipout import Float, flipout
from benchmarks.galaxies import jpegs
from benchmarks.suite import Lab, Row, Sample, Target, Work, in_turns, rates
from gax_batch.imaging.cutout import IMAGE_SIDE, decode_cutout
from gax_batch.models import DEFAULT_DRAWS, DEFAULT_PASSES, Precision
from gax_batch.models.bundle import Bundle, load_bundle
from gax_batch.models.engine import ROWS, Engine
from gax_batch.models.layers import FILTERS
from gax_batch.models.precision import faster

COUNT = 32
# Sets of draws, whose means tell the Monte Carlo error to 13 % for one number and better for all.
SETS = 32
CALLS = 32
PEERS = {"eager": Target(14, of_ratio=True), "tf.function": Target(8, of_ratio=True)}
ENGINE_RATES = {"bfloat16": 85, "float32": 65}
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float32")
# Rows, inner length and columns of products: large squares, and the engine's convolutions as products.
PRODUCTS = ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 1152, 256), (16384, 576, 128))
PRODUCT_OPERATIONS = 4e10


def operations(bundle: Bundle) -> float:
    """Multiplications and additions of one draw's direct convolutions for one galaxy."""
    sides = [IMAGE_SIDE // 2**index for index in range(len(FILTERS))]
    shapes = [bundle.arrays["bayesian"][f"block_{index}/mean"].shape for index in range(len(FILTERS))]
    return float(sum(2 * side**2 * math.prod(shape) for side, shape in zip(sides, shapes, strict=True)))


def products(shape: tuple[int, int, int], precision: str, cores: int) -> tuple[Callable[[], Any], float]:
    """Matrix products, one on each core at a time as the engine's draws; and their operations."""
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    left = tf.cast(rng.random((cores, rows, inner), np.float32), precision)
    right = tf.cast(rng.random((inner, columns), np.float32), precision)
    times = cores * math.ceil(PRODUCT_OPERATIONS / (2 * math.prod(shape) * cores))

    @tf.function
    def multiply() -> Any:
        return tf.map_fn(
            lambda k: tf.matmul(left[k % cores], right)[0, 0],
            tf.range(times),
            parallel_iterations=cores,
            fn_output_signature=left.dtype,
        )

    return lambda: multiply().numpy(), 2.0 * math.prod(shape) * times


def error_of_ours(draws: Float) -> float:
    """Return the variance of the mean of the default draws, from several sets of them."""
    sets = draws.reshape(-1, DEFAULT_DRAWS, *draws.shape[1:]).mean(axis=1)
    return float(sets.var(axis=0, ddof=1).mean())


def error_of_flipout(draws: Float) -> float:
    """Return the variance of the mean of `CALLS` independent passes."""
    return float(draws.var(axis=0, ddof=1).mean()) / CALLS


def peak(turns: dict[str, Sample], amounts: dict[str, float]) -> Sample:
    """The fastest product's operations a second, in 1e9, turn by turn."""
    speeds = {n: Sample(tuple(amounts[n] / s / 1e9 for s in turns[n].values)) for n in amounts}
    return max(speeds.values(), key=lambda sample: sample.median)


def run(lab: Lab) -> Iterator[Row]:
    bundle = load_bundle()
    images: npt.NDArray[np.uint8] = np.stack([decode_cutout(data)[0] for data in jpegs(COUNT)])
    images = images[: max(lab.count(COUNT), ROWS)]
    engine = Engine(bundle, models=("bayesian",))
    with flipout(images) as peer:
        works = {"ours": lambda: engine.draws(images)}
        works |= {way: lambda way=way: peer(way, CALLS) for way in PEERS}
        speed = rates(in_turns(works, turns=lab.turns), len(images))
        many = Engine(bundle, models=("bayesian",), draws=SETS * DEFAULT_DRAWS, passes=SETS * DEFAULT_PASSES)
        ours, theirs = error_of_ours(many.draws(images)), error_of_flipout(peer("tf.function", 2 * CALLS))
    # The variance of independent passes falls as one over their number, as does the time to the same error.
    fair = Sample(tuple(value * theirs / ours for value in speed["ours"].values))
    what = f"{DEFAULT_DRAWS} draws of {DEFAULT_PASSES} passes"
    for way, target in PEERS.items():
        name, other = f"Flipout layers called {CALLS} times, {way}", speed[way]
        yield Row(what, "galaxies/s", speed["ours"], name, other)
        yield Row(f"{what}, at equal Monte Carlo error", "galaxies/s", fair, name, other, target)
    errors = (Sample((math.sqrt(ours),)), Sample((math.sqrt(theirs),)))
    yield Row(f"Monte Carlo error of the mean of {what}", "fraction", errors[0], "Flipout layers", errors[1])
    yield from whole_engines(lab, bundle, images)
    yield from shares(lab, bundle, images)


def whole_engines(lab: Lab, bundle: Bundle, images: npt.NDArray[np.uint8]) -> Iterator[Row]:
    """The engine with the default models and draws, in each precision; the faster one has a target."""
    engines = {p: Engine(bundle, precision=p) for p in PRECISIONS}
    works: dict[str, Work] = {p: lambda e=e: e.summarize(images) for p, e in engines.items()}
    speed = rates(in_turns(works, turns=lab.turns), len(images))
    chosen = faster({p: speed[p].median for p in PRECISIONS})
    for precision in PRECISIONS:
        target = Target(ENGINE_RATES[precision]) if precision == chosen else None
        what = f"engine alone with the default draws, {precision}"
        yield Row(what, "galaxies/s", speed[precision], target=target)


def shares(lab: Lab, bundle: Bundle, images: npt.NDArray[np.uint8]) -> Iterator[Row]:
    """The convolutions' operations a second beside those of matrix products, in each precision."""
    work = DEFAULT_PASSES * len(images) * operations(bundle)
    engines = {p: Engine(bundle, models=("bayesian",), precision=p) for p in PRECISIONS}
    matrices = {(p, s): products(s, p, os.cpu_count() or 1) for p in PRECISIONS for s in PRODUCTS}
    works: dict[str, Work] = {p: lambda engine=engine: engine.draws(images) for p, engine in engines.items()}
    works |= {str(key): multiply for key, (multiply, _) in matrices.items()}
    turns = in_turns(works, turns=lab.turns)
    own = {p: Sample(tuple(work / seconds / 1e9 for seconds in turns[p].values)) for p in PRECISIONS}
    best = {
        p: peak(turns, {str(key): amount for key, (_, amount) in matrices.items() if key[0] == p})
        for p in PRECISIONS
    }
    auto = faster({p: own[p].median for p in PRECISIONS})
    what, peer = f"direct convolutions as they run here, in {auto}", "matrix products in bfloat16"
    yield Row(what, "GFLOP/s", own[auto], peer, best["bfloat16"], Target(0.95, of_ratio=True))
    for p in PRECISIONS:
        yield Row(f"direct convolutions in {p}", "GFLOP/s", own[p], f"matrix products in {p}", best[p])
