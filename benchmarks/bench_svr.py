"""The CNN-SVR's 37 regressions of given features: one shared kernel matrix, or scikit-learn's predict."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.multioutput import MultiOutputRegressor
from sklearn.svm import SVR

from benchmarks.suite import Lab, Row, Sample, Target, in_turns, rates
from gax_batch.gz2 import N_ANSWERS
from gax_batch.models import svr
from gax_batch.models.bundle import load_bundle
from gax_batch.models.engine import ROWS

TRAINING = 2400
SUPPORT = 2000
COUNT = 512
# Halves of differences, which the engine also predicts.
PAIRS = 8
CLOCKS = {"all cores": time.perf_counter, "per second of CPU": time.process_time}


def features(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    return rng.normal(0, 1, (count, 256)).astype(np.float32)


def fitted(rng: np.random.Generator) -> tuple[Any, dict[str, npt.NDArray[np.float32]]]:
    """Return scikit-learn's regressions, noisy enough for that many support vectors, and ours of the same."""
    training = features(rng, TRAINING)
    answers = 1 / (1 + np.exp(-training[:, :N_ANSWERS])) + rng.normal(0, 0.1, (len(training), N_ANSWERS))
    gamma = float(load_bundle().arrays["svr"]["svr/gamma"][0])
    peer = MultiOutputRegressor(SVR(gamma=gamma, C=1.0, epsilon=0.005)).fit(training, answers)
    fewest = min(len(regression.support_) for regression in peer.estimators_)
    assert fewest >= SUPPORT, f"{fewest} support vectors"
    return peer, arrays_of(peer.estimators_, training, gamma)


def arrays_of(
    regressions: Sequence[Any], training: npt.NDArray[np.float32], gamma: float
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the arrays of `svr.Regressions`. The halves are zeros, which take as long as other values."""
    dual = np.zeros((len(training), N_ANSWERS), np.float32)
    for answer, regression in enumerate(regressions):
        dual[regression.support_, answer] = regression.dual_coef_[0]
    return {
        "svr/mean": np.zeros(256, np.float32),
        "svr/deviation": np.ones(256, np.float32),
        "svr/support": training,
        "svr/dual": dual,
        "svr/intercept": np.array([r.intercept_[0] for r in regressions], np.float32),
        "svr/gamma": np.array([gamma], np.float32),
        "svr/half_dual": np.zeros((PAIRS, *dual.shape), np.float32),
        "svr/half_intercept": np.zeros((PAIRS, N_ANSWERS), np.float32),
    }


def compiled(arrays: dict[str, npt.NDArray[np.float32]], parallel: int) -> Any:
    """Return our regressions in micro-batches like the engine's, each on one thread."""
    regressions = svr.Regressions(arrays)

    @tf.function
    def predict(given: Any) -> Any:
        return tf.map_fn(
            lambda batch: regressions(batch)[0][0],
            tf.reshape(given, (-1, ROWS, 256)),
            parallel_iterations=parallel,
        )

    return lambda given: predict(given).numpy().reshape(-1, N_ANSWERS)


def run(lab: Lab) -> Iterator[Row]:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    rng = np.random.default_rng(0)
    peer, arrays = fitted(rng)
    given = features(rng, lab.count(COUNT) // ROWS * ROWS)
    ours = compiled(arrays, parallel=4)
    works = {"ours": lambda: ours(given), "scikit-learn": lambda: peer.predict(given)}
    what = f"{N_ANSWERS} answers of {len(arrays['svr/support']):,} support vectors"
    for name, clock in CLOCKS.items():
        speed = rates(in_turns(works, turns=lab.few_turns, clock=clock), len(given))
        target = Target(200, of_ratio=True) if clock is time.perf_counter else None
        yield Row(f"{what}, {name}", "1/s", speed["ours"], "scikit-learn", speed["scikit-learn"], target)
    difference = float(np.abs(ours(given) - peer.predict(given)).max())
    yield Row("largest difference to it", "", Sample((difference,)), target=Target(1e-5, at_most=True))
